"""Who is asked, and what they say: drafts, their responses, and the verdicts on these.

Anything that a model generates can become an attempt that can be trained on. Every rank executes the same verbs on the
same data (`resd.dist`): generation and verification are shared out and merged.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from resd import dist, seeds
from resd.clock import Clock
from resd.engine.base import Engine
from resd.model.chat import Chat
from resd.report.log import Log
from resd.settings import SamplingSettings
from resd.types import Attempt, Completion, Messages, Problem, Request
from resd.verify import Verifier

T = TypeVar("T")


class Speech:
    """The student's voice: its chat, the engine that has its weights, and the judge."""

    def __init__(self, chat: Chat, engine: Engine, verifier: Verifier, log: Log, clock: Clock, seed: int) -> None:
        self.chat = chat
        self.engine = engine
        self.verifier = verifier
        self.log = log
        self.clock = clock
        self.seed = seed

    def voiced_by(self, chat: Chat, engine: Engine) -> "Speech":
        """Another voice in the same run."""
        other = copy.copy(self)
        other.chat, other.engine = chat, engine
        return other

    def judged_by(self, verifier: Verifier) -> "Speech":
        """The same voice before another judge."""
        other = copy.copy(self)
        other.verifier = verifier
        return other

    def draft(self, problem: Problem, messages: Messages, id: str, parent: Attempt | None = None) -> Attempt:
        """An attempt that is not answered yet. Its id seeds the answer; `parent` is what it follows from."""
        text, ids = self.chat.render(messages), self.chat.ids(messages)
        return Attempt(id, problem, messages, text, ids, [], [], "", True, parent=parent)

    def drafts(
        self, problems: Sequence[Problem], group: int, prompt: Callable[[Problem], Messages], draw: int = 0
    ) -> list[Attempt]:
        """`group` drafts for each problem, in order; `draw` varies their random seeds."""
        return [
            replace(self.draft(problem, messages, f"{draw}/{problem.id}/{member}"), member=member)
            for problem, messages in zip(problems, map(prompt, problems), strict=True)
            for member in range(group)
        ]

    def speak(self, drafts: Sequence[Attempt], sampling: SamplingSettings, phase: str) -> list[Attempt]:
        """Fill in the responses, within the limits of `sampling`; returns the drafts that were answered, in order."""
        requests = self.requests(drafts, sampling, phase)
        for index, completion in zip(requests, self.complete(list(requests.values()), phase), strict=True):
            self.fill(drafts[index], completion)
        return [draft for draft in drafts if draft.response_ids]

    def requests(self, drafts: Sequence[Attempt], sampling: SamplingSettings, phase: str) -> dict[int, Request]:
        """By index, for the drafts whose prompt is within the limit."""
        return {
            index: Request(
                draft.prompt_ids,
                sampling.max_response,
                sampling.temperature,
                sampling.top_p,
                seeds.derive(self.seed, phase, draft.id),
            )
            for index, draft in enumerate(drafts)
            if len(draft.prompt_ids) <= sampling.max_prompt
        }

    def fill(self, draft: Attempt, completion: Completion) -> None:
        """Put a response into its draft."""
        draft.response_ids = completion.ids
        draft.logprobs = completion.logprobs
        draft.truncated = completion.truncated
        draft.response = self.chat.decode(completion.ids)

    def complete(self, requests: Sequence[Request], phase: str) -> list[Completion]:
        """Generate on all ranks and give every rank everything, in order."""
        share = dist.mine(requests, self.engine.replica, self.engine.replicas)
        done = self._share(share, self.engine.generate, phase)
        return dist.merge(done, len(requests))

    def verify(self, attempts: Sequence[Attempt], phase: str = "verify") -> None:
        """Fill in the verdicts; None where verification itself failed."""
        share = dist.mine([attempt.answer for attempt in attempts])
        verdicts = self._share(share, self.verifier.verify, phase)
        for attempt, said in zip(attempts, dist.merge(verdicts, len(attempts)), strict=True):
            attempt.judge(said)

    def _share(
        self, share: dict[int, T], work: Callable[[list[T]], Iterable[tuple[int, Any]]], phase: str
    ) -> dict[int, Any]:
        indices = list(share)
        done: dict[int, Any] = {}
        with self.log.progress(phase, len(indices)) as advance:
            for position, result in work(list(share.values())):
                done[indices[position]] = result
                advance()
        return done
