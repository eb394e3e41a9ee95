"""References of `task=code` against second implementations, written from the statements in another way."""

import math
import re
from collections import Counter, deque
from datetime import datetime, timedelta
from itertools import accumulate, combinations, groupby, zip_longest
from random import Random
from typing import Any

import pytest

from resd.envs.code.family import Function
from resd.envs.code.task import BANK

FUNCTIONS: dict[str, Function] = {
    function.label: function for families in BANK.values() for family in families for function in family.functions
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def rotated(xs: list[int], k: int) -> list[int]:
    turned = deque(xs)
    turned.rotate(k)
    return list(turned)


def by_turns(a: Any, b: Any) -> list[Any]:
    return [x for pair in zip_longest(a, b) for x in pair if x is not None]


def runs(xs: Any) -> list[tuple[Any, int]]:
    return [(key, len(list(group))) for key, group in groupby(xs)]


def josephus(n: int, k: int) -> int:
    place = 0
    for size in range(2, n + 1):
        place = (place + k) % size
    return place


def later(hour: int, minute: int, minutes: int) -> list[int]:
    time = datetime(2000, 1, 1, hour, minute) + timedelta(minutes=minutes)
    return [time.hour, time.minute]


def climbed(n: int, a: int, b: int) -> int:
    return sum(math.comb(i + j, i) for i in range(n + 1) for j in range(n + 1) if i * a + j * b == n)


def coins(amount: int, values: tuple[int, ...]) -> int:
    reached, count = {0}, 0
    while amount not in reached:
        reached, count = reached | {r + v for r in reached for v in values if r + v <= amount}, count + 1
    return count


def roman(n: int) -> str:
    ones = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]
    return ["", "X", "XX", "XXX", "XL", "L", "LX"][n // 10] + ones[n % 10]


def lines(text: str, width: int) -> list[str]:
    done: list[list[str]] = []
    for word in text.split():
        if not done or len(" ".join([*done[-1], word])) > width:
            done.append([])
        done[-1].append(word)
    return [" ".join(words) for words in done]


def matched(text: str) -> bool:
    open_: list[str] = []
    for c in text:
        if c in "([":
            open_.append(c)
        elif not open_ or open_.pop() + c not in ("()", "[]"):
            return False
    return not open_


SECOND: dict[str, Any] = {
    "sum_of_multiples-2": lambda xs: sum(filter(lambda x: not x % 3, xs)),
    "second_extreme-1": lambda xs: ([*{*xs} - {max(xs)}] and max({*xs} - {max(xs)})) or 0 if xs else 0,
    "running-1": lambda xs: list(accumulate(xs)),
    "running-3": lambda xs: list(accumulate(xs, min)),
    "rotate-1": lambda xs, k: rotated(xs, -k),
    "rotate-2": rotated,
    "chunks-2": lambda xs, k: [list(part) for part in zip(*[iter(xs)] * k, strict=False)],
    "interleave-1": by_turns,
    "zipped-2": lambda a, b: "".join(by_turns(b, a)),
    "distinct-2": lambda xs: [x for i, x in enumerate(xs) if x not in xs[i + 1 :]],
    "most_common-1": lambda xs: min(Counter(xs).items(), key=lambda pair: (-pair[1], pair[0]), default=(0, 0))[0],
    "longest_run-1": lambda xs: max((n for _, n in runs(xs)), default=0),
    "count_pairs-1": lambda xs, target: sum(a + b == target for a, b in combinations(xs, 2)),
    "alternating_sum-2": lambda xs: sum(x * (-1) ** (i + 1) for i, x in enumerate(xs)),
    "best_stretch-1": lambda xs: max(sum(xs[i:j]) for i in range(len(xs) + 1) for j in range(i, len(xs) + 1)),
    "median-1": lambda xs: sorted(xs)[math.ceil(len(xs) / 2) - 1] if xs else 0,
    "median-2": lambda xs: sorted(xs)[len(xs) // 2] if xs else 0,
    "ordered-1": lambda xs: sorted(xs) == xs,
    "ordered-2": lambda xs: sorted({*xs}) == xs,
    "inversions-1": lambda xs: sum(a > b for a, b in combinations(xs, 2)),
    "run_lengths-1": lambda xs: [[x, n] for x, n in runs(xs)],
    "counted_runs-2": lambda text: "".join(c + (str(n) if n > 1 else "") for c, n in runs(text)),
    "column_sums-1": lambda rows: [sum(column) for column in zip_longest(*rows, fillvalue=0)],
    "flattened-2": lambda rows: [x for column in zip_longest(*rows) for x in column if x is not None],
    "gaps-1": lambda xs: sorted({*range(min(xs), max(xs) + 1)} - {*xs}) if xs else [],
    "of_the_others-1": lambda xs: [math.prod(xs[:i] + xs[i + 1 :]) for i in range(len(xs))],
    "common-1": lambda xs: math.gcd(*xs),
    "common-2": lambda xs: math.lcm(*xs) if xs else 0,
    "in_base-2": lambda n: [n // 5**i % 5 for i in range(9, -1, -1) if n >= 5**i or not i],
    "reversed_digits-1": lambda n: int(math.copysign(int("".join(reversed(str(abs(n))))), n)),
    "binary_digits-2": lambda n: (n & -n).bit_length() - 1,
    "binary_digits-3": int.bit_count,
    "clock-1": later,
    "clock-2": lambda hour, minute, minutes: later(hour, minute, -minutes),
    "fewest_coins-1": lambda amount: coins(amount, (1, 5, 10)),
    "fewest_coins-2": lambda amount: coins(amount, (1, 3, 4)),
    "ways_up-1": lambda n: climbed(n, 1, 2),
    "ways_up-3": lambda n: climbed(n, 2, 3),
    "whole_root-1": math.isqrt,
    "leap_years-1": lambda a, b: sum((datetime(y, 3, 1) - datetime(y, 2, 28)).days == 2 for y in range(a, b + 1)),
    "roman-1": roman,
    "last_one-1": josephus,
    "last_one-2": lambda n, k: josephus(n, k) + 1,
    "bounce-1": lambda n, k: [*range(k), *range(k, 0, -1)][n % (2 * k)],
    "brackets_match-1": matched,
    "wrapped-1": lines,
    "occurrences-1": lambda text, part: len(re.findall(f"(?={part})", text)) if part else 0,
    "contained-1": lambda a, b: re.search(".*".join(a), b) is not None,
    "contained-2": lambda a, b: not Counter(a) - Counter(b),
    "count_letters-1": lambda text: len(re.findall("[aeiou]", text, re.IGNORECASE)),
    "sum_in_text-2": lambda text: sum(map(int, re.findall(r"\d+", text))),
    "camel_case-1": lambda text: re.sub(" (.)", lambda found: found[1].upper(), text),
    "mirrored_alphabet-1": lambda text: text.translate(str.maketrans(LETTERS, LETTERS[::-1])),
    "shared_end-1": lambda a, b: re.match(r"(.*).*,\1", f"{a},{b}")[1],  # type: ignore[index]
    "without_repeats-1": lambda text: re.sub(r"(.)\1+", r"\1", text),
    "cut_at_vowels-1": lambda text: re.findall("[^aeiou]*[aeiou]|[^aeiou]+$", text),
    "letter_sum-1": lambda text: sum(LETTERS.index(c) + 1 for c in text if c != " "),
}  # fmt: skip


@pytest.mark.parametrize("label", SECOND)
def test_a_reference_does_what_its_statement_says(label: str) -> None:
    function, source = FUNCTIONS[label], Random(7)
    given = [tuple(kind.draw(source) for kind in function.kinds.values()) for _ in range(300)]
    for place, kind in enumerate(function.kinds.values()):
        for edge in kind.edges:
            given.append((*given[0][:place], edge, *given[0][place + 1 :]))
    for arguments in given:
        assert SECOND[label](*arguments) == function(*arguments), arguments
