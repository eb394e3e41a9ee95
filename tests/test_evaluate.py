"""What `resd evaluate` makes of its words and of what the run of a checkpoint told its model."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from resd import config
from resd.config import CONF
from resd.evaluate import settings_of
from resd.types import UserError


@pytest.mark.parametrize("place", ["best", "checkpoints/step_000002/model", "moved", "copied model", "older"])
def test_an_evaluation_finds_what_the_run_told_its_model(run_dir: Path, tmp_path: Path, place: str) -> None:
    if place == "moved":
        path = (run_dir / "checkpoints/step_000002").rename(tmp_path / "moved")
    elif place == "copied model":
        path = Path(shutil.copytree(run_dir / "checkpoints/step_000002/model", tmp_path / "m"))
    else:
        path = run_dir / ("best" if place == "older" else place)
    if place == "older":
        (path / "model/resd.yaml").unlink()
        (path / "manifest.json").unlink()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings, _ = settings_of(compose("evaluate", [f"checkpoint='{path}'", "task=custom", "task.name=t:T"]))
    told = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert settings.rollout.max_response == 12
    assert settings.model.model_dump() == told["model"] | {"path": settings.model.path}
    assert (Path(settings.model.path) / "config.json").is_file()


def test_what_a_command_says_itself_is_not_the_run_s_to_say(run_dir: Path) -> None:
    words = [f"checkpoint='{run_dir / 'best'}'", "task=custom", "task.name=t:T", "rollout.max_response=99"]
    words += ["model.prompts=full", "+model.max_prompt=321"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings, _ = settings_of(compose("evaluate", [*words[:-1], "model.max_prompt=321"]), words)
    told = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert (settings.rollout.max_response, settings.model.prompts, settings.model.max_prompt) == (99, "full", 321)
    assert told["rollout"] | {"max_response": 99} == settings.rollout.model_dump()
    assert told["model"]["prompts"] != "full"


def test_a_damaged_checkpoint_is_not_judged(run_dir: Path) -> None:
    weights = run_dir / "best/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    for place in ("best", "best/model"):
        with (
            initialize_config_dir(str(CONF), version_base="1.3"),
            pytest.raises(UserError, match=r"best.* is damaged \(model/model.safetensors has changed"),
        ):
            settings_of(compose("evaluate", [f"checkpoint='{run_dir / place}'", "task=custom", "task.name=t:T"]))


def test_a_run_instead_of_its_checkpoint_is_answered_with_the_best(run_dir: Path) -> None:
    says = f"checkpoint={run_dir} is not a model folder, {run_dir / 'best/model'} is: write that"
    with pytest.raises(UserError, match=re.escape(says)):
        asked(f"checkpoint='{run_dir}'")


def asked(*words: str) -> config.Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return settings_of(compose("evaluate", list(words)), words)[0]


def test_settings_in_a_mapping_are_the_command_s_own_too(run_dir: Path) -> None:
    own = [f"checkpoint='{run_dir / 'best'}'", "task=custom", "task.name=t:T"]
    told = yaml.safe_load((run_dir / "config.yaml").read_text())
    found = asked(*own, "rollout={max_response: 99}", "evaluation.samples=7")
    assert found.evaluation.samples == 7
    assert (
        asked(*own, "samples=3").evaluation.samples
        == asked(*own, "samples=3", "evaluation.samples=3").evaluation.samples
        == 3
    )
    assert found.rollout.model_dump() == told["rollout"] | {"max_response": 99}


def test_a_choice_that_a_run_s_settings_pass_over_is_told(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = [f"checkpoint='{run_dir / 'best'}'", "task=custom", "task.name=t:T"]
    told = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert asked(*own).rollout.max_response == told["rollout"]["max_response"]
    assert capsys.readouterr().err == ""  # nobody has said anything else
    found = asked(*own, "model=qwen3_0_6b", "model.prompts=full", "rollout.max_response=99")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "not as model=qwen3_0_6b has it: " in said
    assert "model.max_prompt" in said
    assert "rollout.max_prompt" in said
    assert not {"model.path", "model.prompts", "rollout.max_response"} & {*said.replace(";", ",").split(", ")}
    assert (found.model.max_prompt, found.model.prompts) == (told["model"]["max_prompt"], "full")


@pytest.mark.parametrize(
    ("words", "options", "says"),
    [
        ([], {"family": "regex"}, ""),
        (["task=manufactoria"], {"family": "regex"}, "not as task=manufactoria has it: task.options.family; write"),
        (["task=manufactoria", "task.options.family=has"], {"family": "has"}, ""),
        (["task.options.family=has"], {"family": "has"}, ""),
        (["task=house_style"], {"family": None}, ""),
    ],
    ids=["none", "same", "same with another option", "another option", "another"],
)
def test_a_run_s_task_and_sampling_are_those_of_its_evaluation(
    run_dir: Path, capsys: pytest.CaptureFixture[str], words: list[str], options: dict[str, Any], says: str
) -> None:
    file = run_dir / "best/model/resd.yaml"
    told = yaml.safe_load(file.read_text())
    told["task"] = {"name": "manufactoria", "options": {"family": "regex"}}
    told["evaluation"] |= {"temperature": 0.0, "top_p": 0.5, "limit": 1}
    file.write_text(yaml.safe_dump(told))
    (run_dir / "best/manifest.json").unlink()
    own = [f"checkpoint='{run_dir / 'best'}'", *words]
    found = asked(*own)
    assert {name: found.task.options.get(name) for name in options} == options
    assert (found.evaluation.temperature, found.evaluation.top_p, found.evaluation.limit) == (0.0, 0.5, None)
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == bool(says)
    assert asked(*own, "evaluation.temperature=0.9").evaluation.temperature == 0.9


def test_an_evaluation_says_if_it_does_not(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings, _ = settings_of(compose("evaluate", [f"checkpoint={tiny_model}", "rollout.max_response=7"]))
    assert settings.rollout.max_response == 7
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "does not say what its run told the model" in said
