"""Pairs of a response that failed and one that passed, mined from a model's own attempts; pure, tokens and texts alone.

A trace of what was right and stays so is a pair of a response with itself. Controls change what is learned and leave
how much there is of it: `shuffled` gives each pair the fixed side of another problem, `correct` drops the broken side,
`garbage` mixes the tokens of the fixed one, `format` puts the broken one in its place.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from resd import seeds

Control = Literal["mined", "shuffled", "correct", "garbage", "format", "external"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Responses to a problem as ids: `broken` got `feedback`, `fixed` passed and ends with its turn."""

    problem: str
    broken: tuple[int, ...]
    feedback: str
    fixed: tuple[int, ...]


class Pairs:
    """Pairs in the order they were found, at most `per_problem` of a problem and `most` in all."""

    def __init__(self, per_problem: int, most: int | None) -> None:
        self.per_problem, self.most = per_problem, most
        self.found: list[Pair] = []

    def __len__(self) -> int:
        return len(self.found)

    def add(self, pairs: Iterable[Pair]) -> int:
        """How many of them are new: a broken response is taken once."""
        before = len(self)
        for pair in pairs:
            own = [known.broken for known in self.found if known.problem == pair.problem]
            full = self.most is not None and len(self) >= self.most
            if not full and len(own) < self.per_problem and pair.broken not in own:
                self.found.append(pair)
        return len(self) - before

    def state_dict(self) -> list[dict[str, Any]]:
        return [asdict(pair) for pair in self.found]

    def load_state_dict(self, state: Iterable[dict[str, Any]]) -> None:
        self.found = [
            Pair(each["problem"], tuple(each["broken"]), each["feedback"], tuple(each["fixed"])) for each in state
        ]


def portion(pairs: Sequence[Pair], number: int, size: int, seed: int) -> list[Pair]:
    """The pairs of learning update `number`, counted from 0: epoch after epoch, each in an order of its own."""
    chosen: list[Pair] = []
    for position in range(number * size, (number + 1) * size) if pairs else ():
        epoch, place = divmod(position, len(pairs))
        order = random.Random(seeds.derive(seed, "pairs", epoch)).sample(range(len(pairs)), len(pairs))
        chosen.append(pairs[order[place]])
    return chosen


def altered(pairs: Sequence[Pair], control: Control, seed: int) -> list[Pair]:
    """What a control learns instead. `shuffled` leaves out a pair if all are of its problem."""
    if control == "shuffled":
        return [changed for pair in pairs if (changed := _shuffled(pair, pairs, seed))]
    if control == "garbage":
        return [replace(pair, fixed=_mixed(pair, seed)) for pair in pairs]
    if control == "format":
        return [replace(pair, fixed=pair.broken) for pair in pairs]
    return list(pairs)


def _shuffled(pair: Pair, pairs: Sequence[Pair], seed: int) -> Pair | None:
    others = [other.fixed for other in pairs if other.problem != pair.problem]
    number = seeds.derive(seed, "shuffled", pair.problem, pair.broken)
    return replace(pair, fixed=others[number % len(others)]) if others else None


def _mixed(pair: Pair, seed: int) -> tuple[int, ...]:
    """The end of the turn stays where it is."""
    words = list(pair.fixed[:-1])
    random.Random(seeds.derive(seed, "garbage", pair.problem, pair.broken)).shuffle(words)
    return (*words, *pair.fixed[-1:])
