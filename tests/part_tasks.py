"""Parts of a sequence for a random model: what passes is easily said, and changes as the model does."""

from collections.abc import Sequence
from dataclasses import dataclass

from resd.types import Messages, Problem, UserError, Verdict


@dataclass
class Rest:
    """A response passes if its characters add up to a number that leaves `rest` when divided by three."""

    rest: int = 0
    count: int = 8
    noun: str = "number"

    def problems(self, split: str) -> Sequence[Problem]:
        return [Problem(f"{split}-{i}", f"rest {self.rest} of {split} {i}", cases=[i]) for i in range(self.count)]

    def prompt(self, problem: Problem) -> Messages:
        assert problem.id in ("train-", "test-") or not problem.part  # as the part has made it
        return [{"role": "user", "content": f"{problem.id}: {problem.statement}"}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        passed = sum(map(ord, response)) % 3 == self.rest
        return Verdict(float(passed), passed, int(passed), 1, "" if passed else f"not rest {self.rest}", problem.id)


class Broken(Rest):
    """A part whose judge is out of order."""

    def self_test(self) -> None:
        raise UserError("the judge passes nonsense")


class Untested(Rest):
    """A part without problems to test on."""

    def problems(self, split: str) -> Sequence[Problem]:
        return super().problems(split) if split == "train" else []
