"""Small functions: references that do what their statements say, a judge that agrees with Python, hostile programs,
families that never change sides."""

import contextlib
import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import code_answers
import pytest
import yaml
from code_answers import Endless, mutant, program, right_calls
from test_local import train_on
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.envs.code import grade
from resd.envs.code.family import Bank, Family
from resd.envs.code.grade import MAX_CHARS, Case, extract, same
from resd.envs.code.task import BANK
from resd.task import SelfTesting, Task
from resd.types import Lost, Problem, UserError, Verdict
from resd.verify import Verifier

PATIENT = 60.0  # seconds for calls that do not hang
TASK = envs.load("code", seconds=PATIENT)
TRAIN, TEST = TASK.problems("train"), TASK.problems("test")
FAMILIES: list[Family] = [family for families in BANK.values() for family in families]

DOUBLED = Problem(
    "known",
    "def f(xs: list[int]) -> list[int]:\nReturn every number twice as large.",
    cases=[Case(([1, 2],), [2, 4], True), Case(([],), [], False), Case(([-3],), [-6], False)],
)


def checked(task: Task, problem: Problem, response: str, truncated: bool = False) -> Verdict:
    """A verdict, with what holds of every one."""
    said = task.verify(problem, response, truncated)
    assert said.cases_total == len(problem.cases)
    assert bool(said.feedback) != said.passed == (said.cases_passed == said.cases_total)
    assert set(said.scores) == {"examples", "hidden"}
    said.feedback.encode()
    assert len(said.feedback) < 2500
    assert said.answer is None or len(said.answer) <= MAX_CHARS
    return said


def fenced(text: str) -> str:
    return f"```python\n{text}\n```"


def verdict(text: str, problem: Problem = DOUBLED, **options: Any) -> Verdict:
    task = envs.load("code", seconds=PATIENT, **options) if options else TASK
    return checked(task, problem, fenced(text))


# ------------------------------------------------------------------------------------------------------ the oracle


def agreement(count: int, seed: int) -> Counter[str]:
    """Compares the judge with Python itself, call by call, on mutants; how many passed, failed and were left out."""
    source, seen = random.Random(seed), Counter[str]()
    problems = [*TEST, *TRAIN]
    while seen["passed"] + seen["failed"] < count:
        problem = source.choice(problems)
        text = mutant(problem, source)
        try:
            right = right_calls(text, problem)
        except Endless:
            seen["endless"] += 1
            continue
        said = checked(TASK, problem, fenced(text))
        assert said.cases_passed == sum(right), (text, right, said)
        assert said.passed == all(right)
        shown = sum(case.shown for case in problem.cases)
        assert said.scores == {
            "examples": sum(right[:shown]) / shown,
            "hidden": sum(right[shown:]) / len(right[shown:]),
        }
        seen["passed" if said.passed else "failed"] += 1
    return seen


def test_the_judge_agrees_with_python_on_mutants() -> None:
    seen = agreement(250, 0)
    assert min(seen["passed"], seen["failed"]) > 50, seen


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_the_judge_agrees_with_python_on_many_mutants(part: int) -> None:
    """10,000 in all."""
    seen = agreement(500, 1 + part)
    assert min(seen["passed"], seen["failed"]) > 100, seen
    print(dict(seen))


def test_one_value_is_the_same_as_itself_alone() -> None:
    """Among values that Python finds equal, or nearly."""
    values = [0, False, 0.0, "", [], None, 1, True, 1.0, "1", [1], [True], [1.0], [[1]], ["1"], [1, 1], 10**20, 1e20]
    for i, value in enumerate(values):
        for j, expected in enumerate(values):
            wanted = i == j or (type(expected) is float and type(value) is int and value == expected)
            wanted = wanted or (
                expected == [1.0] and value == [1] and type(expected[0]) is float and value[0] is not True
            )
            assert same(value, expected) == wanted, (value, expected)
    assert same(0.1 + 0.2, 0.3)
    assert not same(0.30001, 0.3)
    assert same([1, [2.0]], (1, (2.0,)))


# ---------------------------------------------------------------------------------------------------------- the bank


def test_the_bank_is_as_large_as_is_said() -> None:
    assert len(FAMILIES) >= 110
    assert (len(TRAIN), len(TEST)) == (125, 87)
    assert len(envs.load("code", held_out="validation").problems("test")) >= 20
    for problems in (TRAIN, TEST):
        assert {p.family for p in problems} == set(BANK)
        assert len({p.id for p in problems}) == len(problems)


def test_no_family_is_in_two_parts_and_none_has_a_twin() -> None:
    """Also by what functions do: no two of different parts agree on many arguments."""
    names = {family.functions[0].name for family in FAMILIES}
    assert len(names) == len(FAMILIES)
    assert {family.kin for family in FAMILIES} <= names
    found: dict[Any, str] = {}
    for family in FAMILIES:
        for function in family.functions:
            source = random.Random(5)
            drawn = [tuple(kind.draw(source) for kind in function.kinds.values()) for _ in range(40)]
            does = tuple(repr((each, function(*each))) for each in drawn)
            assert found.setdefault(does, family.part) == family.part, function.label
    assert len(found) > 225


def test_statements_are_filled_in_and_references_stand_alone() -> None:
    for family in FAMILIES:
        statements = {function.statement for function in family.functions}
        assert len(statements) == len(family.functions)
        for function in family.functions:
            assert not {"{", "}"} & set(function.statement)
            scope: dict[str, Any] = {}
            exec(function.source, scope)
            for drawn in function.tests(13, 3, random.Random(1)):
                before = repr(drawn)
                expected = function(*drawn)
                assert repr(drawn) == before
                assert scope[function.name](*drawn) == expected


def test_hidden_calls_hold_edges_and_no_constant_is_right() -> None:
    for problem in [*TRAIN, *TEST]:
        cases = problem.cases
        assert [case.shown for case in cases] == [True] * 3 + [False] * 10, problem.id
        assert len({repr(case.arguments) for case in cases}) == 13
        values = Counter(repr(case.expected) for case in cases)
        assert values.most_common(1)[0][1] <= 11, (problem.id, values)
        if isinstance(cases[0].arguments[0], (list, str)):
            assert any(not case.arguments[0] for case in cases if not case.shown), problem.id


def test_answers_that_know_the_examples_fail() -> None:
    for problem in TEST[::6]:
        name = problem.statement.partition("(")[0].removeprefix("def ")
        known = {repr(case.arguments): case.expected for case in problem.cases if case.shown}
        said = checked(TASK, problem, fenced(f"def {name}(*given): return {known}.get(repr(given))"))
        assert not said.passed
        assert said.scores["examples"] == 1
        assert said.scores["hidden"] < 1


def test_our_own_answers_pass() -> None:
    for problem in TEST[::3]:
        assert checked(TASK, problem, f"Well.\n{problem.privileged}\nThat is it.").passed


def test_kin_goes_along() -> None:
    family = Bank()

    @family("distinct", k=(1, 2))
    def anything(xs: list[int], *, k: int) -> int:
        """{k}"""
        return k

    (other,) = [each for each in FAMILIES if each.functions[0].name == "distinct"]
    assert family[0].part == other.part
    assert [function([]) for function in family[0].functions] == [1, 2]


def test_references_may_change_what_they_get() -> None:
    family = Bank()

    @family()
    def emptied(xs: list[int]) -> list[int]:
        xs.clear()
        return xs

    given = [1, 2]
    assert (family[0].functions[0](given), given) == ([], [1, 2])


# ------------------------------------------------------------------------------------------------------- extraction


RIGHT = "def f(xs):\n    return [2 * x for x in xs]"


@pytest.mark.parametrize(
    "response",
    [
        fenced(RIGHT),
        f"```\n{RIGHT}\n```",
        f"```py\n{RIGHT}\n```  \nDone.",
        f"First:\n{fenced('def f(xs): return 1')}\nBetter:\n{fenced(RIGHT)}",
        f"<think>{fenced('def f(xs): return 1')}</think>{fenced(RIGHT)}",
        fenced(
            "def helper(x):\n    return 2 * x\n\n\ndef f(xs):\n    return [*map(helper, xs)]\n\n\ndef g():\n    pass"
        ),
        fenced(f"class Doubler:\n    def double(self, x):\n        return 2 * x\n\n{RIGHT}\n\nprint(f([1]))"),
        f"```python\ndef f(xs):\n    return 1\n\nI forgot the end.\n{fenced(RIGHT)}",
        fenced("f = lambda xs: tuple(x + x for x in xs)"),
        fenced(f"import math\nfrom itertools import *\n{RIGHT}"),
        fenced("def f(xs):\n    for i in range(len(xs)):\n        xs[i] *= 2\n    return xs"),
    ],
)
def test_the_last_block_is_run_whole(response: str) -> None:
    assert checked(TASK, DOUBLED, response).passed, extract(response)


@pytest.mark.parametrize(
    "response",
    [
        "",
        RIGHT,
        "```python\n" + RIGHT,
        f"<think>{fenced(RIGHT)}",
        "```\n```",
        "```" * 100_000,
        "```\n" * 99_999,
        "\ud800",
    ],
)
def test_what_has_no_block_has_a_verdict(response: str) -> None:
    said = checked(TASK, DOUBLED, response)
    assert (said.error, said.cases_passed) == ("no_answer", 0)
    assert said.feedback == "No program was found: put it between a line ```python and a line ```."
    cut = checked(TASK, DOUBLED, response, truncated=True)
    assert (cut.error, cut.feedback) == ("truncated", "The response was cut off at its maximum length; be briefer.")


# --------------------------------------------------------------------------------------------------------- feedback


@pytest.mark.parametrize(
    ("text", "cases", "feedback", "told"),
    [
        (
            "def f(xs): return xs",
            1,
            "1 of 3 calls are right. f([1, 2]) returned [1, 2], which is wrong.",
            " [2, 4] is right.",
        ),
        ("def f(xs): return [2, 4]", 1, "1 of 3 calls are right. f([]) returned [2, 4], which is wrong.", ""),
        (
            "def f(xs):\n    return xs[0] / 0",
            0,
            "f([1, 2]) raised an exception:\nZeroDivisionError: division by zero\nline 2, in f: return xs[0] / 0",
            "\n[2, 4] is right.",
        ),
        ("def f(xs): return [2 * x for x in xs] if xs[0] else 1", 2, "f([]) raised an exception:\nIndexError", ""),
        ("def f(xs): return {1}", 0, "f([1, 2]) returned something that is no answer:\na value of type set", "right"),
        ("def f(xs) return 1", 0, "The program cannot be read:\nSyntaxError: ", ""),
        ("def g(xs): return 1", 0, "NameError: name 'f' is not defined", "right"),
        ("def f(): return 1", 0, "TypeError: f() takes 0 positional arguments but 1 was given", "right"),
        ("def f(xs): return [2.0 * x for x in xs]", 1, "f([1, 2]) returned [2.0, 4.0], which is wrong.", "right"),
        ("import os\ndef f(xs): os._exit(3)", 0, "f([1, 2]) ended the process:\n", "right"),
    ],
)
def test_feedback_has_three_levels(text: str, cases: int, feedback: str, told: str) -> None:
    said = verdict(text)
    assert feedback in said.feedback
    assert said.feedback.endswith(told) or told in said.feedback
    error = verdict(text, feedback="error")
    assert feedback in error.feedback
    assert "is right." not in error.feedback
    bit = verdict(text, feedback="bit")
    assert bit.feedback == "The program is wrong."
    for each in (said, error, bit):
        assert (each.reward, each.cases_passed, each.error) == (0, cases, said.error)
    assert verdict(text, reward="dense").reward == cases / 3


def test_what_hidden_calls_should_give_is_never_told() -> None:
    hidden = Problem("p", DOUBLED.statement, cases=[Case(([k],), [k + 7_000_000], k == 0) for k in range(4)])
    for feedback in ("diagnostic", "error", "bit"):
        for text in ("def f(xs): return [xs[0] + 7000000] if not xs[0] else 0", "def f(xs): return 1 / xs[0]"):
            said = verdict(text, hidden, feedback=feedback)
            assert not {"7000001", "7000002", "7000003"} & set(
                said.feedback.replace("[", " ").replace("]", " ").split()
            )


# ---------------------------------------------------------------------------------------------------------- hostile


@pytest.fixture(scope="module")
def judged() -> dict[str, Verdict | Lost]:
    """Every hostile program, judged by a worker with the deadline that runs have."""
    task, responses = envs.load("code", seconds=0.3), dict(code_answers.hostile(TEST[0]))
    with contextlib.closing(Verifier(task, 1, PATIENT)) as verifier:
        verdicts = dict(verifier.verify([(TEST[0], response, False) for response in responses.values()]))
        after = dict(verifier.verify([(TEST[0], TEST[0].privileged, False)] * 3))
    assert any(isinstance(said, Verdict) and said.passed for said in after.values())
    return {name: verdicts[number] for number, name in enumerate(responses)}


@pytest.mark.parametrize("name", code_answers.HOSTILE)
def test_hostile_programs_get_their_verdict(judged: dict[str, Verdict | Lost], name: str) -> None:
    said = judged[name]
    assert isinstance(said, Verdict), said
    assert not said.passed
    assert said.reward == 0
    assert len(said.feedback) < 2500


def test_arguments_that_are_changed_change_no_other_call() -> None:
    seen = "seen = []\ndef f(xs):\n    seen.append(len(xs))\n    xs.clear()\n    return [len(seen)]"
    said = verdict(seen, Problem("p", DOUBLED.statement, cases=[Case(([1],), [k], k == 1) for k in (1, 2, 3)]))
    assert said.passed  # calls share a process
    kept = "def f(xs, kept=[]):\n    kept += xs\n    return [2 * x for x in kept]"
    assert not verdict(kept).passed


def test_expected_values_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    call = grade.sandbox.call
    monkeypatch.setattr(
        grade.sandbox, "call", lambda *given, **options: sent.append((given, options)) or call(*given, **options)
    )
    assert verdict(RIGHT).passed
    ((given, options),) = sent
    assert given == (RIGHT, "f", [([1, 2],), ([],), ([-3],)], PATIENT)
    assert options == {"allow_unsafe": False, "spread": True, "texts": True}


# ------------------------------------------------------------------------------------------------------------- task


def test_a_seed_draws_arguments_and_no_seed_moves_a_function() -> None:
    random.seed(3)
    again, other = envs.load("code").problems("test"), envs.load("code", seed=1).problems("test")
    assert again == TEST
    assert [p.statement for p in other] == [p.statement for p in TEST]
    assert sum(a.cases != b.cases for a, b in zip(other, TEST, strict=True)) == len(TEST)


def test_prompts_show_the_examples() -> None:
    (asked,) = TASK.prompt(DOUBLED)
    assert (
        "Return every number twice as large.\n\nSome calls, and what they return:\nf([1, 2]) == [2, 4]\n\n"
        in asked["content"]
    )
    assert "```python\ndef f(xs: list[int]) -> list[int]:\n    ...\n```" in asked["content"]
    assert "f([])" not in asked["content"]
    (brief,) = envs.load("code", prompt="compact").prompt(DOUBLED)
    assert len(brief["content"]) < len(asked["content"]) / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"about": "trees"}, "about='trees' is unknown: write one of all, lists, integers, strings"),
        ({"examples": 0}, "examples=0 is out of range: write a whole number from 1 to 5"),
        ({"hidden": 100}, "hidden=100 is out of range"),
        ({"held_out": "dev"}, "write one of test, validation"),
        ({"seconds": 0}, "seconds=0 is no time for a call"),
        ({"seconds": "x"}, "seconds='x' is no time"),
        ({"feedback": "gold"}, "write one of diagnostic, error, bit"),
        ({"reward": "half"}, "write one of sparse, dense"),
        ({"prompt": "long"}, "write one of full, compact"),
        ({"tests": 4}, "it takes about, examples"),
    ],
)
def test_wrong_options_are_answered_with_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.load("code", **options)


def test_it_is_a_task_that_travels() -> None:
    task, problem = pickle.loads(pickle.dumps((TASK, TEST[0])))
    assert isinstance(task, Task)
    assert isinstance(task, SelfTesting)
    assert task.verify(problem, fenced(program(problem))).passed
    written = yaml.safe_load((Path(__file__).parent.parent / "conf/task/code.yaml").read_text())
    assert envs.load(written["name"], **{**written["options"], "prompt": "compact"}).problems("test") == TEST


def test_a_broken_judge_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "held by" in TASK.self_test()
    monkeypatch.setattr(grade, "same", lambda *_: False)
    with pytest.raises(UserError, match="a program that is ours fails"):
        TASK.self_test()
    monkeypatch.setattr(grade, "same", lambda *_: True)
    with pytest.raises(UserError, match="a program that gives nothing passes"):
        TASK.self_test()


def test_a_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    train_on(tiny_model, tmp_path, "task=code", "on_empty=warn")
