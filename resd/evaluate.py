"""Judge a checkpoint by itself, as training would.

    python -m resd.evaluate checkpoint=RUN/checkpoints/step_000040 task=manufactoria samples=4

`checkpoint` is one of a run (or its `best`), a `model/` folder of one, wherever it was moved or copied to, or any
Hugging Face folder. What the run told its model (`model` and `rollout`), how its evaluations sampled, and its task are
those of the evaluation, but for the settings that this command itself names (`rollout.max_response=2048`) and another
task. A word that would do nothing is refused or named.
`library=RUN/playbook.jsonl` tells it rules besides (`resd.context.library`), `worth=32` measures what each of them is
worth (`resd.measure.ablation`).
`resd.evaluate(…)`, a call of this module, is `resd.api.evaluate`.

Prints a table at a terminal, and one line of JSON into a pipe or a file; `out=FOLDER` keeps metrics and attempts.
"""

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
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from resd import commandline
from resd import config as configuration
from resd.advice import GROUPS
from resd.config import Config
from resd.context.playbook import Playbook
from resd.folder import made_for
from resd.settings import JudgeSettings, LibrarySettings
from resd.storage import manifest
from resd.task import Task
from resd.train import check_judge, check_world, guarded, load_task
from resd.types import Messages, Problem, UserError
from resd.word import flat, key_value

# What an evaluation has a name of its own for, and what says nothing without another setting.
INSTEAD = {"model.path": "checkpoint", "run_dir": "out"}
WANTS = {"placement": "library", "cap": "library", "filler": "library", "left_out": "worth", "outcome": "worth"}
# What it reads of the settings of a run.
READ = (
    *("seed", "progress", "task", "model", "engine", "hardware", "verify"),
    *("rollout.max_prompt", "rollout.max_response", "rollout.max_turns"),
    *("evaluation.temperature", "evaluation.top_p", "evaluation.limit", "evaluation.vote"),
)
TAKEN = ("model", "rollout", "evaluation", "task")  # from the run of a checkpoint
Telling = Callable[..., Callable[[Problem], Messages]]  # of a task's own way to ask, and the prompts of a model


@hydra.main(config_path=str(configuration.CONF), config_name="evaluate", version_base="1.3")
def main(composed: DictConfig) -> None:
    guarded(lambda: _evaluate(composed, HydraConfig.get().overrides.task))


def begin() -> None:
    """Do what the arguments of this process ask. Raises UserError."""
    job = commandline.job("evaluate")
    if job is None:
        main()
    else:
        _evaluate(*job)


def _evaluate(composed: DictConfig, words: Sequence[str] = ()) -> None:
    metrics, weighed = answer(composed, words)
    if configuration.rank() == 0:
        from resd.report.result import show

        show(metrics, weighed)


def answer(
    composed: DictConfig, words: Sequence[str], own: Task | None = None
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """The metrics that these settings, composed of the command's `words`, ask for, of the task `own` if there is one;
    and, if they ask what entries are worth, what `resd.measure.ablation` says of it.
    """
    told = configuration.checked(LibrarySettings, {key: composed[key] for key in LibrarySettings.model_fields})
    settings, out = settings_of(composed, words)
    from resd.context import library

    rules = library.load(told)
    if rules is not None and told.worth is not None:
        return weigh(settings, out, told, rules, own)
    telling = None if rules is None else partial(library.told, library=rules, placement=told.placement)
    return judge(settings, out, telling, own), None


def settings_of(composed: DictConfig, words: Sequence[str] = ()) -> tuple[Config, Path | None]:
    """The settings of an evaluation, and where to write it; of the model those of its run, but for what `words` say."""
    OmegaConf.set_struct(composed, False)
    said = named(words)
    refuse(said)
    if OmegaConf.is_missing(composed, "checkpoint"):
        raise UserError("checkpoint has no value: write checkpoint=RUN/checkpoints/step_N")
    own = configuration.checked(JudgeSettings, {key: composed.pop(key) for key in JudgeSettings.model_fields})
    checkpoint = Path(own.checkpoint).expanduser()
    if not own.checkpoint or (not checkpoint.exists() and own.checkpoint.count("/") != 1):
        raise UserError(f"checkpoint={own.checkpoint} does not exist: write checkpoint=RUN/checkpoints/step_N")
    folder = checkpoint / "model" if (checkpoint / "model").is_dir() else checkpoint
    if folder.name == "model" and (why := manifest.model_damage(folder.parent)) is not None:
        raise UserError(f"checkpoint={checkpoint} is damaged ({why}): choose another one")
    trained = trained_settings(folder)
    if trained:
        passed_over = take_over(composed, trained, said)
        if passed_over and configuration.rank() == 0:
            by_task = {key.startswith("task.") for key in passed_over}
            choices = {key: word for word in words if (key := key_value(word)[0]) in ("task", "model", "preset")}
            chosen = [word.lstrip("+") for key, word in choices.items() if (key == "task") in by_task]
            print(
                f"as in the run of {checkpoint}, not as {' '.join(chosen)} has it: "
                f"{', '.join(passed_over)}; write KEY=VALUE for what shall be otherwise",
                file=sys.stderr,
            )
    composed.model.path = str(folder)
    samples = f"evaluation.samples={composed.evaluation.samples}"
    if "evaluation.samples" not in said:
        composed.evaluation.samples = own.samples
    elif "samples" in said and samples != f"evaluation.samples={own.samples}":
        raise UserError(f"{samples} and samples={own.samples} are two answers to one question: write one of them")
    try:
        settings = configuration.validate(composed)
    except UserError as error:
        raise UserError(str(error).replace(f"model.path={folder}", f"checkpoint={checkpoint}")) from None
    if trained is None and configuration.rank() == 0:
        print(
            f"{checkpoint} does not say what its run told the model: model and rollout are those of this command",
            file=sys.stderr,
        )
    if configuration.rank() == 0 and (idle := unread(said)):
        print(f"for training, and not read by an evaluation: {', '.join(idle)}", file=sys.stderr)
    return settings, Path(own.out).expanduser() if own.out else None


def named(words: Sequence[str]) -> list[str]:
    """The settings and groups that the words of a command name, a mapping's settings one by one."""
    read = OverridesParser.create().parse_overrides(list(words))
    return [key for word in read for key in flat({key_value(str(word.input_line))[0]: word.value()})]


def refuse(said: Sequence[str]) -> None:
    """Raises UserError for what would do nothing, because an evaluation has another name for it or lacks the rest."""
    for key, instead in INSTEAD.items():
        if key in said:
            raise UserError(f"{key} is {instead} in an evaluation: leave it out, and write {instead}=VALUE")
    for key, wanted in WANTS.items():
        if key in said and wanted not in said:
            raise UserError(f"{key} does nothing without {wanted}: write {wanted}=VALUE as well, or leave {key} out")


def take_over(composed: DictConfig, trained: Mapping[str, Any], said: Sequence[str]) -> list[str]:
    """Take what a run asked its model, and how, but for settings that this command names; which of those that its
    choices of a task, a model or a preset would set are different then.
    """
    own = {key: OmegaConf.select(composed, key) for key in said if key.startswith(tuple(f"{each}." for each in TAKEN))}
    taken = {section: trained[section] for section in TAKEN}
    taken["evaluation"] = {key: trained["evaluation"][key] for key in ("temperature", "top_p")}
    if not {"task", "task.name"} & {*said}:
        composed.task = {}
    elif composed.task.name != trained["task"]["name"]:
        del taken["task"]

    changed: list[str] = []
    for section, values in taken.items():  # the task comes last, for how it asks follows from the model
        before = flat({section: OmegaConf.to_container(composed[section], resolve=True)})
        composed[section] = OmegaConf.merge(composed[section], values)
        for key in own:
            if key.startswith(f"{section}."):
                OmegaConf.update(composed, key, own[key])
        now = flat({section: OmegaConf.to_container(composed[section], resolve=True)})
        changed += [key for key, value in now.items() if before.get(key) != value and key != "model.path"]
    return [key for key in changed if {*said} & ({"task"} if key.startswith("task.") else {"model", "preset"})]


def unread(said: Sequence[str]) -> list[str]:
    """Those of the settings that a command names which an evaluation has no use for."""
    known = (*READ, *JudgeSettings.model_fields, "hydra")
    plain = [key for key in said if "/" not in key and key.partition("@")[0] not in GROUPS]
    return [key for key in plain if not any(key == name or key.startswith(f"{name}.") for name in known)]


def trained_settings(folder: Path) -> Any:
    """The configuration of the run that wrote a `model/` folder, or None: kept in it, or (older) in its run."""
    for file in (folder / "resd.yaml", folder.resolve().parent.parent.parent / "config.yaml"):
        if file.is_file():
            try:
                found = yaml.safe_load(file.read_text("utf-8"))
                if all(isinstance(found[section], dict) for section in TAKEN):
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
    task, problems = load_task(settings.task, "test", own=own)
    if out is not None and (out / "checkpoints").exists():
        raise UserError(f"out={out} is the directory of a training run: choose another out")
    with made_for(out, "out") if out is not None else nullcontext():
        check_judge(task, problems, settings.verify)
        return _judged(settings, out, task, problems, telling)


def weigh(
    settings: Config, out: Path | None, told: LibrarySettings, rules: Playbook, own: Task | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """What each entry of a library is worth, as numbers by name and as `worth.json` under `out` has it."""
    from resd.measure import worth

    worth.check(len(rules), told.worth or 0, told.left_out)
    check_world(settings)
    task, problems = load_task(settings.task, "test", own=own)
    with made_for(out, "out") if out is not None else nullcontext():
        check_judge(task, problems, settings.verify)
        return _weighed(settings, out, task, problems, told, rules)


def _weighed(
    settings: Config,
    out: Path | None,
    task: Task,
    problems: Sequence[Problem],
    told: LibrarySettings,
    rules: Playbook,
) -> tuple[dict[str, float], dict[str, Any]]:
    from resd import dist
    from resd.measure import ablation
    from resd.services import evaluation_session

    asked = settings.model_dump(
        mode="json",
        include={"task": True, "model": True, "rollout": True, "seed": True, "evaluation": ablation.SAMPLED},
    )
    with (
        dist.joined(settings.hardware.device, settings.hardware.threads),
        evaluation_session(settings, task, None) as run,
    ):
        record = ablation.ablate(run, problems, settings.evaluation, rules, told, asked, out)
        return ablation.metrics(record), record


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
            run.speech.check_turns(problems, ask)
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
    guarded(begin)
