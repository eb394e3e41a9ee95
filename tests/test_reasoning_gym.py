"""Reasoning Gym: entries, their judges, disjoint splits, and options that do not exist."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from test_local import train_on
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.envs.reasoning_gym import HASH_DEPENDENT, ReasoningGym
from resd.task import Task
from resd.types import UserError

gym = pytest.importorskip("reasoning_gym")

SEVERAL = ["leg_counting", "spell_backward", "countdown", "mini_sudoku", "list_functions", "syllogism", "acre", "maze"]
# `composite` needs a list of others, `game_of_life_halting` passes anything, the hash-dependent ones are refused.
UNUSABLE = {"composite", "game_of_life_halting", *HASH_DEPENDENT}


def tagged(answer: str) -> str:
    return f"<think>Is it <answer>7</answer>?</think> It is <answer>{answer}</answer>."


def test_entries_are_asked_and_judged() -> None:
    task = pickle.loads(pickle.dumps(envs.load("reasoning_gym", datasets=SEVERAL, train=3, test=3)))
    assert isinstance(task, Task)
    problems = pickle.loads(pickle.dumps(task.problems("test")))
    assert {each.family for each in problems} == set(SEVERAL)
    for each in problems:
        (message,) = task.prompt(each)
        assert message["content"].startswith(each.statement)
        assert "<answer>" in message["content"]
        verdict = task.verify(each, tagged(each.cases[0]["answer"]))
        assert (verdict.reward, verdict.passed, verdict.feedback) == (1.0, True, ""), each
        wrong = task.verify(each, tagged("certainly not"))
        assert 0 <= wrong.reward < 1
        assert not wrong.passed
        assert "'certainly not' scores" in wrong.feedback
        assert str(each.cases[0]["answer"]) not in wrong.feedback
    assert task.verify(problems[0], "5").error == "no_answer"
    assert task.verify(problems[0], "<answer>5", truncated=True).error == "truncated"


def test_gold_feedback_tells_the_answer() -> None:
    task = ReasoningGym(["spell_backward", "graph_color"], train=1, test=1, feedback="gold")
    word, graph = task.problems("test")
    assert repr(word.cases[0]["answer"]) in task.verify(word, tagged("no")).feedback
    assert "right answer" not in task.verify(graph, tagged("no")).feedback  # this data set tells none


def test_splits_and_seeds_share_no_question() -> None:
    """Also where the data set has few questions: `coin_flip` repeats itself within a hundred entries."""
    for name in ("leg_counting", "coin_flip", "aiw"):
        train, test = (ReasoningGym(name, train=200, test=50).problems(split) for split in ("train", "test"))
        questions = [each.statement for each in train + test]
        assert len(set(questions)) == len(questions), name
        assert len({each.id for each in train + test}) == len(questions)
    assert [len(ReasoningGym("leg_counting", train=20, test=5).problems(split)) for split in ("train", "test")] == [
        20,
        5,
    ]
    one, other = (ReasoningGym("leg_counting", train=50, seed=seed).problems("train") for seed in (0, 1))
    assert not {each.statement for each in one} & {each.statement for each in other}


def test_entries_are_the_same_every_time() -> None:
    import random

    random.seed(1)
    one = ReasoningGym(SEVERAL, train=4, test=1).problems("train")
    state = random.getstate()
    assert ReasoningGym(SEVERAL, train=4, test=1).problems("train") == one
    assert random.getstate() == state


def test_settings_of_a_data_set() -> None:
    task = envs.load("reasoning_gym", datasets={"leg_counting": {"max_animals": 3}, "spell_backward": None}, test=20)
    entries = [each.cases[0] for each in task.problems("test") if each.family == "leg_counting"]
    assert {len(entry["metadata"]["animals"]) for entry in entries} == {3}


def test_the_judges_test_themselves() -> None:
    ReasoningGym(SEVERAL, train=1, test=1).self_test()
    with pytest.raises(UserError, match="the judge of game_of_life_halting passes"):
        ReasoningGym("game_of_life_halting", train=1, test=1).self_test()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"datasets": "leg_countin"},
            "'leg_countin' is none of the 1.* there are; write another, such as leg_counting",
        ),
        ({"datasets": []}, "datasets is empty: write at least one name"),
        ({"datasets": {"leg_counting": {"legs": 3}}}, "leg_counting does not take these settings: .*legs"),
        ({"datasets": {"leg_counting": {"min_animals": 9, "max_animals": 3}}}, "leg_counting does not take these"),
        ({"datasets": "composite"}, "composite does not take these settings: Must specify"),
        ({"train": 0}, "train=0 is out of range: write a number from 1"),
        ({"test": 10**7}, "test=10000000 is out of range"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"feedback": "all"}, "write one of score, gold"),
        ({"prompt": "long"}, "write one of full, compact"),
        ({"names": "x"}, "it takes datasets, train, test, seed"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.load("reasoning_gym", **options)


def test_a_data_set_that_changes_between_processes_wants_a_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    with pytest.raises(UserError, match="ransom_note asks something else in every process: set PYTHONHASHSEED=0"):
        ReasoningGym("ransom_note")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert ReasoningGym("ransom_note", train=1, test=1).problems("test")


def test_a_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    train_on(tiny_model, tmp_path, "task=reasoning_gym", "task.options.datasets=[spell_backward,leg_counting]")


@pytest.mark.slow
def test_every_data_set_can_be_a_task() -> None:
    from reasoning_gym.factory import DATASETS

    names = sorted(DATASETS.keys() - UNUSABLE)
    assert len(names) >= 100
    task = ReasoningGym(names, train=2, test=2)
    task.self_test()
    for split in ("train", "test"):
        problems = pickle.loads(pickle.dumps(task.problems(split)))
        assert {each.family for each in problems} == set(names)
        for each in problems:
            gold = each.cases[0]["answer"]
            assert gold is None or task.verify(each, f"<answer>{gold}</answer>").reward >= 0.99, each.family
