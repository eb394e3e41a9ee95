"""Manufactoria's other families: what they state, their sets and suites, their solutions, and the strict judge."""

import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_local import train_on
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.envs.manufactoria import Manufactoria, grade, parse, solution
from resd.envs.manufactoria.families import RULES, Rule, read, solve
from resd.envs.manufactoria.families.cases import draw_cases
from resd.envs.manufactoria.families.machine import assemble
from resd.envs.manufactoria.families.numbers import (
    NumericalComparison,
    NumericalMaxMin,
    NumericalOperation,
    digits,
    value,
)
from resd.envs.manufactoria.families.patterns import RegexPattern, RegexSameNumber
from resd.envs.manufactoria.families.sequences import EndsWith, NotContains, PrependSequence, StartsWith
from resd.envs.manufactoria.families.sets import SETS, TIERS, split_problems, tiers
from resd.envs.manufactoria.problems import rule_of
from resd.envs.manufactoria.strict import grade_strictly, rounds
from resd.types import Problem, UserError

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ROOT.parent / "shared/data/manufactoria_problems_public.jsonl"
needs_data = pytest.mark.skipif(not PUBLIC.is_file(), reason="the shared data is not there")

# set: problems for training and for testing, as published
SIZES = {
    "basic_mix": (348, 27),
    "ends": (107, 19),
    "compr": (535, 95),
    "minmax": (501, 11),
    "regex": (561, 99),
    "prepend_sequence": (612, 108),
    "add": (0, 14),
    "bit_op": (0, 21),
    "fdiv": (0, 7),
    "symm": (0, 100),
}
# family and tier: every problem there is
SPACES = {
    ("starts_with", "basic"): 2 + 4 + 8 + 16 + 32 + 64,
    ("exact_sequence", "basic"): 126,
    ("append_sequence", "basic"): 4 + 16 + 64 + 256,
    ("ends_with", "easy"): 126,
    ("numerical_comparison", "easy"): 5 * 63,
    ("numerical_comparison", "medium"): 5 * 63,
    ("numerical_comparison", "hard"): 5 * 130,
    ("numerical_max_min", "medium"): 2 * 256,
    ("numerical_operations", "basic"): 5 * 8,
    ("numerical_operations", "easy"): 7,
    ("numerical_operations", "medium"): 3 * 7,
    ("numerical_operations", "hard"): 2 * 7,
    ("prepend_sequence", "easy"): 30,
    ("prepend_sequence", "medium"): 30 * (3 + 2 * 5),
    ("prepend_sequence", "hard"): 30 * 24,
    ("regex_pattern", "easy"): 12 * 12,
    ("regex_pattern", "medium"): 60 * 60 - 12 * 12,
    ("regex_same_num", "hard"): 4 * 5 * 5,
    ("not_contains", "basic"): 4 + 2,
}


def fenced(program: str) -> str:
    return f"```manufactoria\n{program}\n```"


@cache
def both(name: str, difficulty: str | None = None) -> list[Problem]:
    """The problems of both splits."""
    train = [] if name in SETS and not SETS[name].n_train else split_problems(name, "train", difficulty)
    return train + split_problems(name, "test", difficulty)


def rule(problem: Problem) -> Rule:
    found = rule_of(problem)
    assert isinstance(found, Rule)
    return found


def every_rule() -> list[Rule]:
    return [stated for rules in tiers().values() for stated in rules.values()]


def public() -> list[dict[str, Any]]:
    return [row for row in map(json.loads, PUBLIC.read_text().splitlines()) if row["group"] != "has"]


def digest(problems: list[list[Problem]]) -> str:
    return hashlib.sha256(repr(problems).encode()).hexdigest()


# --------------------------------------------------------------------------------------------- problems and sets


def test_the_has_problems_are_what_they_were() -> None:
    """Ids, order, words and cases: results of different versions are comparable only as long as this holds."""
    task = Manufactoria()
    pinned = "cb9533f9305ade5c323a0e48861d8671b2c0a57176b7f3bb0bba918c68de22bb"
    problems = [[replace(p, privileged="") for p in task.problems(split)] for split in ("train", "test")]
    fields = repr(problems).replace(", privileged='', part=''", "")  # fields that came later
    assert hashlib.sha256(fields.encode()).hexdigest() == pinned


@needs_data
def test_rules_say_and_demand_what_the_published_problems_do() -> None:
    seen = set()
    for row in public():
        stated = read(row["criteria"])
        assert stated is not None, row["criteria"]
        seen.add(stated.family)
        assert (stated.criteria, stated.family) == (row["criteria"], row["problem_family"])
        assert stated.colours == ("RB" if row["color_mode"] == "two_color" else "RBYG")
        for record in row["ground_truth"]:
            right = record["expected_output"] if record["check_output"] else record["expected_accepted"]
            assert stated.expected(record["input"]) == right, (row["criteria"], record)
        assert grade(fenced(solve(stated)), row["ground_truth"]).passed, row["criteria"]
    assert seen == {kind.family for kind in RULES}


@needs_data
def test_published_problems_are_among_the_enumerated() -> None:
    stated = {each.criteria for each in every_rule()}
    assert {row["criteria"] for row in public()} <= stated


@needs_data
def test_drawn_suites_resemble_the_published_ones() -> None:
    rows = defaultdict(list)
    for row in public():
        rows[row["problem_family"], row["difficulty"]].append(row)
    for kind, group in rows.items():
        drawn = [draw_cases(stated, f"{n}") for row in group if (stated := read(row["criteria"])) for n in range(5)]
        theirs = [row["ground_truth"] for row in group]
        assert mean(map(len, drawn)) == pytest.approx(mean(map(len, theirs)), abs=1.2), kind
        assert accepted_share(drawn) == pytest.approx(accepted_share(theirs), abs=0.04), kind
        assert drawn[0][0].keys() == theirs[0][0].keys()


def mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)


def accepted_share(suites: list[Any]) -> float:
    return mean(mean(record["expected_accepted"] for record in suite) for suite in suites)


@pytest.mark.parametrize("name", SIZES)
def test_a_set_has_the_published_sizes(name: str) -> None:
    n_train, n_test = SIZES[name]
    problems = both(name)
    assert (len(problems), len(split_problems(name, "test"))) == (n_train + n_test, n_test)
    assert len({each.id for each in problems}) == len({each.statement for each in problems}) == len(problems)
    assert SETS.keys() == SIZES.keys()


@pytest.mark.parametrize(("family", "tier"), SPACES)
def test_a_tier_is_split_into_disjoint_halves(family: str, tier: str) -> None:
    train, test = (split_problems(family, split, tier) for split in ("train", "test"))
    statements = {each.statement for each in train + test}
    assert len(statements) == len(train + test) <= SPACES[family, tier]
    assert len(train) > len(test) > 0
    assert {each.family for each in train + test} == {family}
    if not any(family == part[0] for set_ in SETS.values() if set_.n_train for part in set_.parts):
        assert len(train + test) == SPACES[family, tier]


def test_tiers_are_enumerated_whole() -> None:
    assert {kind: len(rules) for kind, rules in tiers().items()} == SPACES


def test_no_problem_is_in_two_tiers() -> None:
    for family in {family for family, _ in SPACES}:
        found = [{each.statement for each in both(family, tier)} for tier in TIERS if (family, tier) in SPACES]
        assert sum(map(len, found)) == len(set().union(*found))


def test_a_family_is_split_as_its_set_is() -> None:
    mixed = split_problems("basic_mix", "train")
    assert split_problems("ends_with", "test") == split_problems("ends", "test")
    assert split_problems("starts_with", "train") == [each for each in mixed if each.family == "starts_with"]
    assert {each.family for each in split_problems("all", "test")} == {kind.family for kind in RULES} - {"not_contains"}


def test_problems_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "import hashlib; from resd.envs.manufactoria.families.sets import split_problems;"
        "print(hashlib.sha256(repr([split_problems('all', s) for s in ('train', 'test')]).encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "4242", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest([split_problems("all", "train"), split_problems("all", "test")])


def test_suites_are_small_distinct_and_decide() -> None:
    for each in both("all") + both("not_contains"):
        tapes = [record["input"] for record in each.cases]
        assert len(set(tapes)) == len(tapes) <= 35
        stated = rule(each)
        assert set("".join(tapes)) <= set(stated.colours) | set("RB")
        assert all(record["check_output"] == stated.checks_output for record in each.cases)
        if not stated.checks_output:
            assert {record["expected_accepted"] for record in each.cases} == {True, False}, each.statement


# ------------------------------------------------------------------------------------------------- what is demanded


@pytest.mark.parametrize(
    ("stated", "tape", "expected"),
    [
        (StartsWith("RB"), "RBB", True),
        (EndsWith("RB"), "RBB", False),
        (NotContains("Y", colours="RBYG"), "RBG", True),
        (PrependSequence("R"), "", "R"),
        (PrependSequence("R", "B", ""), "BRBB", "RR"),
        (PrependSequence("R", "R", "RB"), "RBR", "RRBBRB"),
        (PrependSequence("B", swap=True), "RBB", "BBRR"),
        (PrependSequence("B", "RR", "B"), "RRR", "BBR"),  # from the left, without overlap
        (PrependSequence("B", "RR", "RB"), "RRRR", "BRBRB"),  # what was put in is not looked at again
        (NumericalComparison("<", 1), "", True),
        (NumericalComparison(">=", 5), "RRBRB", True),  # leading zeros are allowed
        (NumericalMaxMin("min", 4), "RR", ""),
        (NumericalMaxMin("max", 4), "RRBRB", "BRB"),
        (NumericalOperation("add", 1), "BB", "BRR"),
        (NumericalOperation("subtract", 4), "BRR", ""),
        (NumericalOperation("subtract", 7), "BRR", ""),
        (NumericalOperation("and", 5), "BBR", "BRR"),
        (NumericalOperation("or", 5), "BR", "BBB"),
        (NumericalOperation("xor", 5), "BRB", ""),
        (NumericalOperation("floor_div", 2), "RBBRB", "BB"),
        (RegexPattern((("RB", "+"), ("Y", "?"))), "RBRBY", True),
        (RegexPattern((("RB", "+"), ("Y", "?"))), "RBR", False),
        (RegexSameNumber("RB", "n", "2n"), "RRBBBB", True),
        (RegexSameNumber("RB", "n", "2n"), "", False),
        (RegexSameNumber("RBR", "n", "n+1"), "RRBRR", True),
        (RegexSameNumber("BRB", "n", "n+1"), "BRRB", True),
    ],
    ids=str,
)
def test_examples(stated: Rule, tape: str, expected: bool | str) -> None:
    assert stated.expected(tape) == expected
    assert read(stated.criteria) == stated


def test_every_rule_reads_its_own_words() -> None:
    rules = every_rule()
    assert len({each.criteria for each in rules}) == len(rules)
    assert all(read(each.criteria) == each for each in rules)


@pytest.mark.parametrize(
    "text",
    [
        "Accept if the tape contains the substring 'R' (must be consecutive); reject otherwise.",
        "Put 'RB' at the beginning of the tape.",  # with any colours: not a problem of that family
        "Treat Blue as 1 and Red as 0. Accept if the binary number is about 7; reject otherwise.",
        "Accept strings that match the pattern 'R{n}B{n}' for any n ≥ 1. A sequence where x=n and y=2n for any n.",
        "Accept if the tape is a palindrome; reject otherwise.",
    ],
)
def test_other_words_state_no_rule(text: str) -> None:
    assert read(text) is None


@given(st.integers(0, 2**30))
def test_digits_and_value_are_inverse(number: int) -> None:
    assert value("RR" + digits(number)) == number
    assert digits(number)[:1] in ("", "B")


# ----------------------------------------------------------------------------------------- solutions and judges


def does(program: Any, tape: str) -> bool | str:
    """What a program makes of a tape, in the terms of a rule: an output only where one was asked for."""
    trace = program.run(tape)
    return trace.tape if trace.accepted else False


@pytest.mark.parametrize(("family", "tier"), SPACES)
def test_solutions_pass_their_suites_and_trivial_programs_fail(family: str, tier: str) -> None:
    problems = both(family, tier)
    for each in problems[:: len(problems) // 25 + 1]:
        assert grade(fenced(solution(each)), each.cases).passed, each.statement
        for target in ("end", "NONE"):
            assert not grade(fenced(f"START start:\n    NEXT {target}\n\nEND end"), each.cases).passed, each.statement


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.family)
@given(data=st.data())
def test_solutions_do_what_is_demanded(kind: type[Rule], data: st.DataObject) -> None:
    """On any tape, and for parameters that no set holds."""
    stated = data.draw(st.sampled_from([each for each in every_rule() if type(each) is kind]))
    tape = data.draw(st.text(alphabet=stated.colours, max_size=14))
    made = does(parse(assemble(stated.machine())), tape)
    expected = stated.expected(tape)
    assert made == expected if isinstance(expected, str) else (made is not False) == expected


def test_subtraction_borrows_across_the_whole_tape() -> None:
    program = parse(solve(NumericalOperation("subtract", 3)))
    assert does(program, "B" + "R" * 12) == "B" * 10 + "RB"
    program = parse(solve(NumericalOperation("add", 1)))
    assert does(program, "B" * 12) == "B" + "R" * 12


@pytest.mark.parametrize(("family", "tier"), SPACES)
def test_strictly_a_solution_passes_and_that_of_another_problem_fails(family: str, tier: str) -> None:
    problems = [rule(each) for each in both(family, tier)]
    step = len(problems) // 4 + 1
    for stated, rival in zip(problems[::step], problems[1::step] or problems, strict=False):
        verdict = grade_strictly(fenced(solve(stated)), stated)
        assert verdict.passed, verdict.feedback
        assert verdict.cases_total >= len({t for round_ in rounds(stated.colours, stated.longest) for t in round_})
        tapes = [tape for round_ in rounds("RB", 12) for tape in round_] + list(stated.probes())
        differs = any(rival.expected(tape) != stated.expected(tape) for tape in tapes)
        verdict = grade_strictly(fenced(solve(rival)), stated)
        assert verdict.passed <= (not differs)
        assert verdict.passed or verdict.feedback


def test_strict_finds_what_a_suite_misses() -> None:
    """Solutions of another threshold, prefix or pattern that pass a whole suite and are wrong all the same."""
    n_missed: dict[str, int] = defaultdict(int)
    for family, tier in (("regex_pattern", "easy"), ("numerical_comparison", "hard"), ("ends_with", "easy")):
        problems = [(each, rule(each)) for each in both(family, tier)][:80]
        for one, stated in problems:
            for _, rival in problems:
                if rival == stated or any(rival.expected(r["input"]) != r["expected_accepted"] for r in one.cases):
                    continue
                tapes = rounds(stated.colours)[0]
                if any(rival.expected(tape) != stated.expected(tape) for tape in tapes):
                    answer = fenced(solve(rival))
                    assert grade(answer, one.cases).passed
                    assert not grade_strictly(answer, stated).passed
                    n_missed[family] += 1
    assert n_missed["regex_pattern"] > 5


def test_strict_looks_at_the_output() -> None:
    stated = PrependSequence("RB", "BB", "R")
    accepts_all = grade_strictly(fenced("START start:\n    NEXT end\n\nEND end"), stated)
    assert not accepts_all.passed
    assert "with output RB" in accepts_all.feedback
    once = assemble(stated.machine()).replace("PAINTER_BLUE", "PAINTER_RED")
    assert not grade_strictly(fenced(once), stated).passed


def test_strict_needs_no_more_visits_than_there_are() -> None:
    """The slowest solution, one pass for every digit of a carry, stays far below the limit on every strict tape."""
    stated = NumericalOperation("subtract", 1)
    program = parse(solve(stated))
    visits = [program.run(tape).visits for round_ in rounds(stated.colours, stated.longest) for tape in round_]
    assert max(visits) < 500


def test_blocks_are_counted_whatever_else_is_on_the_tape() -> None:
    """The marker of the solution may occur in the input."""
    program = parse(solve(RegexSameNumber("RB", "n", "n")))
    assert all(not program.accepts(tape) for tape in ("Y", "YY", "RBY", "YRB", "RBYRB", "RRBBYRB", "RBG", "RBYG"))
    blocks = ["".join(g) for _, g in groupby("RRRBBB")]
    assert program.accepts("".join(blocks))


# ------------------------------------------------------------------------------------------------------- the task


@pytest.mark.parametrize("evaluator", ["suite", "strict"])
@pytest.mark.parametrize("family", ["basic_mix", "bit_op", "symm", "not_contains"])
def test_the_task(family: str, evaluator: str) -> None:
    task = envs.load("manufactoria", family=family, evaluator=evaluator)
    for each in task.problems("test")[:3]:
        assert task.verify(each, fenced(solution(each))).passed
        wrong = task.verify(each, fenced("START start:\n    NEXT NONE\n\nEND end"))
        assert not wrong.passed
        assert wrong.feedback
        (message,) = task.prompt(each)
        assert message["content"].endswith(each.statement)
        assert ("with the tape that the task asks for" in message["content"]) == rule(each).checks_output


def test_all_is_every_published_set() -> None:
    task = Manufactoria(family="all")
    assert len(task.problems("train")) == 742 + sum(train for train, _ in SIZES.values())
    assert len(task.problems("test")) == 132 + sum(test for _, test in SIZES.values())


@needs_data
def test_a_file_is_filtered_by_set_and_judged_strictly() -> None:
    task = Manufactoria(str(PUBLIC), family="basic_mix", evaluator="strict")
    problems = task.problems("test")
    assert {each.family for each in problems} == {"starts_with", "exact_sequence", "append_sequence"}
    assert task.verify(problems[0], fenced(solution(problems[0]))).passed
    assert len(Manufactoria(str(PUBLIC), family="all", evaluator="strict").problems("test")) > 600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "sorted"}, "write one of has, all, contains_count.*, basic_mix, .*, regex_same_num, not_contains"),
        ({"family": "compr", "difficulty": "tiny"}, "write one of basic, easy, medium, hard"),
        ({"family": "has", "difficulty": "easy"}, "difficulty=easy needs source=generated and one of family=basic_mix"),
        ({"family": "ends", "difficulty": "hard"}, "family=ends has no problems of difficulty=hard: write easy"),
        ({"family": "symm"}, "family=symm is made for testing: to train, write family=regex_same_num"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.load("manufactoria", **options).problems("train")


@pytest.mark.parametrize("family", ["basic_mix", "numerical_operations"])
def test_a_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, family: str) -> None:
    train_on(tiny_model, tmp_path, f"task.options.family={family}")


@pytest.mark.slow
@pytest.mark.parametrize("family", [*(name for name, set_ in SETS.items() if set_.n_train), "regex_same_num", "all"])
def test_a_run_of_nano(mesh: DeviceMesh, tmp_path: Path, family: str) -> None:
    options = (f"task.options.family={family}", "task.options.evaluator=strict")
    train_on(ROOT / "resd/model/nano", tmp_path, *options, limits=("rollout.max_response=64",))
