"""Judge a checkpoint by itself, as training would.

    python -m resd.evaluate checkpoint=RUN/checkpoints/step_000040 task=manufactoria samples=4

`checkpoint` is one of a run (or its `best`), a `model/` folder of one, wherever it was moved or copied to, or any
Hugging Face folder. What the run told its model (`model` and `rollout`) is what the model is told here.
`library=RUN/playbook.jsonl` tells it rules besides (`resd.context.library`).
`resd.evaluate(…)`, a call of this module, is `resd.api.evaluate`.

Prints a table at a terminal, and one line of JSON into a pipe or a file; `out=FOLDER` keeps metrics and attempts.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from resd import commandline
from resd import config as configuration
from resd.config import Config
from resd.context import library
from resd.folder import made_for
from resd.settings import JudgeSettings, LibrarySettings
from resd.task import Task
from resd.train import check_world, guarded, load_task
from resd.types import Messages, Problem, UserError

Telling = Callable[..., Callable[[Problem], Messages]]  # of a task's own way to ask, and the prompts of a model


@hydra.main(config_path=str(configuration.CONF), config_name="evaluate", version_base="1.3")
def main(composed: DictConfig) -> None:
    guarded(lambda: _evaluate(composed))


def _evaluate(composed: DictConfig) -> None:
    telling = library_of(composed)
    settings, out = settings_of(composed)
    metrics = judge(settings, out, telling)
    if configuration.rank() == 0:
        show(metrics)


def show(metrics: Mapping[str, float]) -> None:
    """A table for people at a terminal; for anything else one line of JSON."""
    if not sys.stdout.isatty():
        print(json.dumps(metrics))
        return
    table = Table("metric", Column("value", justify="right"), title="the test split", title_justify="left")
    for name, value in metrics.items():
        share = "@" in name or name.endswith(("pooled", "truncated"))
        table.add_row(escape(name.removeprefix("eval/")), f"{100 * value:.2f} %" if share else f"{value:g}")
    Console(highlight=False).print(table)


def library_of(composed: DictConfig) -> Telling | None:
    """How the model is told a library, if it is to be. Raises UserError, before anything heavy."""
    told = configuration.checked(LibrarySettings, {key: composed[key] for key in LibrarySettings.model_fields})
    rules = library.load(told)
    return None if rules is None else partial(library.told, library=rules, placement=told.placement)


def settings_of(composed: DictConfig) -> tuple[Config, Path | None]:
    """The settings of an evaluation, and where to write it."""
    OmegaConf.set_struct(composed, False)
    if OmegaConf.is_missing(composed, "checkpoint"):
        raise UserError("checkpoint has no value: write checkpoint=RUN/checkpoints/step_N")
    own = configuration.checked(JudgeSettings, {key: composed.pop(key) for key in JudgeSettings.model_fields})
    checkpoint = Path(own.checkpoint).expanduser()
    if not own.checkpoint or (not checkpoint.exists() and own.checkpoint.count("/") != 1):
        raise UserError(f"checkpoint={own.checkpoint} does not exist: write checkpoint=RUN/checkpoints/step_N")
    folder = checkpoint / "model" if (checkpoint / "model").is_dir() else checkpoint
    trained = trained_settings(folder)
    for section in ("model", "rollout") if trained else ():
        composed[section] = OmegaConf.merge(composed[section], trained[section])
    composed.model.path = str(folder)
    composed.evaluation.samples = own.samples
    try:
        settings = configuration.validate(composed)
    except UserError as error:
        raise UserError(str(error).replace(f"model.path={folder}", f"checkpoint={checkpoint}")) from None
    if trained is None and configuration.rank() == 0:
        print(
            f"{checkpoint} does not say what its run told the model: model and rollout are those of this command",
            file=sys.stderr,
        )
    return settings, Path(own.out).expanduser() if own.out else None


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
    settings: Config, out: Path | None, telling: Telling | None = None, own: Task | None = None
) -> dict[str, float]:
    """Metrics of `settings.model` on the test split, asked as `telling` has it, of the task `own` if there is one;
    attempts and metrics are written under `out`.
    """
    check_world(settings)
    task, problems = load_task(settings.task, settings.verify, "test", own=own)
    if out is not None and (out / "checkpoints").exists():
        raise UserError(f"out={out} is the directory of a training run: choose another out")
    with made_for(out, "out") if out is not None else nullcontext():
        return _judged(settings, out, task, problems, telling)


def _judged(
    settings: Config, out: Path | None, task: Task, problems: Sequence[Problem], telling: Telling | None
) -> dict[str, float]:
    from resd import dist, files
    from resd.measure.evaluation import evaluate
    from resd.services import evaluation_session

    with dist.joined(settings.hardware.device, settings.hardware.threads):
        if out is not None and dist.first():
            files.cut(out / "metrics.jsonl", -1)
        with evaluation_session(settings, task, out) as run:
            ask = telling(task.prompt, prompts=run.prompts) if telling else task.prompt
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
