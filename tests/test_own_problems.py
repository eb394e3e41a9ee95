"""Pairs that are mined at problems which the model itself proposes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import Line, World, model_settings, prompt
from test_config import load
from test_self_mined_pairs import learned
from test_self_play import Inventing

from resd.guard import Guard
from resd.model.chat import Chat
from resd.types import UserError


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


Make = Callable[..., World]


@pytest.fixture
def mine(chat: Chat, tmp_path: Path) -> Make:
    def make(script: dict[str, Line], **changes: Any) -> World:
        lines = {name: list(line) if isinstance(line, list) else line for name, line in script.items()}
        other = {"task": Inventing(), "problems": "own", "group": 2, "mine": 3, "least": 1, **changes}
        return World(tmp_path, chat, "self_mined_pairs", lines, **other)

    return make


# In the first update both of eve's attempts fail, and one of bob's; the last word of a repair's prompt is "answer".
SCRIPT: dict[str, Line] = {
    "propose": ["ask eve", "ask bob", "ask bob", "ask ada", "ask tom", "hello"],
    "eve": ["wrong", "bad"],
    "bob": ["wrong", "right so"],
    "ada": ["right", "right too"],
    "answer": "right at last",
}


def test_proposals_are_tried_and_repaired_like_problems_of_the_task(mine: Make, chat: Chat) -> None:
    made = mine(SCRIPT, mine=1)
    attempts = made.update("one", "two")
    repair = prompt("eve", previous="wrong", feedback="1-proposal-0-0 is not wrong")
    assert made.asked("try") == ["level 0 propose"] * 2 + ["solve eve"] * 2 + ["solve bob"] * 2 + [repair]
    assert [attempt.proposes for attempt in attempts] == [True] * 2 + [False] * 5
    assert made.metrics["train/per_task"] == 0.25  # a proposal is no attempt
    assert (made.metrics["pairs/size"], made.metrics["pairs/mixed"]) == (3, 0.5)
    assert made.update("one", "two") == []
    assert made.engine.asked == []
    assert {response for _, response in learned(made, chat)} == {"right at last", "right so"}
    assert repair in {read for read, _ in learned(made, chat)}


def test_what_was_proposed_before_or_cannot_be_tried_is_left_out(mine: Make) -> None:
    made = mine(SCRIPT)
    made.update("one", "two")
    made.update("one", "two")
    assert made.asked("try")[2:] == ["solve ada"] * 2
    assert made.metrics["propose/duplicate"] == 1
    made.update("one", "two")
    assert made.asked("try")[2:] == []
    assert (made.metrics["propose/held_out"], made.metrics["propose/invalid"]) == (1, 1)
    assert "train/per_task" not in made.metrics


def test_the_next_ones_are_as_hard_as_what_passes_allows(mine: Make) -> None:
    script = {**SCRIPT, "propose": ["ask eve", "ask ada", "ask bob", "hello"]}
    made = mine(script, mine=9)
    asked, levels = [], []
    for _ in range(5):
        made.update("one")
        asked.append(made.asked("try")[0])
        levels.append(made.metrics.get("difficulty/level"))
    # eve 0 of 2, ada 2 of 2, bob 1 of 2, and then nothing that could be tried
    assert asked == [f"level {level} propose" for level in (0, 0, 1, 1, 1)]
    assert levels == [0, 0, 1, None, None]
    easier = mine(script, mine=9, band=[0.6, 1.0])
    for _ in range(4):
        easier.update("one")
    assert easier.asked("try")[0] == "level 0 propose"


def test_problems_and_level_are_part_of_a_checkpoint(mine: Make, chat: Chat) -> None:
    script = {**SCRIPT, "propose": ["ask ada", "ask bob", "ask ada"]}
    made = mine(script, mine=3)
    made.update("one")
    made.update("one")
    state = json.loads(json.dumps(made.algorithm.state()))
    again = mine({**script, "propose": ["ask ada"]}, mine=3)
    again.algorithm.restore(state)
    again.run.journal.step = 2
    for world in (made, again):
        world.update("one")
        assert world.asked("try") == ["level 1 propose"]
        assert world.metrics["propose/duplicate"] == 1
        world.update("one")
    assert learned(made, chat) == learned(again, chat) != []


def test_pairs_of_the_task_s_problems_ask_for_no_proposal(mine: Make) -> None:
    made = mine(SCRIPT, problems="task")
    made.update("bob")
    assert made.asked("try") == ["solve bob"] * 2
    assert not [name for name in made.metrics if name.startswith(("propose/", "difficulty/"))]


def test_who_proposes_nothing_is_sent_to_the_task_s_problems(mine: Make) -> None:
    made = mine({"propose": "hello"})
    guard, told = Guard(made.run.journal, "stop"), ""
    for step in (1, 2):
        made.run.journal.step = step
        told = guard.check(made.algorithm.update(made.task.problems("train")))
    assert told.startswith("2 updates had no usable proposal, the last is 2")
    assert "or mine the task's own: algorithm.problems=task" in told


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (["algorithm.pairs=external"], "have no solutions: leave algorithm.pairs=external out"),
        (["algorithm.band=[0.7,0.3]"], r"band=\[0.7, 0.3\] is upside down"),
        (["algorithm.band=[0.7]"], "algorithm.band"),
        (["algorithm.problems=mine"], "algorithm.problems"),
    ],
)
def test_what_cannot_be_is_refused(override: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load("algorithm=self_mined_pairs", "algorithm.problems=own", *override)


def test_a_task_that_asks_for_no_proposals_has_problems_of_its_own_alone() -> None:
    settings = load("algorithm=self_mined_pairs", "algorithm.problems=own").algorithm
    with pytest.raises(UserError, match=r"problems=own tries problems that the model proposes, and object"):
        settings.check_task(object())  # type: ignore[arg-type]
    load("algorithm=self_mined_pairs").algorithm.check_task(object())  # type: ignore[arg-type]
