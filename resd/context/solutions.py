"""The solution buffer: one solved response per problem, kept across steps (paper section 3.3).

Each success overwrites the one before. Nothing is evicted: a response is text, and a stream sees each problem only for
one inner loop.
"""

from collections.abc import Mapping

from resd.thinking import strip_thinking


class SolutionBuffer:
    """Problem id -> response of its latest success, stored whole and read without thinking."""

    def __init__(self, thinking_opened: bool = False) -> None:
        self.thinking_opened = thinking_opened
        self._responses: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._responses)

    def put(self, problem_id: str, response: str) -> None:
        self._responses[problem_id] = response

    def get(self, problem_id: str) -> str | None:
        """The solution, or None if there is none or if it was all thinking."""
        return strip_thinking(self._responses.get(problem_id, ""), self.thinking_opened) or None

    def state_dict(self) -> dict[str, str]:
        return dict(self._responses)

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        self._responses = dict(state)
