"""Families that read a tape as a binary number: red is 0, blue is 1, the first colour weighs most, and empty is 0.

Outputs are canonical: without leading reds, and empty for 0 and below. The bitwise `not` of the original has no
published wording and is left out.
"""

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from resd.envs.manufactoria.families.machine import Machine, State, acceptor
from resd.envs.manufactoria.families.rule import Rule

RELATIONS: dict[str, tuple[str, Callable[[int, int], bool]]] = {
    ">": ("greater than", operator.gt),
    ">=": ("greater than or equal to", operator.ge),
    "<": ("less than", operator.lt),
    "<=": ("less than or equal to", operator.le),
    "=": ("equal to", operator.eq),
}
OPERATIONS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "add": ("add", operator.add),
    "subtract": ("subtract", operator.sub),
    "and": ("bitwise AND with", operator.and_),
    "or": ("bitwise OR with", operator.or_),
    "xor": ("bitwise XOR with", operator.xor),
    "floor_div": ("floor division by", operator.rshift),
}
Seen = tuple[int, int]  # digits from the first blue on, and how they compare with as many of a constant

_READ = "Treat Blue as 1 and Red as 0. "
_RESULT = (
    " to the binary number and output the result. If the result is zero or negative, output an empty tape."
    " If the result is positive, output the binary representation (which will start with B)."
)
_FLIPPED = {"R": "B", "B": "R"}
_ONES = (255, 127, 63, 31, 15)
_FIXED = ("RBBRBRRBR", "BRBBBBBB", "RBRBRBRR", "BRBRBR")
_MORE = ("BBRBBRBR", "RBBRRBBR")


def value(tape: str) -> int:
    """The number on a tape."""
    return int(tape.translate(str.maketrans("RB", "01")) or "0", 2)


def digits(number: int, width: int = 0) -> str:
    """The tape of a number, empty for 0 and below; with `width`, that many colours."""
    text = f"{number:0{width}b}" if width or number > 0 else ""
    return text.translate(str.maketrans("01", "RB"))


def _follow(constant: int) -> Callable[[Seen, str], Seen]:
    """How the comparison with a constant goes on with one more digit."""
    wanted = digits(constant)

    def follow(seen: Seen, colour: str) -> Seen:
        n_digits, order = seen
        if n_digits > len(wanted) or (n_digits == 0 and colour == "R"):
            return seen
        if n_digits == len(wanted):
            return n_digits + 1, 1
        return n_digits + 1, order or (colour == "B") - (wanted[n_digits] == "B")

    return follow


def _order(seen: Seen, constant: int) -> int:
    """1, 0 or -1: the number is greater than the constant, equal, or smaller."""
    return -1 if seen[0] < constant.bit_length() else seen[1]


@dataclass(frozen=True)
class NumericalComparison(Rule):
    """The number stands in `relation` to `threshold`."""

    family = "numerical_comparison"
    binary = True
    relation: str
    threshold: int

    @property
    def sentence(self) -> str:
        words = RELATIONS[self.relation][0]
        return f"{_READ}Accept if the binary number is {words} {self.threshold}; reject otherwise."

    @classmethod
    def read(cls, text: str) -> "NumericalComparison | None":
        match = re.search(r"Accept if the binary number is ([a-z ]+) (\d+); reject otherwise\.", text)
        relation = match and next((symbol for symbol, (words, _) in RELATIONS.items() if words == match[1]), None)
        return cls(relation, int(match[2])) if match and relation else None

    def expected(self, tape: str) -> bool:
        return RELATIONS[self.relation][1](value(tape), self.threshold)

    def tapes(self, random: Random) -> Iterator[str]:
        t = self.threshold
        far = {">": (2 * t, 4 * t, t + 100, t + 50), "<": (t // 2, t // 4, t - 10, t - 5), "=": ()}
        numbers = (t, t - 2, t - 1, t + 1, t + 2, *far[self.relation[0]], 64, 128, 256, 170)
        return iter(("RBRB", *map(digits, numbers), *_FIXED))

    def machine(self) -> Machine:
        compare, follow = RELATIONS[self.relation][1], _follow(self.threshold)

        def step(seen: Seen) -> dict[str, State]:
            moves: dict[str, State] = {colour: follow(seen, colour) for colour in "RB"}
            return moves | ({"": None} if compare(_order(seen, self.threshold), 0) else {})

        return acceptor((0, 0), step)


@dataclass(frozen=True)
class NumericalMaxMin(Rule):
    """The greater (`max`) or the smaller (`min`) of the number and `operand` is left."""

    family = "numerical_max_min"
    binary = True
    checks_output = True
    operation: str
    operand: int

    @property
    def sentence(self) -> str:
        return f"{_READ}Output the {self.operation}imum of {self.operand} and input."

    @classmethod
    def read(cls, text: str) -> "NumericalMaxMin | None":
        match = re.search(r"Output the (max|min)imum of (\d+) and input\.", text)
        return match and cls(match[1], int(match[2]))

    def expected(self, tape: str) -> str:
        return digits((max if self.operation == "max" else min)(value(tape), self.operand))

    def tapes(self, random: Random) -> Iterator[str]:
        t = self.operand
        powers, ones = (4, 8, 16, 32, 64, 128), (3, 7, 15, 31, 63, 127)
        numbers = (t - 2, t - 1, t, t + 1, t + 2, *powers, *ones, 85, 170, 255, 256)
        return iter(("RBRB", *map(digits, numbers), *_FIXED, *_MORE))

    def machine(self) -> Machine:
        """Copies the number while comparing; if it loses, everything is removed and the operand painted."""
        c = self.operand
        erased: dict[str, tuple[str, State]] = {"R": ("", ()), "B": ("", ()), "": (digits(c), None)}

        follow = _follow(c)

        def step(seen: Seen | tuple[()]) -> dict[str, tuple[str, State]]:
            if not seen:
                return erased
            order = _order(seen, c)
            wins = order >= 0 if self.operation == "max" else order <= 0
            return {
                "R": ("R" if seen[0] else "", follow(seen, "R")),
                "B": ("B", follow(seen, "B")),
                "Y": ("", None if wins else ()),
            }

        return Machine("Y", (0, 0), step)


@dataclass(frozen=True)
class NumericalOperation(Rule):
    """The result of `operation` with `operand` is left; `floor_div` divides by two to that power."""

    family = "numerical_operations"
    binary = True
    checks_output = True
    operation: str
    operand: int

    @property
    def _with(self) -> str:
        return f"2^{self.operand}" if self.operation == "floor_div" else str(self.operand)

    @property
    def sentence(self) -> str:
        return f"{_READ}Apply {OPERATIONS[self.operation][0]} {self._with}{_RESULT}"

    @classmethod
    def read(cls, text: str) -> "NumericalOperation | None":
        match = re.search(r"Apply ([A-Za-z ]+) (?:2\^)?(\d+) to the binary number and output the result\.", text)
        operation = match and next((name for name, (words, _) in OPERATIONS.items() if words == match[1]), None)
        return cls(operation, int(match[2])) if match and operation else None

    def expected(self, tape: str) -> str:
        return digits(self._result(value(tape)))

    def _result(self, number: int) -> int:
        return OPERATIONS[self.operation][1](number, self.operand)

    def tapes(self, random: Random) -> Iterator[str]:
        c = self.operand
        if self.operation == "floor_div":
            numbers = [2**c - 1, 2**c, 2**c + 1, 2 * 2**c, 3 * 2**c, *_ONES, 64, 128, 256, 170]
        elif self.operation in ("add", "subtract"):
            numbers = [c - 1, c, c + 1, 2 * c, 4 * c, 64, 128, *_ONES, 256, 170]
        else:
            numbers = [c, c - 1, c + 1, 85, 170, *_ONES, 64, 128, 256]
        return iter(("RBRB", *map(digits, numbers), *_FIXED, *_MORE))

    def machine(self) -> Machine:
        """Holds back the low digits, as many as the operand has, and copies the high ones without leading reds.

        At the marker Y the low digits are known. A carry or borrow then goes from right to left through the high ones,
        one place a pass: the tape is high, G, low, Y, and a digit that passes it on moves from one part to the other.
        """
        width = self.operand if self.operation == "floor_div" else self.operand.bit_length()
        passing = {"add": "B", "subtract": "R"}.get(self.operation)

        def read(low: str, copied: bool) -> dict[str, tuple[str, State]]:
            moves: dict[str, tuple[str, State]] = {"Y": finish(low, copied)}
            for colour in "RB":
                high, rest = (low[0], low[1:] + colour) if len(low) == width else ("", low + colour)
                keeps = self.operation != "and" and (copied or high == "B")
                moves[colour] = (high if keeps else "", ("read", rest, keeps))
            return moves

        def finish(low: str, copied: bool) -> tuple[str, State]:
            if self.operation == "floor_div":
                return "", None
            result = self._result(value(low))
            if not copied:
                return digits(result), None
            low = digits(result % 2**width, width)
            return (low, None) if 0 <= result < 2**width else (f"G{low}Y", ("carry", ""))

        def carry(last: str) -> dict[str, tuple[str, State]]:
            if last == passing:
                done: tuple[str, State] = ("G" + _FLIPPED[last], ("copy", "Y", ("carry", "")))
            elif self.operation == "add":  # into a red, or in front of all
                done = ("B", ("copy", "", None))
            else:  # from a blue, which there is, since the first digit is one
                done = ("R", ("copy", "Y", ("strip",)))
            return {"R": (last, ("carry", "R")), "B": (last, ("carry", "B")), "G": done}

        def step(state: Any) -> dict[str, tuple[str, State]]:
            match state:
                case ("read", low, copied):
                    return read(low, copied)
                case ("carry", last):
                    return carry(last)
                case ("copy", paint, after):
                    return {"R": ("R", state), "B": ("B", state), "Y": (paint, after)}
            return {"R": ("", state), "B": ("B", ("copy", "", None)), "Y": ("", None)}

        return Machine("Y", ("read", "", False), step)
