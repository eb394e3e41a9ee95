"""Training and evaluation from Python: `resd.train`, `resd.evaluate` and what they give back.

    result = resd.train(task="manufactoria", algorithm="sdpo", steps=4, optimizer={"lr": 1e-4})
    result = resd.train(task, model="custom", **{"model.path": "FOLDER"})
    resd.evaluate(result.best, task, samples=8)

A keyword is what stands before `=` on the command line, groups included; settings of a section are written as a
dictionary, or with a dot. What is wrong is a `resd.UserError` in the words of the command line. A task is a name, or an
object of your own, as `resd.Task` makes them of functions; no `if __name__ == "__main__"` is needed.

Not covered: sweeps (write a loop), and several processes in one call (start the script with torchrun).
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resd.report.read import read_jsonl, read_run
from resd.report.rewards import scores
from resd.task import Task, check, scalar
from resd.types import UserError
from resd.word import key_value

EVALUATED = ("eval/", "part/", "transfer/")


@dataclass(frozen=True)
class Result:
    """What a run has come to.

    run_dir: the run's directory, absolute
    evaluations: metrics on the test split by the number of updates before them, named as in metrics.jsonl
    best: the best checkpoint, for `resd.evaluate` or `transformers` (its folder `model`); None if none was kept
    playbook: the text of playbook.md, empty if there is none
    """

    run_dir: Path
    evaluations: dict[int, dict[str, float]]
    best: Path | None
    playbook: str

    @classmethod
    def read(cls, run_dir: str | os.PathLike[str]) -> "Result":
        """That of any run directory, of a run that was ended early too. Raises UserError if it is none."""
        path = Path(run_dir).expanduser().absolute()
        found = read_run(path).evaluations
        evaluations = {
            step: {name: _number(value) for name, value in row.items() if name.startswith(EVALUATED)}
            for step, row in found.items()
        }
        link, playbook = path / "best", path / "playbook.md"
        best = path / link.readlink() if link.is_symlink() else link
        return cls(
            path,
            evaluations,
            best if best.is_dir() else None,
            playbook.read_text("utf-8") if playbook.is_file() else "",
        )

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl as they are now: `step`, `kind` (train, eval, forgetting), and numbers by name."""
        return list(read_jsonl(self.run_dir / "metrics.jsonl"))

    def __repr__(self) -> str:
        lines = [f"run {self.run_dir}"]
        for step, metrics in self.evaluations.items():
            lines.append(f"test after update {step}  {scores(metrics)}")
        lines.append(f"best {self.best.relative_to(self.run_dir)}" if self.best else "no checkpoint")
        return "\n".join(lines)


def train(task: Task | str | None = None, **overrides: Any) -> Result:
    """Run, or continue, what `python -m resd.train` would with these settings.

    task: a name, as on the command line, or an object (`resd.task.Task`)

    Raises UserError for what a user can mend. Interrupted, the same call with the same `run_dir` goes on at the last
    checkpoint.
    """
    from resd import commandline, config
    from resd.train import train as run

    composed = commandline.composed([*_words(task, overrides)], "config")
    settings = config.validate(composed)
    try:
        return Result.read(run(settings, _own(task)))
    except KeyboardInterrupt:
        print(f"stopped; the same call with run_dir={settings.run_dir!r} continues at the last checkpoint", flush=True)
        raise


def evaluate(
    checkpoint: str | os.PathLike[str],
    task: Task | str | None = None,
    *,
    samples: int = 4,
    out: str | os.PathLike[str] | None = None,
    **overrides: Any,
) -> dict[str, float]:
    """The metrics that `python -m resd.evaluate` prints, of a checkpoint on the test split of a task; with `worth=N`
    those of the entries of a library.

    checkpoint: one of a run, a `model/` folder of one, or any Hugging Face folder
    task: None is that of the run
    samples: responses to each problem
    out: a folder for the attempts and the metrics

    Raises UserError for what a user can mend.
    """
    from resd import commandline
    from resd.evaluate import answer

    words = [*_words(task, overrides | {"checkpoint": checkpoint, "samples": samples, "out": out})]
    metrics, _ = answer(commandline.composed(words, "evaluate"), words, _own(task))
    return metrics


def _own(task: Task | str | None) -> Task | None:
    return None if isinstance(task, str) else task


def _words(task: Task | str | None, overrides: Mapping[str, Any]) -> Iterator[str]:
    """What would be written on the command line."""
    named = task is None or isinstance(task, str)
    if isinstance(task, str):
        yield f"task={_value('task', task)}"
    elif task is not None:
        yield from ("task=custom", f"task.name={_value('task', _name(task))}")
    for key, value in overrides.items():
        section = key_value(key)[0].split(".")[0].split("/")[0]
        if section == "hydra":
            raise UserError(f"{key} is for the command line: leave it out, and write a loop for a sweep")
        if section == "task" and not named:
            raise UserError(f"{key} is for a task that is named: the one given has its options already")
        if isinstance(value, Mapping) and "." not in key:
            yield from (f"{key}.{name}={_value(f'{key}.{name}', inner)}" for name, inner in value.items())
        else:
            yield f"{key}={_value(key, value)}"


def _name(task: Any) -> str:
    """What the configuration calls an object. Raises UserError if it is no task."""
    if isinstance(task, type):
        raise UserError(f"task={task.__name__} is a class: write task={task.__name__}()")
    check(task, f"task={task!r:.80}")
    return str(getattr(task, "name", type(task).__name__))


def _value(key: str, value: Any) -> str:
    """`value` as Hydra's grammar has it, so that it is read as the same value. Raises UserError if there is no way."""
    from resd.advice import quoted

    value = scalar(value)
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str() | os.PathLike():
            return quoted(os.fspath(value))
        case Mapping():
            return "{" + ",".join(f"{name}:{_value(key, inner)}" for name, inner in value.items()) + "}"
        case Sequence() if not isinstance(value, bytes):
            return "[" + ",".join(_value(key, inner) for inner in value) + "]"
    raise UserError(
        f"{key}={value!r:.80} cannot be a setting: give a text, a number, True, False, None, a list or a dictionary"
    )


def _number(value: Any) -> float:
    """null stands for what is no number."""
    return math.nan if value is None else float(value)
