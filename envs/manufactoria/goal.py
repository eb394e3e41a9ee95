"""What a tape must contain: the predicates of the `has` problems, in words, as a test, and as an automaton.

Three families over the colours R, B, Y, G: a contiguous substring, a subsequence with gaps, and lower bounds on how
often some colours occur. The other families of Manufactoria (prefixes, arithmetic, regular expressions …) are in
`families`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

COLOURS = "RBYG"
FAMILIES = ("contains_count", "contains_ordered", "contains_substring")

_SUBSTRING = re.compile(r"Accept if the tape contains the substring '([RBYG]+)' \(must be consecutive\)")
_ORDERED = re.compile(r"Accept if the tape contains the subsequence ([RBYG]+) \(does not have to be consecutive\)")
_COUNT = re.compile(r"Accept if the tape has (at least \d+ [rbyg]s?(?: and at least \d+ [rbyg]s?)*);")
_BOUND = re.compile(r"(\d+) ([rbyg])")


@dataclass(frozen=True, slots=True)
class Goal:
    """A predicate on tapes. `sequence` for the two sequence families, `bounds` (colour, least count) for counts.

    A state of the automaton is what is still needed to know: the number of matched colours of `sequence`, or the
    counts that are still missing, one per bound. `advance` gives None once the tape is accepted whatever follows.
    """

    family: str
    sequence: str = ""
    bounds: tuple[tuple[str, int], ...] = ()

    @property
    def criteria(self) -> str:
        """The sentence a problem states."""
        if self.family == "contains_substring":
            wanted = f"contains the substring '{self.sequence}' (must be consecutive)"
        elif self.family == "contains_ordered":
            wanted = f"contains the subsequence {self.sequence} (does not have to be consecutive)"
        else:
            wanted = "has " + " and ".join(f"at least {_plural(n, c.lower())}" for c, n in self.bounds)
        return f"Accept if the tape {wanted}; reject otherwise."

    @property
    def name(self) -> str:
        """A short title, unique within its family."""
        if self.family == "contains_substring":
            return f"Contains '{self.sequence}'"
        if self.family == "contains_ordered":
            return f"Contains {self.sequence}"
        return ("At least " if len(self.bounds) == 1 else "Need ") + " and ".join(_plural(n, c) for c, n in self.bounds)

    @classmethod
    def from_criteria(cls, text: str) -> "Goal | None":
        """The goal that `text` states, or None when it states none of the three families."""
        if match := _SUBSTRING.search(text):
            return cls("contains_substring", match[1])
        if match := _ORDERED.search(text):
            return cls("contains_ordered", match[1])
        if match := _COUNT.search(text):
            return cls("contains_count", bounds=tuple((c.upper(), int(n)) for n, c in _BOUND.findall(match[1])))
        return None

    def accepts(self, tape: str) -> bool:
        """Whether a program must accept `tape`."""
        if self.family == "contains_substring":
            return self.sequence in tape
        if self.family == "contains_ordered":
            symbols = iter(tape)
            return all(colour in symbols for colour in self.sequence)
        return all(tape.count(colour) >= least for colour, least in self.bounds)

    @property
    def start(self) -> tuple[int, ...]:
        """The automaton's state before any symbol."""
        return tuple(least for _, least in self.bounds) if self.bounds else (0,)

    def advance(self, state: tuple[int, ...], colour: str) -> tuple[int, ...] | None:
        """The state after one more symbol, or None when the goal is reached."""
        if self.bounds:
            missing = tuple(
                max(left - (colour == wanted), 0) for left, (wanted, _) in zip(state, self.bounds, strict=True)
            )
            return missing if any(missing) else None
        (matched,) = state
        if self.family == "contains_ordered":
            matched += colour == self.sequence[matched]
        else:
            seen = self.sequence[:matched] + colour
            matched = next(n for n in range(len(seen), -1, -1) if seen.endswith(self.sequence[:n]))
        return (matched,) if matched < len(self.sequence) else None


def goals(family: str) -> Iterator[Goal]:
    """Every goal of one family in its natural order: 194 counts (the sum of bounds is 1 to 6), 340 of the others.

    Sequences have 1 to 4 colours. Order: length, then alphabet order; bounds: number of colours, colours, counts.
    """
    if family == "contains_count":
        for n_colours in (1, 2, 3):
            for colours in combinations(COLOURS, n_colours):
                for counts in product(range(1, 7), repeat=n_colours):
                    if sum(counts) <= 6:
                        yield Goal(family, bounds=tuple(zip(colours, counts, strict=True)))
    else:
        for length in (1, 2, 3, 4):
            for symbols in product(COLOURS, repeat=length):
                yield Goal(family, "".join(symbols))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count > 1)
