"""Problems that a model proposes: how it is asked for one, and how its words are read."""

import re
from collections.abc import Sequence
from random import Random

from resd.envs.answers import tagged
from resd.envs.countdown.draw import Instance, Sizes

MAX_CHARS = 200  # of a proposal
_PROBLEM = re.compile(r"make ([0-9]+) from (?:the )?(?:numbers )?([0-9]+(?:(?: ?, ?| )(?:and )?[0-9]+)*) ?\.?")

_FULL = """\
Invent a problem of this kind: "Make TARGET from the numbers A, B, C." Whoever solves it writes an arithmetic \
expression whose value is the target, with the operators {operators} and parentheses, and {uses}.

Choose {count} whole numbers from 1 to {largest}, and a target from {low} to {high} that is none of them and can be \
reached. The problem should be neither easy nor hopeless: of several who try, some should find the answer and some not.

Think first. Then give the problem alone, in this form and with numbers of your own: \
<problem>Make {target} from the numbers {numbers}.</problem>"""
_COMPACT = """\
Invent a problem of {count} numbers up to {largest} and a target from {low} to {high}.
<problem>Make TARGET from the numbers {letters}.</problem>"""


def asked(sizes: Sizes, count: int, use_all: bool, compact: bool, seed: int) -> str:
    """What a model is told to propose: a problem of `count` numbers. The example shows the form alone, it is by lot:
    half a billion parameters write TARGET, A and B where they read these."""
    numbers, target = _example(sizes, count, Random(seed))
    return (_COMPACT if compact else _FULL).format(
        count=count,
        largest=sizes.largest,
        low=sizes.low,
        high=sizes.high,
        operators=" ".join(sizes.operators),
        uses="every number exactly once" if use_all else "each number at most once",
        letters=", ".join("ABCDEFGH"[:count]),
        target=target,
        numbers=", ".join(map(str, numbers)),
    )


def _example(sizes: Sizes, count: int, random: Random) -> tuple[list[int], int]:
    """Numbers and a target that is none of them: there are some, or the task would have no problems."""
    while True:
        numbers = sorted(random.choices(range(1, sizes.largest + 1), k=count))
        if (target := random.randint(sizes.low, sizes.high)) not in numbers:
            return numbers, target


def read(response: str, sizes: Sizes, counts: Sequence[int]) -> Instance:
    """The instance that a response states, its numbers in order; nobody knows whether it has a solution.

    Raises ValueError unless it is of these sizes.
    """
    text = tagged(response, "problem")
    if text is None:
        raise ValueError("no problem between <problem> and </problem>")
    found = None if len(text) > MAX_CHARS else _PROBLEM.fullmatch(" ".join(text.lower().split()))
    if found is None:
        raise ValueError(f"{text!r:.60} is not of the form: Make TARGET from the numbers A, B, C.")
    target, numbers = int(found[1]), tuple(sorted(map(int, re.findall("[0-9]+", found[2]))))
    if len(numbers) not in counts:
        raise ValueError(f"{len(numbers)} numbers instead of {counts[0]} to {counts[-1]}")
    if not 1 <= numbers[0] <= numbers[-1] <= sizes.largest:
        raise ValueError(f"a number is not from 1 to {sizes.largest}")
    if not sizes.low <= target <= sizes.high:
        raise ValueError(f"the target is not from {sizes.low} to {sizes.high}")
    if target in numbers:
        raise ValueError("the target is one of the numbers")
    return Instance(numbers, target, "")
