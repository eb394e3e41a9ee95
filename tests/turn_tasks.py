"""A task that answers, and does so badly when a reply says how; importable, since it runs in another process."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from resd.types import Messages, Problem, Verdict

ODD = {"none": None, "text": "a clue", "role": [{"role": "system", "content": "x"}], "number": [{"role": "user"}]}


class Clues:
    """Gives a clue to each reply before the last of `turns`; `right…` is right and ends it at once."""

    noun = "answer"

    def __init__(self, turns: int = 3, role: str = "user") -> None:
        self.turns, self.role = turns, role

    def problem(self, id: str) -> Problem:
        return Problem(id, f"solve {id}")

    def problems(self, split: str) -> Sequence[Problem]:
        return [self.problem(f"{split}{number}") for number in range(8)]

    def prompt(self, problem: Problem) -> Messages:
        return [{"role": "user", "content": problem.statement}]

    def follow(self, problem: Problem, replies: Sequence[str]) -> Messages:
        assert isinstance(replies, list)
        said = replies[-1]
        if said == "hang":
            time.sleep(60)
        if said == "die":
            os._exit(1)
        if said in ODD:
            return ODD[said]  # type: ignore[return-value]
        if len(replies) >= self.turns or said.startswith("right"):
            return []
        told = f"{time.monotonic()}" if said == "differ" else f"clue {problem.id}-{len(replies)}"
        return [{"role": self.role, "content": told}]

    def verify(self, problem: Problem, response: Sequence[str], truncated: bool = False) -> Verdict:
        assert isinstance(response, list)
        passed = response[-1].startswith("right")
        feedback = "" if passed else f"{problem.id} is not {response[-1]} in {len(response)} turns"
        return Verdict(float(passed), passed, int(passed), 1, feedback, error="truncated" if truncated else None)


class Killing(Clues):
    """Between two turns of an update after the first one, kills the process of the run in `RESD_TEST_KILLED`."""

    def __init__(self, turns: int = 2) -> None:
        super().__init__(turns)
        self.process, self.run = os.getpid(), os.environ.get("RESD_TEST_KILLED")

    def follow(self, problem: Problem, replies: Sequence[str]) -> Messages:
        said = super().follow(problem, replies)
        if said and self.run and Path(self.run, "attempts/step_000001.jsonl").exists():
            os.kill(self.process, signal.SIGKILL)
        return said
