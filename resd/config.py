"""From Hydra to one frozen, validated `Config`. The only module that sees OmegaConf.

Every mistake a user can make here ends as one sentence (UserError), before torch is imported or a model is read.
"""

import importlib.util
import os
import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator
from yaml import YAMLError

from resd import algorithms, defaults
from resd.defaults import completed
from resd.model import files
from resd.report.trackers import LIBRARIES
from resd.settings import (
    ROOT,
    AlarmSettings,
    AlgorithmSettings,
    AuthorSettings,
    CheckpointSettings,
    EngineSettings,
    EvaluationSettings,
    ForgettingSettings,
    HardwareSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    Positive,
    RemoteSettings,
    RolloutSettings,
    Section,
    StyleSettings,
    TaskSettings,
    VerifySettings,
)
from resd.settings.complaints import complaints
from resd.types import UserError
from resd.word import flat

SectionT = TypeVar("SectionT", bound=Section)
CONF = defaults.CONF
NANO = ROOT / "resd" / "model" / "nano"
CPUINFO = Path("/proc/cpuinfo")


def _ancestor(algorithm: str) -> str:
    """The algorithm whose file `conf/algorithm/NAME.yaml` builds upon, or itself.

    Presets and tuned rates are kept for ancestors alone, so that a control differs from RESD in one thing under each.
    """
    from hydra.core.default_element import ConfigDefault
    from hydra.core.global_hydra import GlobalHydra

    found = GlobalHydra.instance().config_loader().repository.load_config(f"algorithm/{algorithm}")  # type: ignore[attr-defined]
    bases = [each.path for each in found.defaults_list if isinstance(each, ConfigDefault)] if found else []
    base = next((path for path in bases if path not in (None, "_self_")), None)
    return _ancestor(base) if base else algorithm


def auto_dtype(device: str) -> str:
    """What computes fastest: bfloat16 on a GPU, and on a CPU that has instructions for it (else it is very slow)."""
    if device != "cpu":
        return "bfloat16"
    try:
        words = set(CPUINFO.read_text().split())
    except OSError:
        return "float32"
    return "bfloat16" if words & {"avx512_bf16", "amx_bf16", "bf16"} else "float32"


OmegaConf.register_new_resolver("ancestor", _ancestor, replace=True)
OmegaConf.register_new_resolver("auto_dtype", auto_dtype, replace=True)
# A name as part of a folder's: without the colon of package.module:Task, which rsync and Windows read otherwise.
OmegaConf.register_new_resolver("as_folder", lambda name: re.sub(r"[^\w.-]+", "-", name), replace=True)
# How a task asks: models of every size but the laboratory's get the whole text.
OmegaConf.register_new_resolver("asks", lambda style: "compact" if style == "compact" else "full", replace=True)


class Config(Section):
    """What a run needs to know."""

    steps: Positive | None
    """updates; null: one pass over the training problems, inner_updates times each batch"""
    seed: int
    """everything random follows from it"""
    run_dir: str
    """folder of the run; the same command with the same run_dir continues it"""
    resume: str
    """auto: at the last checkpoint of run_dir; never: only a new run; or a checkpoint folder"""
    batch_size: Positive
    """problems an update"""
    inner_updates: Positive
    """updates on the same problems, each with fresh rollouts"""
    epochs: Positive
    """passes over the training problems"""
    shuffle: bool
    """whether each pass has an order of its own"""
    on_empty: Literal["stop", "warn"]
    """what becomes of a run that loses all its samples or lessons (resd.guard)"""
    on_alarm: Literal["say", "stop", "rollback"]
    """what becomes of a run whose answers or gradients change for the worse (resd.alarm)"""
    max_mismatch: Annotated[float, Field(gt=0)] | None
    """nats a token between engine and learner that stop a run (resd.guard); null: none do"""
    progress: Literal["auto", "on", "off"]
    """progress bars; auto: on a terminal"""
    trackers: list[Literal["wandb", "mlflow", "trackio"]]
    """who is told of the run beside TensorBoard"""
    task: TaskSettings
    algorithm: SerializeAsAny[AlgorithmSettings]
    model: ModelSettings
    engine: EngineSettings
    hardware: HardwareSettings
    rollout: RolloutSettings
    loss: LossSettings
    optimizer: OptimizerSettings
    evaluation: EvaluationSettings
    forgetting: ForgettingSettings
    checkpoints: CheckpointSettings
    verify: VerifySettings
    alarm: AlarmSettings
    style: StyleSettings
    author: AuthorSettings
    remote: RemoteSettings

    @field_validator("run_dir", "resume")
    @classmethod
    def _a_path(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty: write a folder")
        return os.path.expanduser(value)

    @field_validator("algorithm", mode="before")
    @classmethod
    def _algorithm_of_its_own_kind(cls, value: Any) -> Any:
        return algorithms.settings(value)

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        author, teacher = self.author.path, self.algorithm.teacher
        folders = {
            "model.path": self.model.path,
            "algorithm.teacher.path": teacher and teacher.path,
            "author.path": author,
        }
        for key, path in folders.items():
            looks_local = path and (path.startswith((".", "/")) or Path(path).exists())
            if path and looks_local and (problem := files.problem(Path(path))):
                raise ValueError(f"{key}={path} {problem}")
        if teacher is not None and teacher.url is not None and self.rollout.temperature != 1:
            raise ValueError("algorithm.teacher.url answers at temperature 1: write rollout.temperature=1.0")
        prompts = self.model.prompts
        if prompts != "full" and self.model.output_format != "lines":
            raise ValueError(f"model.prompts={prompts} is written for lines: write model.output_format=lines")
        if self.hardware.compile and self.model.attention != "sdpa":
            raise ValueError("hardware.compile=true needs our own forward pass: write model.attention=sdpa")
        return self


def checked(kind: type[SectionT], values: Any) -> SectionT:
    """A section of these values. Raises UserError with one sentence."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise UserError(complaints(error)) from None


def validate(composed: DictConfig, here: bool = True) -> Config:
    """Resolve and check what Hydra composed, and unless it is to be made elsewhere, whether this machine has what it
    needs. Raises UserError with one sentence.
    """
    try:
        config = checked(Config, OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))
        if here:
            _check_machine(config)
        return config
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value: set it") from None
    except InterpolationToMissingValueError as error:
        raise UserError(f"{str(error).splitlines()[0].rpartition(' ')[2]} has no value: set it") from None
    except InterpolationKeyError as error:
        source = str(error).split("'")[1]
        raise UserError(f"{error.full_key} takes its value from {source}, which is not there: set either") from None
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None


def _check_machine(config: Config) -> None:
    if config.hardware.compile and config.hardware.device == "cpu" and shutil.which("g++") is None:
        raise UserError("hardware.compile=true on a CPU needs g++: install it, or write hardware.compile=false")
    for name in config.trackers:
        if importlib.util.find_spec(name) is None:
            wants = f"pip install {LIBRARIES[name]}, or leave it out"
            raise UserError(f"trackers=[{name}] needs {name}, which is not installed: {wants}")
    if config.engine.name == "vllm" and importlib.util.find_spec("vllm") is None:
        raise UserError("engine=vllm needs vllm, which is not installed: write engine=transformers")
    if config.resume not in ("auto", "never") and not Path(config.resume, "state").is_dir():
        raise UserError(f"resume={config.resume} is not a checkpoint: write auto, never, or RUN/checkpoints/step_N")


def laboratory(config: Config) -> str | None:
    """What is to be said where another model is treated as nano, whose settings are the default."""
    path = config.model.path
    if config.model.prompts != "compact" or files.alike(Path(path), NANO):
        return None
    return (
        f"warning: model.path={path} is not nano, and has the settings of model=nano: compact prompts and "
        f"optimizer.lr={config.optimizer.lr:g}, which ruin a pretrained model; write model=custom model.path={path}"
    )


def dump(config: Config) -> str:
    """The resolved configuration as YAML, as `config.yaml` of a run directory keeps it."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def read(path: Path) -> Config:
    """The configuration of an earlier run, maybe of another machine; settings that are younger are as shipped."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the directory of a run")
    return validate(OmegaConf.create(completed(_written(path))), here=False)


def _written(path: Path) -> dict[str, Any]:
    try:
        found = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, UnicodeDecodeError, OSError, OmegaConfBaseException) as error:
        found, why = None, f" ({str(error).splitlines()[0]})"
    else:
        why = ""
    if not isinstance(found, dict) or not found:
        raise UserError(
            f"{path} is not the configuration of a run{why}: restore it, or choose another run_dir "
            "(checkpoints/step_N/model/resd.yaml is a copy)"
        )
    return {str(key): value for key, value in found.items()}


# Changing one of these in the middle of a run would make it another run.
IDENTITY = (
    *("seed", "batch_size", "inner_updates", "shuffle", "task"),
    *("model.path", "model.lora", "algorithm.group"),
    *("forgetting.task", "forgetting.samples", "forgetting.limit"),
)


def check_same_run(run_dir: Path, new: Config, checkpoint: Path | None = None) -> list[str]:
    """Settings that differ from those the run was started with, as `key: old -> new`.

    Where the directory does not say, for it is new or has lost its file, the checkpoint that is gone on from does.
    Raises UserError when what makes the run the one it is would change.
    """
    file, holder = run_dir / "config.yaml", f"run_dir={run_dir}"
    if not file.is_file() and checkpoint is not None:
        file, holder = checkpoint / "model" / "resd.yaml", f"resume={checkpoint}"
    if not file.is_file():
        return []
    written = _written(file)
    old_values = flat(completed(written))
    new_values = flat(new.model_dump(mode="json"))
    changed = [key for key in sorted(old_values | new_values) if old_values.get(key) != new_values.get(key)]
    kinds = [key for key in old_values if key.startswith("algorithm.") and key.endswith(".name")]
    fixed = [name for name in IDENTITY if any(_within(key, name) for key in flat(written))]  # others are younger
    fixed += kinds  # an algorithm's, and those of the ones inside it
    for key in changed:
        if any(_within(key, name) for name in fixed):
            raise UserError(
                f"{holder} holds a run with {key}={old_values.get(key)}, not {new_values.get(key)}: "
                "write the same, or choose another run_dir"
            )
    ignored = ("run_dir", "resume", "progress", "trackers", "on_empty", "on_alarm", "max_mismatch")
    return [f"{key}: {old_values.get(key)} -> {new_values.get(key)}" for key in changed if key not in ignored]


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def rank() -> int:
    """This process's rank before any process group exists (torchrun sets it)."""
    return int(os.environ.get("RANK", "0"))
