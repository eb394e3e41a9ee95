"""Test cases for a rule, in the manner of the published data: fixed short tapes, then those of the family.

The published inputs come from an unseeded generator; these are the same on every machine for the same seed.
"""

from random import Random
from typing import Any

from resd.envs.manufactoria.families.rule import Rule, words

MAX_CASES = 35
_FIRST = ("", "R", "RB")
_FIXED = ("RBR", "BR", "BRB", "RRB", "BBR")


def draw_cases(rule: Rule, seed: str) -> list[dict[str, Any]]:
    """Up to 35 distinct cases; at least one of each verdict where the output does not count."""
    random = Random(seed)
    corners = random.choices(["", *words(rule.colours, 2)], k=5)
    tapes = dict.fromkeys([*_FIRST, *corners, *_FIXED, *rule.tapes(random)])
    return [record(tape, rule.expected(tape)) for tape in list(tapes)[:MAX_CASES]]


def record(tape: str, expected: bool | str) -> dict[str, Any]:
    """One case in the columns of the published data; `expected` is a verdict or an output."""
    output = expected if isinstance(expected, str) else ""
    return {
        "input": tape,
        "expected_output": output,
        "expected_accepted": expected is not False,
        "check_output": isinstance(expected, str),
        "description": "",
    }
