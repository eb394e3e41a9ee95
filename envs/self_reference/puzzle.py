"""Puzzles of seven statements about themselves, all of which can be listed.

The kind is that of reasoning-gym's `self_reference`: four statements with a number each, three without. How many of
them are true, T from 0 to 7, decides what each of them says, so a way for all to agree with what they say is a T that
equals the number of statements that hold. There are 7 * 8 * 8 * 8 = 3,584 puzzles, with 0 to 6 such ways.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from resd.task import Split

STATEMENTS = 7
_TEST, _OF = 1, 4  # one puzzle of four is for tests


@dataclass(frozen=True)
class Puzzle:
    """At least `least` are true, at most `most` are false, exactly `true` are true, exactly `false` are false."""

    least: int
    most: int
    true: int
    false: int

    def holding(self, count: int) -> tuple[int, ...]:
        """The numbers, from 1, of the statements that hold if `count` of them are true."""
        third, fourth = count == self.true, STATEMENTS - count == self.false
        holds = (
            count >= self.least,
            STATEMENTS - count <= self.most,
            third,
            fourth,
            third != fourth,
            count in (2, 3, 5, 7),
            STATEMENTS - count in (4, 6),
        )
        return tuple(number for number, held in enumerate(holds, start=1) if held)

    @cached_property
    def ways(self) -> int:
        """In how many ways each statement can be true just where what it says holds."""
        return sum(len(self.holding(count)) == count for count in range(STATEMENTS + 1))

    @property
    def lines(self) -> tuple[str, ...]:
        """The statements, in words."""
        return (
            f"At least {self.least} of these seven statements {_are(self.least)} true.",
            f"At most {self.most} of these seven statements {_are(self.most)} false.",
            f"Exactly {self.true} of these seven statements {_are(self.true)} true.",
            f"Exactly {self.false} of these seven statements {_are(self.false)} false.",
            "One of statements 3 and 4 is true, and the other one is not.",
            "The number of true statements is prime.",
            "The number of false statements is composite.",
        )

    @property
    def name(self) -> str:
        return f"{self.least}{self.most}{self.true}{self.false}"

    @property
    def split(self) -> Split:
        """A matter of the puzzle alone, so that no option moves one to the other split."""
        digest = hashlib.sha256(f"self_reference/{self.name}".encode()).digest()
        return "test" if digest[0] % _OF < _TEST else "train"


def every() -> list[Puzzle]:
    """All there are."""
    counts = range(STATEMENTS + 1)
    return [Puzzle(*numbers) for numbers in product(range(1, STATEMENTS + 1), counts, counts, counts)]


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
