"""From Hydra to one frozen, validated `Config`. The only module that sees OmegaConf.

Every mistake a user can make here ends as one sentence (UserError), before torch is imported or a model is read.
"""

import difflib
import importlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import SerializeAsAny, ValidationError, field_validator, model_validator

from resd.model import files
from resd.settings import (
    ROOT,
    AlgorithmSettings,
    CheckpointSettings,
    EngineSettings,
    EvaluationSettings,
    ForgettingSettings,
    HardwareSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    Positive,
    SamplingSettings,
    Section,
    TaskSettings,
    VerifySettings,
)
from resd.types import UserError

CONF = ROOT / "conf"


class Config(Section):
    """Everything a run needs to know; `steps` counts updates (null: one pass over the stream)."""

    steps: Positive | None
    seed: int
    run_dir: str
    resume: str
    batch_size: Positive
    inner_updates: Positive
    epochs: Positive
    shuffle: bool
    progress: Literal["auto", "on", "off"]
    task: TaskSettings
    algorithm: SerializeAsAny[AlgorithmSettings]
    model: ModelSettings
    engine: EngineSettings
    hardware: HardwareSettings
    rollout: SamplingSettings
    loss: LossSettings
    optimizer: OptimizerSettings
    evaluation: EvaluationSettings
    forgetting: ForgettingSettings
    checkpoints: CheckpointSettings
    verify: VerifySettings

    @field_validator("algorithm", mode="before")
    @classmethod
    def _algorithm_of_its_own_kind(cls, value: Any) -> Any:
        if isinstance(value, AlgorithmSettings):
            return value
        return algorithm_module(str(value.get("name"))).Settings(**value)

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        path = self.model.path
        looks_local = path.startswith((".", "/", "~")) or Path(path).exists()
        if looks_local and (problem := files.problem(Path(path).expanduser())):
            raise ValueError(f"model.path={path} {problem}")
        if self.model.prompts == "compact" and self.model.output_format != "lines":
            raise ValueError("model.prompts=compact is written for lines: write model.output_format=lines")
        if self.hardware.compile and self.model.attention != "sdpa":
            raise ValueError("hardware.compile=true needs our own forward pass: write model.attention=sdpa")
        if self.hardware.compile and self.hardware.device == "cpu" and shutil.which("g++") is None:
            raise ValueError("hardware.compile=true on a CPU needs g++: install it, or write hardware.compile=false")
        if self.engine.name == "vllm" and importlib.util.find_spec("vllm") is None:
            raise ValueError("engine=vllm needs vllm, which is not installed: write engine=transformers")
        if self.engine.name == "vllm" and self.rollout.temperature != 1:
            raise ValueError("engine=vllm reports log-probabilities at temperature 1: write rollout.temperature=1.0")
        if self.resume not in ("auto", "never") and not Path(self.resume, "state").is_dir():
            raise ValueError(f"resume={self.resume} is not a checkpoint: write auto, never, or RUN/checkpoints/step_N")
        return self


def algorithm_module(name: str) -> Any:
    """The module of `resd.algorithms` called `name`: it has `Settings` and `Algorithm`."""
    folder = Path(__file__).parent / "algorithms"
    known = sorted(file.stem for file in folder.glob("[a-z]*.py") if file.stem != "base")
    if name not in known:
        raise ValueError(f"algorithm.name={name} does not exist: choose one of {', '.join(known)}")
    return importlib.import_module(f"resd.algorithms.{name}")


def validate(composed: DictConfig) -> Config:
    """Resolve and check what Hydra composed. Raises UserError with one sentence."""
    try:
        return Config(**OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value: set it") from None
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    except ValidationError as error:
        raise UserError("; ".join(_sentence(e) for e in error.errors())) from None


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{key} is not a setting here: remove it, or see conf/ for what there is"
    if error["type"] == "missing":
        return f"{key} has no value: set it"
    return f"{key}={error['input']}: {message}" if key and error["type"] != "value_error" else message


def preflight(overrides: list[str], config_name: str) -> None:
    """Compose once, only to turn Hydra's own complaints about the command line into one sentence."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            compose(config_name, overrides)
        except HydraException as error:
            plain = compose(config_name, [])
            raise UserError(_hydra_sentence(str(error), plain)) from None
        finally:
            GlobalHydra.instance().clear()


def _hydra_sentence(message: str, plain: DictConfig) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if message.startswith("Could not override '"):
        key = message.split("'")[1]
        near = difflib.get_close_matches(key, _keys(OmegaConf.to_container(plain)), n=1, cutoff=0.5)
        hint = f": did you mean {near[0]}?" if near else "; see conf/config.yaml for what there is"
        return f"{key} is not a setting{hint}"
    if message.startswith("In '") and "Could not find" in message:
        group = lines[0].split("Could not find ")[1].strip("'").split("/")
        options = sorted(file.stem for file in (CONF / "/".join(group[:-1])).glob("*.yaml"))
        return f"{'/'.join(group[:-1])}={group[-1]} does not exist: choose one of {', '.join(options)}"
    return " ".join(lines)


def _keys(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return []
    return [key for k, v in tree.items() for key in (f"{prefix}{k}", *_keys(v, f"{prefix}{k}."))]


def dump(config: Config) -> str:
    """The resolved configuration as YAML, as `config.yaml` of a run directory keeps it."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def read(path: Path) -> Config:
    """The configuration of an earlier run."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the directory of a run")
    return validate(OmegaConf.load(path))  # type: ignore[arg-type]


# Changing one of these in the middle of a run would make it another run.
IDENTITY = (
    *("seed", "batch_size", "inner_updates", "shuffle", "task"),
    *("model.path", "model.lora", "algorithm.name", "algorithm.group"),
    *("forgetting.task", "forgetting.samples", "forgetting.limit"),
)


def check_same_run(run_dir: Path, new: Config) -> list[str]:
    """Settings that differ from those the run was started with, as `key: old -> new`.

    Raises UserError when what makes the run the one it is would change.
    """
    file = run_dir / "config.yaml"
    if not file.is_file():
        return []
    old_values = _flat(OmegaConf.to_container(OmegaConf.load(file)))  # type: ignore[arg-type]
    new_values = _flat(new.model_dump(mode="json"))
    changed = [key for key in sorted(old_values | new_values) if old_values.get(key) != new_values.get(key)]
    fixed = [name for name in IDENTITY if any(_within(key, name) for key in old_values)]  # others are younger than it
    for key in changed:
        if any(_within(key, name) for name in fixed):
            raise UserError(
                f"run_dir={run_dir} holds a run with {key}={old_values.get(key)}, not {new_values.get(key)}: "
                "write the same, or choose another run_dir"
            )
    ignored = ("run_dir", "resume", "progress")
    return [f"{key}: {old_values.get(key)} -> {new_values.get(key)}" for key in changed if key not in ignored]


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def rank() -> int:
    """This process's rank before any process group exists (torchrun sets it)."""
    return int(os.environ.get("RANK", "0"))
