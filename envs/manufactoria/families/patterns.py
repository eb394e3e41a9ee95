"""Families about the form of a tape: a regular expression of two groups, and blocks whose lengths depend on one n."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from random import Random

from resd.envs.manufactoria.families.machine import Machine, State, acceptor
from resd.envs.manufactoria.families.rule import Rule, pick

COUNTS = {"n": (1, 0), "n+1": (1, 1), "n+2": (1, 2), "n+3": (1, 3), "2n": (2, 0)}  # factor and summand of n
SHAPES = {"RB": "A sequence", "BR": "A sequence"} | {
    shape: f"A symmetric pattern starting and ending with {shape[0]}," for shape in ("RBR", "BRB")
}
Group = tuple[str, str]  # colours, and + * or ?
Rest = tuple[str, tuple[Group, ...]]  # colours that must come now, and the groups after them


@dataclass(frozen=True)
class RegexPattern(Rule):
    """The whole tape matches a first group followed by a second, each with its repetition."""

    family = "regex_pattern"
    groups: tuple[Group, Group]
    colours: str = field(default="RBYG", kw_only=True)

    @property
    def _pattern(self) -> str:
        return "".join(f"({base}){repeat}" for base, repeat in self.groups)

    @property
    def sentence(self) -> str:
        return (
            f"Accept if the tape matches the regex pattern '{self._pattern}' exactly; reject otherwise."
            " '+' means one or more repetitions, '?' means zero or one occurrence, '*' means zero or more repetitions."
        )

    @classmethod
    def read(cls, text: str) -> "RegexPattern | None":
        match = re.search(r"matches the regex pattern '\(([RBYG]+)\)([+?*])\(([RBYG]+)\)([+?*])' exactly", text)
        return match and cls(((match[1], match[2]), (match[3], match[4])))

    def expected(self, tape: str) -> bool:
        return re.fullmatch(self._pattern, tape) is not None

    def _members(self, most: int) -> list[str]:
        (a, first), (b, second) = self.groups
        times = {"+": range(1, most + 1), "*": range(most + 1), "?": range(2)}
        return [a * i + b * j for i, j in product(times[first], times[second])]

    def tapes(self, random: Random) -> Iterator[str]:
        (a, _), (b, _) = self.groups
        members = self._members(4)
        yield from (a + b if a + b in members else members[0], *random.sample(members[1:], 3))
        yield from (b, a, b + a, a + pick(random, self.colours.replace(b[0], ""), 1) + b)
        for _ in range(len(a + b) - 2):
            block = pick(random, self.colours, 4)
            yield block + block[:3]
        yield pick(random, self.colours, 5, 8)

    def machine(self) -> Machine:
        """A state is the set of rests that may follow."""

        def heads(now: str, after: tuple[Group, ...]) -> Iterator[Rest]:
            if now:
                yield now, after
            elif after:
                (base, repeat), *tail = after
                yield base, tuple(tail) if repeat == "?" else ((base, "*"), *tail)
                if repeat != "+":
                    yield from heads("", tuple(tail))

        def step(rests: frozenset[Rest]) -> dict[str, State]:
            moves: dict[str, State] = {}
            for colour in self.colours:
                follow = (head for rest in rests for head in heads(*rest) if head[0][0] == colour)
                if next_ := frozenset((now[1:], after) for now, after in follow):
                    moves[colour] = next_
            ends = any(not now and all(repeat != "+" for _, repeat in after) for now, after in rests)
            return moves | ({"": None} if ends else {})

        return acceptor(frozenset({("", self.groups)}), step)

    def probes(self) -> Iterator[str]:
        return _near(self._members(5), self.colours)


@dataclass(frozen=True)
class RegexSameNumber(Rule):
    """The tape is blocks of one colour whose lengths belong to one n of at least 1.

    `shape` is the colours of the blocks. `x` is the length of the first block and `y` that of the second; in RBR it is
    the other way round.
    """

    family = "regex_same_num"
    shape: str
    x: str
    y: str
    colours: str = field(default="RBYG", kw_only=True)

    @property
    def _counts(self) -> list[str]:
        first = self.y if self.shape == "RBR" else self.x
        second = self.x if self.shape == "RBR" else self.y
        return [first, second, first][: len(self.shape)]

    @property
    def _template(self) -> str:
        return "".join(f"{colour}{{{count}}}" for colour, count in zip(self.shape, self._counts, strict=True))

    @property
    def sentence(self) -> str:
        return (
            f"Accept strings that match the pattern '{self._template}' for any n ≥ 1."
            f" {SHAPES[self.shape]} where x={self.x} and y={self.y} for any positive integer n."
        )

    @classmethod
    def read(cls, text: str) -> "RegexSameNumber | None":
        match = re.search(
            r"match the pattern '([RBn0-9{}+]+)' for any n ≥ 1\..* where x=([n0-9+]+) and y=([n0-9+]+) ", text
        )
        if not match or match[2] not in COUNTS or match[3] not in COUNTS:
            return None
        shape = re.sub(r"\{.*?\}", "", match[1])
        rule = cls(shape, match[2], match[3]) if shape in SHAPES else None
        return rule if rule and rule._template == match[1] else None

    def _lengths(self, n: int) -> list[int]:
        return [factor * n + summand for factor, summand in (COUNTS[count] for count in self._counts)]

    def _tape(self, lengths: list[int]) -> str:
        return "".join(colour * length for colour, length in zip(self.shape, lengths, strict=True))

    def expected(self, tape: str) -> bool:
        return any(tape == self._tape(self._lengths(n)) for n in range(1, len(tape) + 1))

    def tapes(self, random: Random) -> Iterator[str]:
        one, two, *_ = members = [self._tape(self._lengths(n)) for n in (1, 2, 3, 4)]
        yield from members
        yield one + pick(random, self.colours, 1)
        yield one[:-1]
        yield two[::-1]
        pairs = min(one.count("R"), one.count("B"))
        yield "RB" * pairs + "R" * (one.count("R") - pairs) + "B" * (one.count("B") - pairs)
        yield two[1:]
        yield from "BYG"
        yield from (pick(random, self.colours, 3, 8) for _ in range(3))

    def machine(self) -> Machine:
        """Every pass takes from each block what one n more puts there, the first pass what n = 1 puts there.

        Y marks the end. The input may contain Y as well; but an accepted tape must be empty at last, and it is not as
        long as there is a second Y, since every pass paints the one that ended it.
        """
        last = len(self.shape) - 1

        def step(state: tuple[bool, int, int] | tuple[()]) -> dict[str, tuple[str, State]]:
            if not state:  # the tape must be empty now
                return {"": ("", None)}
            first_pass, block, taken = state
            wanted = self._lengths(1)[block] if first_pass else COUNTS[self._counts[block]][0]
            if taken < wanted:
                moves: dict[str, tuple[str, State]] = {self.shape[block]: ("", (first_pass, block, taken + 1))}
                if (block, taken) == (0, 0) and not first_pass:
                    moves["Y"] = ("", ())
                return moves
            following: tuple[str, State] = ("Y", (False, 0, 0)) if block == last else ("", (first_pass, block + 1, 1))
            return {self.shape[block]: (self.shape[block], state), (self.shape + "Y")[block + 1]: following}

        return Machine("Y", (True, 0, 0), step)

    def probes(self) -> Iterator[str]:
        members = [self._lengths(n) for n in range(1, 6)]
        for lengths in members:
            for change in product((-1, 0, 1), repeat=len(lengths)):
                yield self._tape([length + more for length, more in zip(lengths, change, strict=True)])
        yield from _near([self._tape(lengths) for lengths in members[:3]], self.colours)


def _near(members: list[str], colours: str) -> Iterator[str]:
    """The tapes, and all that differ by one colour that is missing, other, or added at an end."""
    for tape in members:
        yield tape
        for place in range(len(tape)):
            for colour in ("", *colours):
                yield tape[:place] + colour + tape[place + 1 :]
        for colour in colours:
            yield from (colour + tape, tape + colour)
