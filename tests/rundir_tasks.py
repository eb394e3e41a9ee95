"""Tasks whose problems or scores change between processes, as the environment says; importable by workers."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier_tasks import Echo

from resd.types import Messages, Problem, Verdict


@dataclass
class Changing(Echo):
    """`RESD_TEST_PROBLEMS` is appended | reversed | retold; `RESD_TEST_SCORE` names a further score."""

    def problems(self, split: str) -> Sequence[Problem]:
        problems = list(super().problems(split))
        change = os.environ.get("RESD_TEST_PROBLEMS")
        if change == "appended":
            return [*problems, Problem("new", "say new")]
        if change == "retold":
            return [Problem(p.id, p.statement + "!") for p in problems]
        return problems[::-1] if change == "reversed" else problems

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        name = os.environ.get("RESD_TEST_SCORE")
        return Verdict(0.0, False, 0, 1, "no", scores={name: 0.5} if name else {})


class Told(Echo):
    """Its process is told to stop once it has made the folder `RESD_TEST_STOPPED`, before the first result in it."""

    def prompt(self, problem: Problem) -> Messages:
        if Path(os.environ["RESD_TEST_STOPPED"], "config.yaml").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return super().prompt(problem)


class UnlikeRanks(Echo):
    """Every process has an order of its own."""

    def problems(self, split: str) -> Sequence[Problem]:
        rank = int(os.environ.get("RANK", "0"))
        problems = super().problems(split)
        return [*problems[rank:], *problems[:rank]]
