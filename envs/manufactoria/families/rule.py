"""What a problem of the other families demands: a predicate on tapes, or an output that every tape must turn into."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from random import Random

from resd.envs.manufactoria.families.machine import Machine

TWO_COLOURS = " The input tape carries only red/blue colors."


@dataclass(frozen=True)
class Rule(ABC):
    """One problem without its test cases. `colours` are those of the input tapes.

    `checks_output` families accept every tape and compare what is left of it; the others have a verdict only. `binary`
    families make no sense on other tapes than red and blue ones.
    """

    family = ""
    checks_output = False
    binary = False
    colours: str = field(default="RB", kw_only=True)

    @property
    def criteria(self) -> str:
        """The sentence a problem states."""
        return self.sentence + TWO_COLOURS * (self.colours == "RB")

    @property
    @abstractmethod
    def sentence(self) -> str:
        """The criteria without the colours."""

    @classmethod
    @abstractmethod
    def read(cls, text: str) -> "Rule | None":
        """The rule whose sentence is in `text`, or None."""

    @abstractmethod
    def expected(self, tape: str) -> bool | str:
        """The verdict on `tape`, or what it must be turned into."""

    @abstractmethod
    def tapes(self, random: Random) -> Iterator[str]:
        """Inputs for a test suite, made to tell near misses apart."""

    @abstractmethod
    def machine(self) -> Machine:
        """A correct solution."""

    def probes(self) -> Iterator[str]:
        """Tapes that a strict judge should try besides all short ones and random long ones."""
        return iter(())

    @property
    def longest(self) -> int:
        """The length up to which a correct program need not run into the limit of visits."""
        return 12 if self.checks_output and self.colours == "RB" else 60


def words(colours: str, longest: int) -> list[str]:
    """Every non-empty string of at most `longest` of the colours, by length, then in their order."""
    return ["".join(symbols) for length in range(1, longest + 1) for symbols in product(colours, repeat=length)]


def pick(random: Random, colours: str, low: int, high: int = 0) -> str:
    """`low` random colours, or from `low` to `high` of them."""
    return "".join(random.choices(colours, k=random.randint(low, max(low, high))))


def other(colour: str, colours: str) -> str:
    """The first of the colours that is not this one."""
    return next(each for each in colours if each != colour)
