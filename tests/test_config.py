"""Every mistake on the command line is one sentence and a non-zero exit status, before anything is loaded."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from resd import config
from resd.config import CONF, Config, validate
from resd.settings import VllmSettings
from resd.train import check_rollouts, train
from resd.types import UserError

ALGORITHMS = ("resd", "sdpo", "sdpo_ss", "grpo")


def load(*overrides: str) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return validate(compose("config", list(overrides)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("preset", ["default", "paper", "official"])
def test_every_preset_validates(algorithm: str, preset: str) -> None:
    settings = load(f"algorithm={algorithm}", f"preset={preset}")
    assert settings.algorithm.group == (8 if algorithm == "grpo" else 1)
    assert settings.batch_size == 32
    assert settings.inner_updates == 4


def test_sdpo_and_its_variant_are_one_boolean_apart() -> None:
    plain, variant = (load(f"algorithm={name}").algorithm.model_dump() for name in ("sdpo", "sdpo_ss"))
    assert {key for key in plain if plain[key] != variant[key]} == {"distil_self_success"}


def test_configuration_survives_the_run_directory(tmp_path: Path) -> None:
    settings = load("steps=3", f"run_dir={tmp_path}")
    (tmp_path / "config.yaml").write_text(config.dump(settings))
    assert config.read(tmp_path / "config.yaml") == settings
    older = settings.model_dump(mode="json", exclude={"on_alarm", "alarm", "author", "remote"})
    (tmp_path / "config.yaml").write_text(json.dumps(older))
    assert config.read(tmp_path / "config.yaml") == settings


def test_a_run_older_than_a_setting_goes_on(tmp_path: Path) -> None:
    settings = load(f"run_dir={tmp_path}", "forgetting.every=2", "task@forgetting.task=ifeval")
    older = settings.model_dump(mode="json")
    del older["forgetting"], older["engine"]["pipelined"]
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(older))
    assert config.check_same_run(tmp_path, settings) == ["forgetting.every: 0 -> 2"]
    engine = settings.engine.model_copy(update={"pipelined": True})
    assert "engine.pipelined: False -> True" in config.check_same_run(
        tmp_path, settings.model_copy(update={"engine": engine})
    )
    with pytest.raises(UserError, match="seed=0, not 1"):
        config.check_same_run(tmp_path, settings.model_copy(update={"seed": 1}))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().steps = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("algorithm=grpo algorithm.group=1", "algorithm.group=2 or more"),
        ("batch_size=0", "batch_size=0"),
        ("model.attention=flash_attention_2", "'sdpa' or 'eager'"),
        ("hardware.compile=true model.attention=eager", "write model.attention=sdpa"),
        ("resume=/nowhere", "auto, never, or"),
        (
            "algorithm=srpo algorithm@algorithm.context=grpo",
            "algorithm.objective takes its value from algorithm.context.objective, which is not there",
        ),
        ("algorithm.name=ppo", "choose one of grpo, opd, opsd, reflect_retry_reward, resd, resd_fixed,"),
        ("+optimizer.lrr=1", "optimizer.lrr is not a setting"),
        ("model.path=./missing", "not a model folder"),
        ("model.prompts=small model.output_format=json", "model.prompts=small is written for lines"),
        ("algorithm.objective.ratio_min=2", "ratio_min=2"),
    ],
)
def test_impossible_values_are_refused(override: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        load(*override.split())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


COMMANDS = {
    "unknown key": (["stepz=3"], "did you mean steps?"),
    "impossible combination": (["algorithm=grpo", "algorithm.group=1"], "algorithm.group=2 or more"),
    "missing dataset": (["task.options.source=missing.jsonl"], "neither a file nor a folder"),
    "unknown divergence": (["algorithm.objective.divergence=kl"], "reverse_kl"),
    "model too small for the prompts": (["preset=paper", "model.path=resd/model/nano"], "do not fit"),
    **({} if torch.cuda.is_available() else {"no such device": (["hardware=gpu1"], "write hardware=cpu")}),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_one_clear_sentence_on_the_command_line(case: str, tmp_path: Path) -> None:
    arguments, says = COMMANDS[case]
    arguments = [*arguments, f"run_dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "resd.train", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert done.returncode != 0
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_typo_costs_no_model_loading(tmp_path: Path) -> None:
    code = "import sys, resd.train; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_value_that_only_the_user_can_give_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"task\.options\.source has no value: set it"):
        load("task=local")


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("steps=true", "a whole number"),
        ("seed=true", "a whole number"),
        ("rollout.temperature=false", "a number"),
        ("algorithm.group=true", "a whole number"),
        ("evaluation.limit=true", "a whole number"),
    ],
)
def test_true_is_no_number(setting: str, wanted: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"{setting}: write {wanted}")):
        load(setting)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("fpu avx2 amx", "float32"), ("avx512_bf16 fpu", "bfloat16"), ("Features : asimd bf16", "bfloat16")],
)
def test_a_cpu_takes_bfloat16_where_it_has_instructions_for_it(
    flags: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CPUINFO", tmp_path / "cpuinfo")
    assert load("model=qwen2_5_0_5b").hardware.dtype == "float32"  # nothing is known
    config.CPUINFO.write_text(f"flags\t\t: {flags}\n")
    settings = load("model=qwen2_5_0_5b")
    assert (settings.hardware.dtype, settings.engine.dtype) == (dtype, dtype)
    assert load("model=qwen2_5_0_5b", "hardware.dtype=float32").engine.dtype == "float32"
    assert load("model=qwen2_5_0_5b", "hardware=gpu1").hardware.dtype == "bfloat16"


def test_small_models_are_asked_as_large_ones() -> None:
    for task in ("manufactoria", "bouncingsim", "reasoning_gym"):
        asked = [
            load(f"model={model}", f"task={task}").task.options for model in ("qwen2_5_0_5b", "qwen3_0_6b", "nano")
        ]
        assert asked[0] == asked[1]
        assert (asked[1]["prompt"], asked[2]["prompt"]) == ("full", "compact")


@pytest.mark.parametrize("algorithm", ["resd", "sdpo"])
@pytest.mark.parametrize("preset", ["paper", "official"])
def test_a_preset_has_its_objective_whatever_a_model_is_tuned_to(algorithm: str, preset: str) -> None:
    small, large = (
        load(f"model={model}", f"algorithm={algorithm}", f"preset={preset}", "task=manufactoria").algorithm
        for model in ("qwen2_5_0_5b", "qwen3_0_6b")
    )
    assert small.objective == large.objective
    assert small.teacher == large.teacher
    assert load("model=qwen2_5_0_5b", f"algorithm={algorithm}").algorithm.objective.divergence == "forward_kl"


def test_a_model_of_ones_own_has_settings_of_pretrained_ones() -> None:
    settings = load("model=custom", "model.path=org/name", "task=manufactoria")
    assert (settings.optimizer.lr, settings.optimizer.warmup) == (1e-6, 10)
    assert (settings.model.prompts, settings.model.output_format) == ("full", "json")
    assert not settings.model.enable_thinking
    assert settings.task.options["prompt"] == "full"
    assert settings.model.max_prompt + settings.rollout.max_response <= 8192
    assert config.laboratory(settings) is None
    with pytest.raises(UserError, match=r"^model\.path has no value: set it$"):
        load("model=custom")


def test_another_model_under_the_settings_of_nano_is_announced(tiny_model: Path, tmp_path: Path) -> None:
    assert config.laboratory(load()) is None
    continued = tmp_path / "continued"  # a checkpoint of nano, which may say more of itself
    continued.mkdir()
    described = json.loads((config.NANO / "config.json").read_text())
    (continued / "config.json").write_text(json.dumps(described | {"dtype": "float32"}))
    assert config.laboratory(load(f"model.path={continued}")) is None
    for path in (str(tiny_model), "org/name"):
        said = config.laboratory(load(f"model.path={path}"))
        assert said is not None
        assert said.endswith(
            f"optimizer.lr=0.0003, which ruin a pretrained model; write model=custom model.path={path}"
        )
    assert config.laboratory(load("model.path=org/name", "model=qwen3_0_6b")) is None
    (continued / "config.json").write_text("{")
    assert config.laboratory(load(f"model.path={continued}")) is not None


def test_a_number_of_processes_that_the_engine_cannot_use_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"name": "vllm", "pipelined": True, "dtype": "float32", "max_batch": 8, "tensor_parallel": 2}
    engine = VllmSettings(**values, gpu_memory=0.5, kv_cache_gb=1, enforce_eager=False)
    settings = load().model_copy(update={"engine": engine})
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=2 does not divide the 3 processes"):
        train(settings)
    assert engine.replicas(6) == 3


def test_vllm_reports_what_was_sampled_before_top_p_or_cooled_but_not_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # as where it is installed
    cool = ("engine=vllm", "rollout.temperature=0.7")
    with pytest.raises(UserError, match=r"write rollout\.top_p=1\.0 or rollout\.temperature=1\.0"):
        train(load(*cool))  # an evaluation may
    for words in ((*cool, "rollout.top_p=1.0"), ("engine=vllm",), cool[1:]):
        check_rollouts(load(*words))
