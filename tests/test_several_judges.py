"""Several judges of the local task: their weighted mean, what passes, what is kept and said of each."""

import pickle
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd import envs
from resd.envs.judges import Judges, _function
from resd.task import OWN_SCORES, Task, share
from resd.types import UserError, Verdict
from resd.verdict import checked

HERE = "test_several_judges"


def exact(row: dict[str, Any], response: str) -> bool:
    return response == row["answer"]


def close(row: dict[str, Any], response: str) -> tuple[float, str]:
    share = sum(a == b for a, b in zip(response, row["answer"], strict=False)) / max(len(response), len(row["answer"]))
    return share, f"{share:.0%} of the letters are right."


def short(row: dict[str, Any], response: str) -> Verdict:
    right = len(response) <= 4
    return Verdict(0.5 + right / 2, right, 1 + right, 2, "" if right else "too long", None, "long", {"letters": 0.25})


def says(row: dict[str, Any], response: str) -> Any:
    return row["says"]


def says_too(row: dict[str, Any], response: str) -> Any:
    return row["says_too"]


def of_a_file(tmp_path: Path, verifier: Any, **options: Any) -> Task:
    (tmp_path / "rows.jsonl").write_text('{"split": "train", "prompt": "Say one.", "answer": "one"}\n')
    return envs.load("local", source=str(tmp_path / "rows.jsonl"), verifier=verifier, **options)


THREE = {
    "exact": {"function": f"{HERE}:exact", "weight": 2},
    "close": f"{HERE}:close",
    "short": {"function": f"{HERE}:short", "weight": 0.5},
}


def test_the_reward_is_the_weighted_mean_and_each_is_kept(tmp_path: Path) -> None:
    task = pickle.loads(pickle.dumps(of_a_file(tmp_path, THREE)))
    (problem,) = task.problems("train")
    assert len(problem.cases) == 3
    said = task.verify(problem, "onnnn")
    assert said == checked(said)
    assert said.reward == pytest.approx((2 * 0 + 0.4 + 0.5 * 0.5) / 3.5)
    assert (said.passed, said.cases_passed, said.cases_total, said.error) == (False, 0, 3, "long")
    assert said.scores == {"reward/exact": 0.0, "reward/close": 0.4, "reward/short": 0.5, "short/letters": 0.25}
    assert said.feedback == "exact: 0.00 of 1\nclose: 40% of the letters are right.\nshort: too long"
    said = task.verify(problem, "on")
    assert (said.cases_passed, said.feedback) == (1, "exact: 0.00 of 1\nclose: 67% of the letters are right.")
    said = task.verify(problem, "one")
    assert (said.reward, said.passed, said.cases_passed, said.feedback) == (1.0, True, 3, "")


def test_a_list_names_judges_by_their_functions(tmp_path: Path) -> None:
    task = of_a_file(tmp_path, [f"{HERE}:exact", f"{HERE}:close"])
    said = task.verify(task.problems("train")[0], "on")
    assert said.scores == {"reward/exact": 0.0, "reward/close": pytest.approx(2 / 3)}
    assert said.reward == pytest.approx(1 / 3)


def test_a_judge_without_weight_is_kept_and_counts_for_nothing() -> None:
    judges = Judges({"exact": f"{HERE}:exact", "close": {"function": f"{HERE}:close", "weight": 0}}, None)
    said = judges({"answer": "ab"}, "ab", "answer")
    assert (said.passed, said.cases_total, judges.cases) == (True, 1, 1)
    said = judges({"answer": "ab"}, "ax", "answer")
    assert (said.reward, said.cases_total, said.feedback) == (0.0, 1, "exact: 0.00 of 1")
    assert said.scores == {"reward/exact": 0.0, "reward/close": 0.5}


@pytest.mark.parametrize(
    ("says", "passes", "passed"),
    [
        (0.79, 0.8, False),
        (0.8, 0.8, True),
        (1, 0.8, True),
        (0.1 + 0.2, 0.3, True),
        (0.3, 0.1 + 0.2, True),
        (1, 1, True),
    ],
)
def test_a_threshold_passes(says: float, passes: float, passed: bool) -> None:
    said = Judges(f"{HERE}:says", passes)({"says": (says, "nearly")}, "x", "answer")
    assert (said.passed, said.cases_passed, said.cases_total) == (passed, int(passed), 1)
    assert (said.reward, said.feedback) == (says, "" if passed else "nearly")
    several = Judges({"a": f"{HERE}:says", "b": f"{HERE}:says_too"}, passes)
    said = several({"says": says, "says_too": (says, "too little")}, "x", "answer")
    assert (said.passed, said.cases_passed, said.cases_total, several.cases) == (passed, int(passed), 1, 1)
    assert said.feedback == ("" if passed else f"a: {says:.2f} of 1\nb: too little")


def test_there_is_nothing_to_say_of_what_passes() -> None:
    """A judge's own verdict may pass with less than full marks."""
    judges = Judges({"a": f"{HERE}:says", "b": f"{HERE}:says_too"}, None)
    said = judges({"says": Verdict(0.5, True, 1, 1, ""), "says_too": True}, "x", "answer")
    assert (said.reward, said.passed, said.feedback) == (0.75, True, "")


def test_a_threshold_decides_over_a_verdict() -> None:
    said = Judges(f"{HERE}:says", 0.5)({"says": Verdict(0.6, False, 3, 5, "two are wrong")}, "x", "answer")
    assert said == Verdict(0.6, True, 1, 1, "")
    said = Judges(f"{HERE}:says", 0.7)({"says": Verdict(0.6, True, 5, 5, "")}, "x", "answer")
    assert said == Verdict(0.6, False, 0, 1, "The answer is wrong.")


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1e3)), min_size=2, max_size=2))
def test_the_mean_is_that_of_exact_arithmetic(marks: list[tuple[float, float]]) -> None:
    (first, weight), (second, other) = marks
    told = {"a": {"function": f"{HERE}:says", "weight": weight}, "b": {"function": f"{HERE}:says_too", "weight": other}}
    said = Judges(told, None)({"says": first, "says_too": second}, "x", "answer")
    read = [share(first), share(second)]
    of = [Fraction(number) for number in (read[0] or 0.0, weight, read[1] or 0.0, other)]
    mean = share(float((of[0] * of[1] + of[2] * of[3]) / (of[1] + of[3])))
    assert said.reward == pytest.approx(mean)
    assert 0 <= said.reward <= 1
    assert said.passed == (read == [1, 1])


@pytest.mark.parametrize("full", [0.7 + 0.2 + 0.1, 0.4 + 0.2 + 0.3 + 0.1, sum([0.1] * 10), np.float32(0.99999994)])
def test_full_marks_are_full_however_they_were_added(full: float) -> None:
    assert full != 1
    two = {"a": f"{HERE}:says", "b": f"{HERE}:says_too"}
    for judges, verifier in ((two, None), (two, 1.0), (f"{HERE}:says", None), (f"{HERE}:says", 1.0)):
        said = Judges(judges, verifier)({"says": full, "says_too": full}, "x", "answer")
        assert (said.reward, said.passed, said.feedback) == (1.0, True, "")
    assert Judges(f"{HERE}:says", 0.7)({"says": np.float32(0.7)}, "x", "answer").passed
    assert not Judges(f"{HERE}:says", 0.7)({"says": 0.6999}, "x", "answer").passed
    assert checked(Verdict(full, True, 1, 1, "")).reward == 1.0
    assert checked(Verdict(-1e-12, False, 0, 1, "")).reward == 0.0


@pytest.mark.parametrize("name", OWN_SCORES)
def test_a_score_may_not_be_called_as_one_of_every_evaluation(name: str) -> None:
    with pytest.raises(UserError, match=f"a name in scores is '{name}', not another one than per_task"):
        checked(Verdict(0.0, False, 0, 1, "no", scores={name: 3.2}))


@pytest.mark.parametrize(
    "says", [None, 1.5, -0.1, float("nan"), "yes", Verdict(5.0, False, 0, 1), Verdict(float("nan"), False, 0, 1)]
)
def test_what_one_may_not_give_is_refused_by_its_name(says: Any) -> None:
    judges = Judges({"good": f"{HERE}:says_too", "bad": f"{HERE}:says"}, None)
    with pytest.raises(UserError, match=r"^verifier\.bad=test_several_judges:says gave .*: return True or False"):
        judges({"says": says, "says_too": 0.0}, "x", "answer")


ONE = f"{HERE}:exact"


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ({}, "names no judge: write package.module:function, a list of such, or {NAME: {function:"),
        ([], "names no judge"),
        (3, "verifier=3 names no judge"),
        (None, "names no judge"),
        ([ONE, 3], "names no judge"),
        ([ONE, ONE], "two judges of verifier are called 'exact': write {NAME: {function:"),
        ({"a": 3}, "verifier.a=3 names no judge"),
        ({"a": {"weight": 1}}, "verifier.a=.*names no judge"),
        ({"a": {"function": ONE, "wieght": 1}}, "verifier.a=.*names no judge"),
        ({"a b": ONE}, "'a b' is no name of a judge"),
        ({"a/b": ONE}, "'a/b' is no name of a judge"),
        ({1: ONE}, "1 is no name of a judge"),
        ({"a": {"function": ONE, "weight": -1}}, r"verifier\.a\.weight=-1 is no weight: write a number, 0 or above"),
        ({"a": {"function": ONE, "weight": float("nan")}}, "is no weight"),
        ({"a": {"function": ONE, "weight": float("inf")}}, "is no weight"),
        ({"a": {"function": ONE, "weight": "2"}}, "is no weight"),
        ({"a": {"function": ONE, "weight": True}}, "is no weight"),
        ({"a": {"function": ONE, "weight": 0}}, "weights of 0 alone"),
        ({"a": "nowhere:exact"}, r"verifier\.a='nowhere:exact' cannot be imported .*nowhere"),
        ({"a": f"{HERE}:of_nobody"}, r"verifier\.a=.*cannot be imported .*of_nobody"),
        ({"a": f"{HERE}:HERE"}, r"verifier\.a=.*must be a function of a row and a response"),
    ],
)
def test_wrong_judges(verifier: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Judges(verifier, None)


@pytest.mark.parametrize("passes", [0, -1, 1.5, float("nan"), "0.5", True])
def test_wrong_thresholds(passes: Any) -> None:
    with pytest.raises(UserError, match=r"passes=.* is no reward: write a number above 0, up to 1"):
        Judges(ONE, passes)


def test_a_process_that_begins_to_judge_imports_what_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first answer, whose deadline a slow import would eat up."""
    (tmp_path / "late_judge.py").write_text("def check(row, response):\n    return True\n")
    monkeypatch.syspath_prepend(tmp_path)
    sent = pickle.dumps(Judges({"late": "late_judge:check"}, None))
    del sys.modules["late_judge"]
    _function.cache_clear()
    judges = pickle.loads(sent)
    assert "late_judge" in sys.modules
    assert judges({}, "anything", "answer").passed
