"""What algorithms say that an update asks and trains, against what scripted ones do; and what a plan makes of it."""

from pathlib import Path
from typing import Any

import pytest
from scripted import Line, World, configured, model_settings
from test_config import load
from test_plan import config, shape
from test_training_free_grpo import SAYS, Untrained
from tiny import model as tiny_weights

from resd import algorithms
from resd.model.chat import Chat
from resd.plan import __main__ as script
from resd.plan import estimate, longest_row
from resd.settings import AlgorithmSettings

FAILS: dict[str, Line] = {
    **SAYS,
    **{"one": "wrong", "two": "bad", "answer": "wrong again", "reflect": "lesson: look twice"},
    "curate": "add: look twice",
}
PASSES: dict[str, Line] = {**FAILS, "one": "right one", "two": "right two", "tag": "none"}
WORST = [
    ("grpo", {"group": 3}),
    ("sdpo", {"group": 2}),
    ("resd", {"group": 2}),
    ("resd_swapped", {}),
    ("resd_fixed", {"entries": ["a", "b"]}),
    ("resd_verbatim", {}),
    ("reflect_retry_reward", {"group": 3}),
    ("reflect_retry_reward", {"group": 3, "plain_retry": True, "failures": 1, "successes": True}),
    ("self_mined_pairs", {"group": 2, "repairs": 2}),
    ("self_mined_pairs", {"group": 2, "repairs": 0}),
    ("training_free_grpo", {"group": 2, "groups": "all"}),
]


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


def made(folder: Path, chat: Chat, name: str, lines: dict[str, Line], changes: dict[str, Any]) -> World:
    kind, prompts = (Untrained, "small") if name == "training_free_grpo" else (World, "compact")
    return kind(folder, chat, name, lines, prompts=prompts, **changes)


def counted(settings: AlgorithmSettings, problems: int, *of: str) -> int:
    return sum(each.count for each in settings.asks(problems) if each.of in ("all", *of))


@pytest.mark.parametrize(("name", "changes"), WORST)
def test_where_all_fail_an_update_asks_what_was_said(
    tmp_path: Path, chat: Chat, name: str, changes: dict[str, Any]
) -> None:
    world = made(tmp_path, chat, name, FAILS, changes)
    world.update("one", "two")
    settings = world.algorithm.settings
    assert len(world.engine.asked) == counted(settings, 2, "failed")
    trained = [each for each in settings.trains(2) if each.phase != "pairs"]
    if algorithms.learns(settings) and trained:
        assert len(world.learned) == sum(each.count for each in trained if each.of != "passed")


def test_where_all_pass_an_update_asks_for_tags(tmp_path: Path, chat: Chat) -> None:
    changes: dict[str, Any] = {"entries": ["a", "b"]}  # there is something to tag
    world = made(tmp_path, chat, "resd_fixed", PASSES, changes)
    world.update("one", "two")
    assert len(world.engine.asked) == counted(world.algorithm.settings, 2, "passed") == 4


def test_proposals_and_the_answers_to_them_are_asked_and_trained() -> None:
    play = algorithms.settings(configured("self_play", {"group": 3, "proposals": 2}))
    assert [(each.phase, each.count) for each in play.asks(5)] == [("propose", 10), ("rollout", 30)]
    assert play.trains(5) == play.asks(5)
    assert sum(each.count for each in play.trains(5)) == 5 * play.rollouts
    own = algorithms.settings(configured("self_mined_pairs", {"problems": "own", "keep_right": 0.5, "portion": 6}))
    assert own.asks(5)[0].phase == "propose"
    assert [each.count for each in own.trains(5)] == [9]


def test_an_algorithm_asks_what_the_one_inside_it_does() -> None:
    asked = {name: algorithms.settings(configured(name, {})).asks(3) for name in ("srpo", "rlsd", "switch", "grpo")}
    assert [each.phase for each in asked["srpo"]] == ["rollout", "reflect", "tag", "curate"]
    assert asked["rlsd"] == asked["srpo"]
    assert asked["switch"][-1:] == asked["grpo"]  # after those of RESD: either is asked


def test_a_gate_asks_its_problems_again() -> None:
    counts = {
        gate: counted(algorithms.settings(configured("training_free_grpo", {"gate": gate})), 4) for gate in (None, 7)
    }
    assert counts[7] - counts[None] == 7


RETRIES = ["model=qwen3_4b_thinking", "hardware=h200x8", "algorithm=reflect_retry_reward"]
LENGTHS = script.Lengths(600, 8000, 20480, 16000, 3000)


def seconds(*words: str, lengths: script.Lengths = LENGTHS) -> dict[str, float]:
    settings = script.load([*RETRIES, *words])
    return script.seconds(script.shape_of(settings.model.path), settings, 8, lengths, script.MACHINES["h200"])


def test_the_time_of_retries_is_planned() -> None:
    plain, twice, few = seconds(), seconds("algorithm.group=16"), seconds("algorithm.failures=4")
    assert plain.keys() == {"rollout", "reflect", "retry", "update", "sync"}
    assert twice["rollout"] == plain["rollout"]
    assert twice["update"] == pytest.approx(2 * plain["update"])
    assert few["update"] == pytest.approx(plain["update"] * 4 / 32)
    assert plain["reflect"] < twice["reflect"]
    assert seconds("algorithm.plain_retry=true")["retry"] > plain["retry"] > few["retry"]
    assert seconds(lengths=script.replace(LENGTHS, failed=0.0))["retry"] == 0
    assert seconds("algorithm.kl=0.001")["teacher"] > 0
    tried = seconds("algorithm=training_free_grpo", "algorithm.gate=8")
    assert tried.keys() == {"rollout", "summarise", "compare", "decide", "consolidate", "gate"}  # nothing is trained
    assert seconds("algorithm=switch").keys() >= {"rollout", "reflect", "curate", "teacher", "update"}


def test_memory_has_room_for_the_longest_that_is_asked_and_trained() -> None:
    words = ["model=nano", "algorithm=reflect_retry_reward", "engine.max_batch=4"]
    short, long = config(*words), config(*words, "algorithm.retrying.max_response=4000")
    assert longest_row(short) == 1024 + 320
    assert longest_row(long) == 1024 + 4000
    cache = [estimate(shape(tiny_weights()), each, 1, 0).phases["generating"]["cache"] for each in (short, long)]
    assert cache[1] / cache[0] == pytest.approx(longest_row(long) / longest_row(short))
    pairs = [config("model=nano", "algorithm=self_mined_pairs", f"algorithm.portion={n}", WIDE) for n in (1, 2)]
    one, two = (estimate(shape(tiny_weights()), each, 1, 0).phases["learning"]["activations"] for each in pairs)
    assert two == 2 * one  # however many attempts were made to find them


WIDE = "hardware.micro_batch_tokens=100000"


def test_an_engine_has_room_for_limits_of_an_algorithm_s_own() -> None:
    from resd.services import longest

    assert longest(load("algorithm=reflect_retry_reward", "algorithm.retrying.max_prompt=5000")) == 5000 + 320
