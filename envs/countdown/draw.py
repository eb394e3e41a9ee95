"""Instances, drawn backwards: from a target to an expression of as many numbers as wanted, so that each has a solution.

A value is split by an operator into two that give it, until only numbers are left. Which split an instance belongs to
is decided by a hash of its numbers in order and its target, whatever the seed and the sizes.
"""

import hashlib
from dataclasses import dataclass
from random import Random

from resd.task import Split

HIGHEST = 10_000  # value inside an expression
_TEST_OF = 5  # one instance in so many is for testing


@dataclass(frozen=True, slots=True)
class Instance:
    """`expression` is a solution that uses every number; `numbers` are in the order in which they are shown."""

    numbers: tuple[int, ...]
    target: int
    expression: str

    @property
    def key(self) -> tuple[int, ...]:
        """What makes two instances the same."""
        return (*sorted(self.numbers), self.target)

    @property
    def split(self) -> Split:
        digest = hashlib.sha256(" ".join(map(str, self.key)).encode()).digest()
        return "test" if int.from_bytes(digest[:8], "big") % _TEST_OF == 0 else "train"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the numbers (1 to `largest`), of the targets (`low` to `high`), and which operators there are."""

    largest: int
    low: int
    high: int
    operators: str

    def draw(self, count: int, random: Random) -> Instance | None:
        """An instance of `count` numbers, or None when the draw came to nothing."""
        target = random.randint(self.low, self.high)
        numbers: list[int] = []
        expression = self._expression(target, count, numbers, random)
        if expression is None or target in numbers:
            return None
        random.shuffle(numbers)
        return Instance(tuple(numbers), target, expression.removeprefix("(").removesuffix(")"))

    def _expression(self, value: int, count: int, numbers: list[int], random: Random) -> str | None:
        """A text of `count` numbers, which are added to `numbers`, with this value; None if it cannot be had."""
        if not 1 <= value <= (self.largest if count == 1 else HIGHEST):
            return None
        if count == 1:
            numbers.append(value)
            return str(value)
        sign, first = random.choice(self.operators), random.randrange(1, count)
        pair = self._parts(value, sign, first == 1, count - first == 1, random)
        if pair is None:
            return None
        left = self._expression(pair[0], first, numbers, random)
        right = self._expression(pair[1], count - first, numbers, random) if left else None
        return f"({left} {sign} {right})" if right else None

    def _parts(self, value: int, sign: str, left: bool, right: bool, random: Random) -> tuple[int, int] | None:
        """Two values of which `sign` makes this one; `left` and `right` say which of them has to be a number."""
        most_left, most_right = (self.largest if single else HIGHEST for single in (left, right))
        match sign:
            case "+":
                second = _within(max(1, value - most_left), min(value - 1, most_right), random)
                return (value - second, second) if second else None
            case "-":
                second = _within(1, min(self.largest, most_left - value), random)
                return (value + second, second) if second else None
            case "*":
                found = [n for n in range(2, min(value // 2, most_right) + 1) if value % n == 0]
                second = random.choice([n for n in found if value // n <= most_left] or [0])
                return (value // second, second) if second else None
        second = _within(2, min(self.largest, most_left // value), random)
        return (value * second, second) if second else None


def _within(least: int, most: int, random: Random) -> int:
    """A number between the two, which are at least 1; 0 if there is none."""
    return random.randint(least, most) if least <= most else 0
