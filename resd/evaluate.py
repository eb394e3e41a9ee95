"""Judge a checkpoint by itself, as training would.

    python -m resd.evaluate checkpoint=RUN/checkpoints/step_000040 task=manufactoria samples=4

`checkpoint` is one of a run (or its `best`), a `model/` folder of one, wherever it was moved or copied to, or any
Hugging Face folder. What the run told its model (`model` and `rollout`) is what the model is told here.
`library=RUN/playbook.jsonl` tells it rules besides (`resd.context.library`).
`resd.evaluate(…)`, a call of this module, is `resd.api.evaluate`.
"""

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from resd import commandline
from resd import config as configuration
from resd.config import Config
from resd.context import library
from resd.settings import LibrarySettings
from resd.task import Task
from resd.train import guarded, load_task, writable
from resd.types import UserError


@hydra.main(config_path=str(configuration.CONF), config_name="evaluate", version_base="1.3")
def main(composed: DictConfig) -> None:
    guarded(lambda: _evaluate(composed))


def _evaluate(composed: DictConfig) -> None:
    told = library_of(composed)
    settings, out = settings_of(composed)
    metrics = judge(settings, out, told)
    if configuration.rank() == 0:
        print(json.dumps(metrics))


def library_of(composed: DictConfig) -> LibrarySettings:
    """What the model is told, taken out of `composed`."""
    OmegaConf.set_struct(composed, False)
    given = {key: composed.pop(key) for key in LibrarySettings.model_fields}
    try:
        settings = LibrarySettings(**given)
    except ValidationError as error:
        raise UserError(configuration.sentences(error)) from None
    library.load(settings)
    return settings


def settings_of(composed: DictConfig) -> tuple[Config, Path | None]:
    """The settings of an evaluation, and where to write it."""
    own: dict[str, Any] = {}
    OmegaConf.set_struct(composed, False)
    for key in ("checkpoint", "samples", "out"):
        if OmegaConf.is_missing(composed, key):
            raise UserError(f"{key} has no value: write {key}=RUN/checkpoints/step_N")
        own[key] = composed.pop(key)
    checkpoint = Path(own["checkpoint"]).expanduser()
    folder = checkpoint / "model" if (checkpoint / "model").is_dir() else checkpoint
    trained = trained_settings(folder)
    if trained is None and configuration.rank() == 0:
        print(
            f"{checkpoint} does not say what its run told the model: model and rollout are those of this command",
            file=sys.stderr,
        )
    for section in ("model", "rollout") if trained else ():
        composed[section] = OmegaConf.merge(composed[section], trained[section])
    composed.model.path = str(folder)
    composed.evaluation.samples = own["samples"]
    return configuration.validate(composed), Path(own["out"]).expanduser() if own["out"] else None


def trained_settings(folder: Path) -> Any:
    """The configuration of the run that wrote a `model/` folder, or None: kept in it, or (older) in its run."""
    for file in (folder / "resd.yaml", folder.resolve().parent.parent.parent / "config.yaml"):
        if file.is_file():
            try:
                found = yaml.safe_load(file.read_text("utf-8"))
                if isinstance(found["model"], dict) and isinstance(found["rollout"], dict):
                    return found
            except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
                pass
            raise UserError(f"{file} is not the configuration of a run: restore it, or remove it")
    return None


def judge(
    settings: Config, out: Path | None, told: LibrarySettings | None = None, own: Task | None = None
) -> dict[str, float]:
    """Metrics of `settings.model` on the test split, told what `told` names, of the task `own` if there is one;
    attempts and metrics are written under `out`.
    """
    rules = library.load(told) if told else None
    task, problems = load_task(settings.task, settings.verify, "test", own=own)
    if out is not None:
        if (out / "checkpoints").exists():
            raise UserError(f"out={out} is the directory of a training run: choose another out")
        writable(out)
    from resd import dist, files
    from resd.measure.evaluation import evaluate
    from resd.services import evaluation_session

    with dist.joined(settings.hardware.device, settings.hardware.threads):
        if out is not None and dist.first():
            files.cut(out / "metrics.jsonl", -1)
        with evaluation_session(settings, task, out) as run:
            ask = library.told(task.prompt, rules, told.placement, run.prompts) if told and rules else task.prompt
            metrics, attempts = evaluate(run.speech, problems, settings.evaluation, run.sampling, ask)
            run.finish(attempts, {})
            run.speech.log.metrics(0, "eval", metrics)
            return metrics


class Program(ModuleType):
    """As that of `resd.train`."""

    def __call__(
        self,
        checkpoint: str | os.PathLike[str],
        task: Task | str | None = None,
        *,
        samples: int = 4,
        out: str | os.PathLike[str] | None = None,
        **overrides: Any,
    ) -> dict[str, float]:
        """See `resd.api.evaluate`."""
        from resd import api

        return api.evaluate(checkpoint, task, samples=samples, out=out, **overrides)


sys.modules[__name__].__class__ = Program

if __name__ == "__main__":
    guarded(lambda: commandline.prepare("evaluate"))
    main()
