"""Families about one sequence: how a tape begins or ends, what is put before or after it; and one about an absence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from resd.envs.manufactoria.families.machine import Machine, State, acceptor
from resd.envs.manufactoria.families.rule import Rule, other, pick


@dataclass(frozen=True)
class StartsWith(Rule):
    """The tape begins with `sequence`."""

    family = "starts_with"
    sequence: str

    @property
    def sentence(self) -> str:
        return f"Accept if the tape starts with {self.sequence}; reject otherwise."

    @classmethod
    def read(cls, text: str) -> "StartsWith | None":
        match = re.search(r"Accept if the tape starts with ([RBYG]+); reject otherwise\.", text)
        return match and cls(match[1])

    def expected(self, tape: str) -> bool:
        return tape.startswith(self.sequence)

    def tapes(self, random: Random) -> Iterator[str]:
        q, colours = self.sequence, self.colours
        wrong = other(q[0], colours)
        yield from (q, q + colours[0], wrong + q, q + pick(random, colours, 12), q * 3 + pick(random, colours, 3))
        if len(q) > 1:
            yield wrong + q[1:] + pick(random, colours, 6)
        yield wrong * 12

    def machine(self) -> Machine:
        q = self.sequence
        return acceptor(0, lambda n: {q[n]: n + 1 if n + 1 < len(q) else None})


@dataclass(frozen=True)
class ExactSequence(Rule):
    """The tape is `sequence`."""

    family = "exact_sequence"
    sequence: str

    @property
    def sentence(self) -> str:
        return f"Accept if the tape is exactly {self.sequence}; reject otherwise."

    @classmethod
    def read(cls, text: str) -> "ExactSequence | None":
        match = re.search(r"Accept if the tape is exactly ([RBYG]+); reject otherwise\.", text)
        return match and cls(match[1])

    def expected(self, tape: str) -> bool:
        return tape == self.sequence

    def tapes(self, random: Random) -> Iterator[str]:
        q, colours = self.sequence, self.colours
        middle = len(q) // 2
        yield from (q, q[:-1], q + colours[0], other(q[0], colours) + q[1:])
        yield q + pick(random, colours, 9)
        yield pick(random, colours, 6) + q
        yield pick(random, colours, 3) + q + pick(random, colours, 6)
        yield q[:middle] + other(q[middle], colours) + q[middle + 1 :] + pick(random, colours, 6)
        yield pick(random, colours, 12)

    def machine(self) -> Machine:
        q = self.sequence
        return acceptor(0, lambda n: {q[n]: n + 1} if n < len(q) else {"": None})


@dataclass(frozen=True)
class EndsWith(Rule):
    """The tape ends with `sequence`."""

    family = "ends_with"
    sequence: str

    @property
    def sentence(self) -> str:
        return f"Accept if the tape ends with {self.sequence}; reject otherwise."

    @classmethod
    def read(cls, text: str) -> "EndsWith | None":
        match = re.search(r"Accept if the tape ends with ([RBYG]+); reject otherwise\.", text)
        return match and cls(match[1])

    def expected(self, tape: str) -> bool:
        return tape.endswith(self.sequence)

    def tapes(self, random: Random) -> Iterator[str]:
        q, colours = self.sequence, self.colours
        yield from (q, colours[0] + q, q + colours[0], pick(random, colours, 9) + q, pick(random, colours, 15) + q)
        yield q * 3 + pick(random, colours, 3) + q
        yield q + pick(random, colours, 6)
        yield pick(random, colours, 3) + q + pick(random, colours, 6)
        yield pick(random, colours, 6) + q[:-1]
        yield pick(random, colours, 6) + q[1:-1] + other(q[-1], colours)

    def machine(self) -> Machine:
        q = self.sequence

        def step(matched: int) -> dict[str, State]:
            moves: dict[str, State] = {}
            for colour in self.colours:
                seen = q[:matched] + colour
                moves[colour] = next(n for n in range(len(q), -1, -1) if seen.endswith(q[:n]))
            return moves | ({"": None} if matched == len(q) else {})

        return acceptor(0, step)


@dataclass(frozen=True)
class NotContains(Rule):
    """`colour` does not occur."""

    family = "not_contains"
    colour: str

    @property
    def sentence(self) -> str:
        return f"Accept if the tape contains no {self.colour.lower()}; reject otherwise."

    @classmethod
    def read(cls, text: str) -> "NotContains | None":
        match = re.search(r"Accept if the tape contains no ([rbyg]); reject otherwise\.", text)
        return match and cls(match[1].upper())

    def expected(self, tape: str) -> bool:
        return self.colour not in tape

    def tapes(self, random: Random) -> Iterator[str]:
        x, rest = self.colour, self.colours.replace(self.colour, "")
        yield from (x, rest[0], rest[0] * 2, pick(random, rest, 12), pick(random, rest, 15))
        yield rest[0] * 4 + rest[1:2] * 6
        for place in (0, 8, random.randint(1, 8)):
            tape = pick(random, rest, 9)
            yield tape[:place] + x + tape[place:]
        several = pick(random, self.colours, 9)
        yield several[:4] + x + several[4:8] + x + several[8:]
        yield x * 9

    def machine(self) -> Machine:
        return acceptor(0, lambda _: {colour: 0 for colour in self.colours if colour != self.colour} | {"": None})


@dataclass(frozen=True)
class AppendSequence(Rule):
    """Every tape is accepted with `sequence` behind it."""

    family = "append_sequence"
    checks_output = True
    sequence: str
    colours: str = field(default="RBYG", kw_only=True)

    @property
    def sentence(self) -> str:
        return f"Accept any input and append the sequence '{self.sequence}' to the end of the tape."

    @classmethod
    def read(cls, text: str) -> "AppendSequence | None":
        match = re.search(r"Accept any input and append the sequence '([RBYG]+)' to the end of the tape\.", text)
        return match and cls(match[1])

    def expected(self, tape: str) -> str:
        return tape + self.sequence

    def tapes(self, random: Random) -> Iterator[str]:
        return (pick(random, self.colours, length) for length in (4, 8, 12, 15))

    def machine(self) -> Machine:
        return Machine(self.sequence, None, dict)


@dataclass(frozen=True)
class PrependSequence(Rule):
    """Every tape is accepted with `prefix` before it, after `source` was replaced by `target` wherever it occurs.

    A source of one colour is the medium tier, one of two colours the hard one; `source` empty is the easy tier.
    Occurrences are taken from the left and do not overlap. `swap` exchanges the two colours instead.
    """

    family = "prepend_sequence"
    binary = True
    checks_output = True
    prefix: str
    source: str = ""
    target: str = ""
    swap: bool = False

    @property
    def _change(self) -> str:
        if self.swap:
            return "Swap R and B"
        if len(self.source) == 1:
            return f"Change {self.source} to {self.target}" if self.target else f"Remove {self.source}"
        changed = f"Replace patterns {self.source} with {self.target}" if self.target else "Remove patterns "
        return changed if self.target else changed + self.source

    @property
    def sentence(self) -> str:
        put = f"ut '{self.prefix}' at the beginning of the tape."
        return f"{self._change}, then p{put}" if self.source or self.swap else f"P{put}"

    @classmethod
    def read(cls, text: str) -> "PrependSequence | None":
        match = re.search(
            r"(?:(?:(Swap R and B)|(?:Remove|Change|Replace)(?: patterns)? ([RB]+)(?: (?:to|with) ([RB]+))?), then put"
            r"|Put) '([RB]+)' at the beginning of the tape\.",
            text,
        )
        return match and cls(match[4], match[2] or "", match[3] or "", swap=bool(match[1]))

    def expected(self, tape: str) -> str:
        if self.swap:
            return self.prefix + tape.translate(str.maketrans("RB", "BR"))
        return self.prefix + (tape.replace(self.source, self.target) if self.source else tape)

    def tapes(self, random: Random) -> Iterator[str]:
        yield pick(random, self.colours, 4)
        yield from ("RR", "BB", "BBB", "RRR", "BRBR", "RBRB")
        yield pick(random, self.colours, 8)
        yield pick(random, self.colours, 12)

    def machine(self) -> Machine:
        """Y marks the end of the input; `held` is a colour that may begin an occurrence of `source`."""

        def step(held: str) -> dict[str, tuple[str, State]]:
            moves: dict[str, tuple[str, State]] = {"Y": (held, None)}
            for colour in "RB":
                seen = held + (other(colour, "RB") if self.swap else colour)
                if self.source and seen == self.source:
                    moves[colour] = (self.target, "")
                elif len(self.source) == 2 and colour == self.source[0]:
                    moves[colour] = (held, colour)
                else:
                    moves[colour] = (seen, "")
            return moves

        return Machine("Y" + self.prefix, "", step)
