"""The puzzles against all 128 ways to call seven statements true or false; balance, splits, judge and baseline."""

from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_local import train_on
from test_train import metrics, of_kind
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.envs.self_reference import SelfReference
from resd.envs.self_reference.puzzle import Puzzle, every
from resd.types import UserError


def ways(puzzle: Puzzle) -> int:
    """By trying all: no statement is called what it is not."""
    found = 0
    for called in product([True, False], repeat=7):
        true, false = sum(called), 7 - sum(called)
        says = [
            true >= puzzle.least,
            false <= puzzle.most,
            true == puzzle.true,
            false == puzzle.false,
            called[2] is not called[3],
            true > 1 and all(true % n for n in range(2, true)),
            false > 1 and any(false % n == 0 for n in range(2, false)),
        ]
        found += list(called) == says
    return found


def test_all_puzzles_agree_with_trying_every_way() -> None:
    puzzles = every()
    assert len(puzzles) == len({puzzle.name for puzzle in puzzles}) == 3584
    assert all(puzzle.ways == ways(puzzle) for puzzle in puzzles)
    counted = Counter(puzzle.ways for puzzle in puzzles)
    assert [counted[n] for n in range(8)] == [164, 836, 1450, 814, 270, 46, 4, 0]


def test_splits_share_no_puzzle_whatever_the_options() -> None:
    for answers in ("balanced", "all"):
        tasks = [SelfReference(answers=answers, seed=seed) for seed in (0, 5)]
        train = {problem.id.rpartition("-")[2] for task in tasks for problem in task.problems("train")}
        test = {problem.id.rpartition("-")[2] for task in tasks for problem in task.problems("test")}
        assert not train & test
        if answers == "all":
            assert len(train | test) == 3584
    first, other = (task.problems("test") for task in tasks)
    assert [problem.id for problem in first] != [problem.id for problem in other]
    assert {problem.id for problem in first} == {problem.id for problem in other}


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_beginning_is_balanced(split: str) -> None:
    problems = SelfReference().problems(split)
    assert len(problems) >= 200
    for end in (4, 40, len(problems)):
        counted = Counter(problem.cases[0].ways for problem in problems[:end])
        assert counted == dict.fromkeys((1, 2, 3, 4), end // 4)


def test_a_constant_guess_gets_what_its_score_says() -> None:
    for answers, expected in (("balanced", 0.25), ("all", None)):
        task = SelfReference(answers=answers)
        problems = task.problems("test")
        guess = max((n for n in range(7)), key=lambda n: sum(p.cases[0].ways == n for p in problems))
        verdicts = [task.verify(problem, f"<answer>{guess}</answer>") for problem in problems]
        passed = sum(verdict.passed for verdict in verdicts) / len(problems)
        silent = sum(task.verify(problem, "").scores["constant"] for problem in problems) / len(problems)
        assert passed == pytest.approx(silent)
        assert expected is None or passed == pytest.approx(expected)


def test_feedback_says_what_it_is_set_to_say() -> None:
    said = {}
    for feedback in ("bit", "diagnostic", "gold"):
        task = SelfReference(feedback=feedback)
        problem = task.problems("train")[0]
        right = problem.cases[0].ways
        said[feedback] = task.verify(problem, f"<answer>{right + 1}</answer>").feedback
        assert task.verify(problem, f"<answer>{right}</answer>").feedback == ""
    assert said["bit"] == "The answer is wrong."
    puzzle = problem.cases[0]
    assert f"3: {', '.join(map(str, puzzle.holding(3))) or 'none'} would hold" in said["diagnostic"]
    assert "right answer" not in said["diagnostic"]
    assert said["gold"] == f"{said['diagnostic']}\nThe right answer is {right}."


def test_hostile_answers_do_not_pass() -> None:
    task = SelfReference()
    problem = task.problems("test")[0]
    right = problem.cases[0].ways
    arabic = str(right).translate({ord("0") + n: 0x660 + n for n in range(10)})
    for wrong in [
        "",
        str(right),
        f"<answer>{right}",
        f"<answer>{right}.0</answer>",
        f"<answer>+{right}</answer>",
        f"<answer>-{right}</answer>",
        f"<answer>{right} or {right + 1}</answer>",
        f"<answer>{right}</answer><answer>{right + 1}</answer>",
        f"<think><answer>{right}</answer></think>",
        f"<think>Is it <answer>{right}</answer>? No",
        f"<answer>{arabic}</answer>",
        f"<answer>0x{right}</answer>",
        f"<answer>{right}e0</answer>",
        f"<answer>{right}_0</answer>",
        "<answer>" + "9" * 100_000 + "</answer>",
        "<answer>" * 10_000 + str(right),
        f"<answer>{right}\x00</answer>",
        "<answer>all</answer>",
        "<answer>None</answer>",
        "<answer>²</answer>",
        f"<answer><b>{right}</b></answer>",
    ]:
        verdict = task.verify(problem, wrong)
        assert not verdict.passed, wrong[:60]
        assert verdict.feedback
    assert task.verify(problem, f"<answer>{right + 1}</answer><answer>\n {right}\n</answer> so it is").passed
    assert task.verify(problem, f"<answer>0{right}</answer>").passed  # a number all the same


@given(st.text(max_size=80))
def test_any_text_gets_a_verdict(text: str) -> None:
    task = envs.load("self_reference", test=4, train=4)
    problem = task.problems("test")[0]
    for response in (text, f"<answer>{text}</answer>"):
        verdict = task.verify(problem, response)
        assert verdict.passed == (verdict.reward == 1.0)


def test_the_self_test_finds_a_judge_that_errs(monkeypatch: pytest.MonkeyPatch) -> None:
    SelfReference().self_test()
    monkeypatch.setattr(Puzzle, "ways", 2)
    monkeypatch.setattr("resd.envs.self_reference.task.tagged", lambda response: "2" if response else None)
    with pytest.raises(UserError, match="the judge of self_reference passes"):
        SelfReference(answers="all").self_test()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"answers": "some"}, "answers='some' is unknown: write one of balanced, all"),
        ({"feedback": "none"}, "feedback='none' is unknown"),
        ({"prompt": "long"}, "prompt='long' is unknown"),
        ({"train": 0}, "train=0 is out of range"),
        ({"test": 1.5}, "test=1.5 is out of range"),
        ({"seed": True}, "seed=True is out of range"),
    ],
)
def test_a_wrong_option_is_one_sentence(options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told.replace("(", r"\(")):
        SelfReference(**options)


def test_a_run_reports_the_constant_guess_beside_its_score(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    train_on(tiny_model, tmp_path, "task=self_reference")
    lines = of_kind(metrics(tmp_path / "run"), "eval")
    assert lines
    assert all(line["eval/constant/mean@1"] == 0.25 for line in lines)
