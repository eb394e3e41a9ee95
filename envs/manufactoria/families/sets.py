"""The published sets of problems of these families, rebuilt: their sizes, their tiers, and their split.

Every problem of a tier is enumerated here; a set takes so many of each tier, shuffles them with seed 42 and cuts, which
is the published recipe. Sizes are the published ones. Reconstructed, since the original's tier table is not published:
the thresholds of `compr` (easy 1 to 63, medium 64 to 126), the seven operands of `add` and `bit_op` (those that are no
powers of two), which 125 sequences `basic_mix` and which patterns `regex` hold. Differs on purpose: no problem occurs
in two tiers, so that train and test stay disjoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random

from resd.envs.manufactoria.families import Rule
from resd.envs.manufactoria.families.cases import draw_cases
from resd.envs.manufactoria.families.numbers import RELATIONS, NumericalComparison, NumericalMaxMin, NumericalOperation
from resd.envs.manufactoria.families.patterns import COUNTS, SHAPES, RegexPattern, RegexSameNumber
from resd.envs.manufactoria.families.rule import words
from resd.envs.manufactoria.families.sequences import (
    AppendSequence,
    EndsWith,
    ExactSequence,
    NotContains,
    PrependSequence,
    StartsWith,
)
from resd.task import Split
from resd.types import Problem, UserError

TIERS = ("basic", "easy", "medium", "hard")
TRAIN_SHARE = 0.85
OPERANDS = (3, 5, 7, 15, 31, 63, 127)
POWERS = tuple(2**exponent for exponent in range(8))

Part = tuple[str, str, int]  # family, tier, how many problems


@dataclass(frozen=True)
class ProblemSet:
    """How many problems of which tiers, and how many of them all are for training; none in a set made for testing."""

    parts: tuple[Part, ...]
    n_train: int = 0


SETS = {
    "basic_mix": ProblemSet(
        (("starts_with", "basic", 125), ("exact_sequence", "basic", 125), ("append_sequence", "basic", 125)), 348
    ),
    "ends": ProblemSet((("ends_with", "easy", 126),), 107),
    "compr": ProblemSet((("numerical_comparison", "easy", 315), ("numerical_comparison", "medium", 315)), 535),
    "minmax": ProblemSet((("numerical_max_min", "medium", 512),), 501),
    "regex": ProblemSet((("regex_pattern", "easy", 60), ("regex_pattern", "medium", 600)), 561),
    "prepend_sequence": ProblemSet((("prepend_sequence", "hard", 720),), 612),
    "add": ProblemSet((("numerical_operations", "hard", 14),)),
    "bit_op": ProblemSet((("numerical_operations", "medium", 21),)),
    "fdiv": ProblemSet((("numerical_operations", "easy", 7),)),
    "symm": ProblemSet((("regex_same_num", "hard", 100),)),
}


def families(name: str) -> set[str]:
    """The families that a set, or `all` sets, hold; a family itself stands for itself."""
    if name == "all" or name in SETS:
        return {family for each in published(name) for family, _, _ in SETS[each].parts}
    return {name}


def published(name: str) -> list[str]:
    """The sets meant by the name of a set, by `all`, or by that of a family."""
    if name in SETS:
        return [name]
    return [each for each, set_ in SETS.items() if name in ("all", *(family for family, _, _ in set_.parts))]


def split_problems(name: str, split: Split, difficulty: str | None = None, seed: int = 0) -> list[Problem]:
    """The problems of a set, of `all`, or of a family in one split; `seed` draws their test cases.

    A family is what the sets with training problems hold of it; what they do not hold, another tier or a family of
    which only test sets are published, is split 85 to 15.
    """
    train, test = _halves(name, difficulty)
    if split == "train" and not train:
        raise UserError(
            f"family={name} is made for testing: to train, write family={' or '.join(families(name))}, which is split"
        )
    return [_problem(id_, seed) for id_ in (train if split == "train" else test)]


def _halves(name: str, difficulty: str | None) -> tuple[list[str], list[str]]:
    """The ids of the training and the test problems."""
    wanted = {
        id_: rule
        for (family, tier), rules in tiers().items()
        if family in families(name) and difficulty in (None, tier)
        for id_, rule in rules.items()
    }
    if not wanted:
        known = " or ".join(tier for family, tier in tiers() if family in families(name))
        raise UserError(f"family={name} has no problems of difficulty={difficulty}: write {known}")
    sets = [_cut(SETS[each]) for each in published(name) if name in ("all", each) or SETS[each].n_train]
    train, test = ([id_ for halves in sets for id_ in halves[half] if id_ in wanted] for half in (0, 1))
    if train or test:
        return train, test
    order = list(wanted)
    Random(42).shuffle(order)
    n_train = int(len(order) * TRAIN_SHARE)
    return order[:n_train], order[n_train:]


def _cut(set_: ProblemSet) -> tuple[list[str], list[str]]:
    random = Random(42)
    order = [id_ for family, tier, size in set_.parts for id_ in random.sample(list(tiers()[family, tier]), size)]
    random.shuffle(order)
    return order[: set_.n_train], order[set_.n_train :]


def _problem(id_: str, seed: int) -> Problem:
    rule = _rules()[id_]
    return Problem(id=id_, statement=rule.criteria, family=rule.family, cases=draw_cases(rule, f"{seed}:{id_}"))


@cache
def _rules() -> dict[str, Rule]:
    return {id_: rule for rules in tiers().values() for id_, rule in rules.items()}


@cache
def tiers() -> dict[tuple[str, str], dict[str, Rule]]:
    """Every problem by family, tier and id, in the order of its parameters."""
    found: dict[tuple[str, str], dict[str, Rule]] = {}
    for tier, rule in _enumerated():
        ids = found.setdefault((rule.family, tier), {})
        ids[f"{rule.family}-{tier}-{len(ids):03d}"] = rule
    return found


def _enumerated() -> Iterator[tuple[str, Rule]]:
    binary, prefixes, targets = words("RB", 6), words("RB", 4), words("RB", 2)
    yield from (("basic", StartsWith(word)) for word in binary)
    yield from (("basic", ExactSequence(word)) for word in binary)
    yield from (("basic", AppendSequence(word)) for word in words("RBYG", 4))
    yield from (("easy", EndsWith(word)) for word in binary)
    yield from (("basic", NotContains(x, colours=colours)) for colours in ("RBYG", "RB") for x in colours)
    for tier, thresholds in (("easy", range(1, 64)), ("medium", range(64, 127)), ("hard", range(127, 257))):
        yield from ((tier, NumericalComparison(*each)) for each in product(RELATIONS, thresholds))
    yield from (("medium", NumericalMaxMin(*each)) for each in product(("max", "min"), range(1, 257)))
    bitwise, sums = ("and", "or", "xor"), ("add", "subtract")
    yield from (("basic", NumericalOperation(*each)) for each in product((*sums, *bitwise), POWERS))
    yield from (("easy", NumericalOperation("floor_div", exponent)) for exponent in range(1, 8))
    yield from (("medium", NumericalOperation(*each)) for each in product(bitwise, OPERANDS))
    yield from (("hard", NumericalOperation(*each)) for each in product(sums, OPERANDS))
    for prefix in prefixes:
        yield "easy", PrependSequence(prefix)
        yield "medium", PrependSequence(prefix, swap=True)
        for length, tier in ((1, "medium"), (2, "hard")):
            for source, target in product(words("RB", length), ["", *targets]):
                if len(source) == length and source != target:
                    yield tier, PrependSequence(prefix, source, target)
    singles = list(product(words("RBYG", 1), "+?*"))
    for first, second in product(product(words("RBYG", 2), "+?*"), repeat=2):
        yield ("easy" if first in singles and second in singles else "medium"), RegexPattern((first, second))
    yield from (("hard", RegexSameNumber(*each)) for each in product(SHAPES, COUNTS, COUNTS))
