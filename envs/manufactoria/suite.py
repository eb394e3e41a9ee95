"""Freshly drawn test cases for a goal, in the manner of the published data: about 26 tapes with both verdicts.

The published inputs come from an unseeded generator and cannot be redrawn; these follow the same recipe (fixed short
tapes, then templates of the family) and are the same on every machine for the same seed. Like the original they are a
sample: passing them does not prove a program right, which is what `strict` is for.
"""

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

from resd.envs.manufactoria.goal import COLOURS, Goal

MAX_CASES = 35
LEAST_EACH = 3
_FIRST = ("", "R", "RB")
_CORNERS = ("", *COLOURS, *("".join(pair) for pair in product(COLOURS, repeat=2)))
_FIXED = ("RB", "BR", "RBR", "BRB", "RRB", "BBR")


def case(tape: str, accepted: bool) -> dict[str, Any]:
    """One record in the columns of the published data."""
    return {
        "input": tape,
        "expected_output": "",
        "expected_accepted": accepted,
        "check_output": False,
        "description": "",
    }


def draw_cases(goal: Goal, seed: str) -> list[dict[str, Any]]:
    """Up to 35 distinct cases, at least 3 of each verdict wherever 50 random top-ups find them."""
    random = Random(seed)  # seeding by text hashes with SHA-512: the same under every PYTHONHASHSEED
    draw = {"contains_substring": _substring, "contains_ordered": _ordered, "contains_count": _count}[goal.family]
    tapes = [*_FIRST, *random.choices(_CORNERS, k=5), *_FIXED, *draw(goal, random)]
    labels = {tape: goal.accepts(tape) for tape in tapes}
    for attempt in range(50):
        n_accepted = sum(labels.values())
        if min(n_accepted, len(labels) - n_accepted) >= LEAST_EACH:
            break
        tape = _pick(random, random.randint(1, min(2 + attempt // 10, 12)))
        labels[tape] = goal.accepts(tape)
    return [case(tape, accepted) for tape, accepted in list(labels.items())[:MAX_CASES]]


def _pick(random: Random, low: int, high: int = 0, among: str = COLOURS) -> str:
    """`low` random colours, or from `low` to `high` of them."""
    return "".join(random.choices(among, k=random.randint(low, max(low, high))))


def _shuffled(random: Random, symbols: str) -> str:
    return "".join(random.sample(symbols, len(symbols)))


def _gapped(random: Random, sequence: str, low: int = 1, high: int = 1) -> str:
    """`sequence` with random colours in every gap."""
    return sequence[0] + "".join(_pick(random, low, high) + colour for colour in sequence[1:])


def _foreign(random: Random, used: str, length: int) -> str:
    """`length` random colours that do not occur in `used`; empty when all four do."""
    others = "".join(colour for colour in COLOURS if colour not in used)
    return _pick(random, length, among=others) if others else ""


def _inserted(random: Random, sequence: str) -> str:
    """`sequence` with one random colour at a random inner gap."""
    gap = random.randint(1, len(sequence) - 1)
    return sequence[:gap] + _pick(random, 1) + sequence[gap:]


def _substring(goal: Goal, random: Random) -> Iterator[str]:
    q, n = goal.sequence, len(goal.sequence)

    def padded(tape: str, low: int, high: int = 0) -> str:
        return _pick(random, low, high) + tape + _pick(random, low, high)

    yield from (q, q + _pick(random, 3), _pick(random, 6) + q, padded(q, 1, 3), q + _pick(random, 1, 3) + q)
    yield padded(q, 3, 5)
    if n >= 2 and len(set(q)) < n:
        yield q + q[1:]
    if n >= 2:
        yield _gapped(random, q)
    for length in range(1, n):
        pad = _pick(random, 3, 6)
        yield pad + q[:length] + pad
    yield padded(q[::-1], 2, 4)
    if n >= 3:
        yield padded(q[::-1] if q[::-1] != q else q[1] + q[0] + q[2:], 3)
        yield q[: n // 2] + _pick(random, 1) + q[n // 2 :]
    yield _foreign(random, q, 12)
    if n >= 2:
        yield padded(_inserted(random, q), 3)
        yield padded(_gapped(random, q), 2)


def _ordered(goal: Goal, random: Random) -> Iterator[str]:
    q, n = goal.sequence, len(goal.sequence)
    middle = n // 2
    yield q
    for gap in range(1, n):
        yield q[:gap] + _pick(random, 1) + q[gap:]
    yield from (_gapped(random, q), q + _pick(random, 3), _pick(random, 6) + q)
    yield _pick(random, 2, 4) + _gapped(random, q, 1, 3) + _pick(random, 2, 4)
    yield q[:middle] + _pick(random, 1) + q[middle:] + _pick(random, 2) + q
    if n > 2:
        yield from (q[1:], q[:-1], q[:middle] + q[middle + 1 :])
    yield _pick(random, 2, 5) + q[::-1] + _pick(random, 2, 5)
    if n >= 3:
        yield _pick(random, 3) + q[-1] + q[:-1] + _pick(random, 3)
        yield _pick(random, 9) + q[:-2] + q[-1] + _pick(random, 9)
    yield _foreign(random, q, 12)
    if n >= 3:
        pad = _pick(random, 18)
        yield pad + q[:middle] + q[middle + 1 :] + pad


def _count(goal: Goal, random: Random) -> Iterator[str]:
    colours = "".join(colour for colour, _ in goal.bounds)
    exact = "".join(colour * least for colour, least in goal.bounds)
    first = colours[0]
    one_short = exact.replace(first, "", 1)

    def filled(tape: str, length: int, among: str = COLOURS) -> str:
        return _shuffled(random, tape + _pick(random, max(length - len(tape), 0), among=among))

    biased = "".join(random.choice(colours if random.random() < 0.6 else COLOURS) for _ in range(18 - len(exact)))
    yield _shuffled(random, exact)
    yield _shuffled(random, exact + "".join(colour * random.randint(1, 2) for colour in colours))
    yield _shuffled(random, exact + _foreign(random, colours, 3))
    yield filled(exact + "".join(colour * random.randint(0, 2) for colour in colours), 12)
    yield _shuffled(random, exact + biased)
    if len(colours) > 1:
        yield _shuffled(random, exact.replace(colours[-1], "") + _foreign(random, colours, 5))
    if goal.bounds[0][1] > 1:
        yield _shuffled(random, one_short + _foreign(random, colours, 3))
    yield _foreign(random, colours, 12)
    every_short = "".join(colour * (least - 1) for colour, least in goal.bounds)
    others = "".join(colour for colour in COLOURS if colour not in colours)
    yield filled(every_short, 12, others)
    yield filled(one_short, 18)
