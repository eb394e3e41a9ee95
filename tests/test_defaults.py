"""Settings that are younger than a configuration have the values that are shipped."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from resd.config import CONF, IDENTITY, validate
from resd.defaults import completed
from resd.word import flat

SHIPPED = [path.stem for path in sorted((CONF / "algorithm").glob("*.yaml")) if path.stem != "custom"]
FIXED, TAUGHT = 'algorithm.entries=["a","b"]', "algorithm.teacher.url=http://x/v1"
WANTS = {
    "resd_fixed": [FIXED],
    "opd": [TAUGHT, "algorithm.objective.select=teacher"],
}


def dumped(*words: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return validate(compose("config", list(words))).model_dump(mode="json")


def without(tree: dict[str, Any], key: str) -> dict[str, Any]:
    found = copy.deepcopy(tree)
    *sections, last = key.split(".")
    place = found
    for section in sections:
        place = place[section]
    del place[last]
    return found


@pytest.mark.parametrize("algorithm", SHIPPED)
def test_a_whole_configuration_stays_as_it_is(algorithm: str) -> None:
    whole = dumped("model=qwen3_4b_thinking", f"algorithm={algorithm}", *WANTS.get(algorithm, []))
    assert completed(whole) == whole


@pytest.mark.parametrize(
    "key",
    [
        *("evaluation.patience", "alarm", "optimizer.schedule", "rollout.max_turns", "engine.pipelined", "loss"),
        *("algorithm.playbook.novelty", "algorithm.success_weighting.a", "algorithm.writing.max_prompt"),
        *("algorithm.teacher_prompt.max_tokens", "task.options.marks", "forgetting.every", "engine.dtype"),
    ],
)
def test_what_is_missing_is_as_shipped(key: str) -> None:
    whole = dumped("task=house_style", "algorithm=resd_swapped")
    assert completed(without(whole, key)) == whole


def test_an_algorithm_inside_another_has_its_own() -> None:
    whole = dumped("algorithm=rlsd")
    assert completed(without(whole, "algorithm.context.playbook.novelty")) == whole


def test_another_choice_takes_nothing_from_the_shipped_one() -> None:
    whole = dumped("task@forgetting.task=house_style")
    assert completed(whole) == whole
    chosen = {"name": "house_style", "options": {"count": 3}}
    assert completed({"forgetting": {"task": chosen}})["forgetting"]["task"] == chosen
    assert completed({"forgetting": {"every": 1}})["forgetting"]["task"]["name"] == "ifeval"


def test_what_a_run_says_is_never_replaced() -> None:
    told = {"algorithm": {"name": "resd", "playbook": None, "entries": "${steps} ???"}, "steps": "???", "loss": {}}
    found = completed(told)
    assert found["algorithm"]["playbook"] is None
    assert (found["algorithm"]["entries"], found["steps"]) == ("${steps} ???", "???")
    assert found["loss"]["reduction"] == "sequence_mean"


def test_what_hangs_on_anything_else_is_not_guessed() -> None:
    found = flat(completed({"task": {"name": "local"}, "algorithm": {"name": "../engine/vllm"}, "seed": 3}))
    assert "run_dir" not in found  # the time of day is part of it
    assert "task.options.source" not in found
    assert "task.options.noun" in found
    assert not [key for key in found if key.startswith("algorithm.") and key != "algorithm.name"]
    assert "hydra" not in {key.partition(".")[0] for key in found}
    assert set(IDENTITY[:4]) <= found.keys() | {"task"}


def test_nothing_is_changed_in_place(tmp_path: Path) -> None:
    told = {"algorithm": {"name": "resd"}}
    completed(told)["algorithm"]["playbook"]["novelty"] = "x"
    assert told == {"algorithm": {"name": "resd"}}
    assert completed(told)["algorithm"]["playbook"]["novelty"] == "text"
