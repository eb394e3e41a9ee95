"""A task whose verifier misbehaves on demand; importable, since verification runs in another process."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from resd.types import Messages, Problem, UserError, Verdict


@dataclass
class Echo:
    """A response is right if it equals the statement; `hang`, `crash` and `die` do just that."""

    noun: str = "answer"

    def problems(self, split: str) -> Sequence[Problem]:
        return [Problem(f"{split}-{i}", f"say {i}") for i in range(8)]

    def prompt(self, problem: Problem) -> Messages:
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        if response == "hang":
            time.sleep(60)
        if response == "crash":
            raise RuntimeError("a broken verifier")
        if response == "die":
            os._exit(1)
        passed = response == problem.statement
        return Verdict(float(passed), passed, int(passed), 1, "" if passed else "not the same")


class Told(Echo):
    """Some problems have something for a teacher's eyes."""

    def problems(self, split: str) -> Sequence[Problem]:
        return [Problem(f"{split}-{i}", f"say {i}", privileged=f"{i} {i} {i}" if i > 4 else "") for i in range(8)]


class Broken(Echo):
    """A task whose judge is out of order."""

    def self_test(self) -> None:
        raise UserError("the judge of broken passes nonsense")
