"""Reads a run directory: settings, metrics, attempts and the history of its playbook.

Everything may be missing but `metrics.jsonl` or `worth.json`. A line that a kill cut in half is left out, as resuming
does.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from resd import files
from resd.report.matrix import Matrix
from resd.types import UserError

WORTH = "worth.json"
# Phases that belong to training; evaluations and checkpoints are a matter of how often one looks.
PHASES = ("rollout", "verify", "reflect", "tag", "curate", "teacher", "update", "sync")


@dataclass(frozen=True)
class Timeline:
    """Every number a run logged, one column a metric; all columns have the length of `steps`.

    `seconds` is the sum of the training phases so far, `interactions` the verified attempts so far, `tokens` those in
    their responses, None where lengths are unknown.
    """

    steps: list[int]
    interactions: list[float]
    tokens: list[float] | None
    seconds: list[float]
    columns: dict[str, list[float | None]]


@dataclass(frozen=True)
class RunRecord:
    """One run directory. `config` is empty if it has no config.yaml (the output of `resd.evaluate`)."""

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)

    def named(self, label: str) -> str:
        """The method that `label` names, and the seed."""
        return f"{label}, seed {self.config['seed']}" if "seed" in self.config else label

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """metrics.jsonl, in order."""
        return [
            row for row in read_jsonl(self.path / "metrics.jsonl") if isinstance(row.get("step"), int) and "kind" in row
        ]

    @property
    def evaluations(self) -> dict[int, dict[str, Any]]:
        """Metrics of the evaluation after each update that had one."""
        return {row["step"]: row for row in self.rows if row["kind"] == "eval"}

    @property
    def samples(self) -> int | None:
        """The n of mean@n of the latest evaluation; None without one."""
        names = (name for step in sorted(self.evaluations, reverse=True) for name in self.evaluations[step])
        found = (name.split("@")[1] for name in names if name.startswith("eval/per_task/mean@"))
        return next(map(int, found), None)

    @property
    def matrix(self) -> Matrix | None:
        """The forgetting matrix of a sequence of tasks; None of any other task."""
        return Matrix.of(self.evaluations)

    @property
    def kept_best(self) -> int | None:
        """The update whose checkpoint the link `best` names; None without one."""
        link = self.path / "best"
        name = link.readlink().name.removeprefix("step_") if link.is_symlink() and link.exists() else ""
        return int(name) if name.isdigit() else None

    @cached_property
    def timeline(self) -> Timeline:
        steps = sorted({row["step"] for row in self.rows})
        place = {step: i for i, step in enumerate(steps)}
        columns: dict[str, list[float | None]] = {}
        seconds = [0.0] * len(steps)
        for row in self.rows:
            for name, value in row.items():
                if name not in ("step", "kind") and isinstance(value, int | float):
                    columns.setdefault(name, [None] * len(steps))[place[row["step"]]] = value
            seconds[place[row["step"]]] += sum(row.get(f"time/{phase}", 0.0) for phase in PHASES)
        interactions: list[float] = []
        total = 0.0
        for value in columns.get("interactions", [None] * len(steps)):
            total = total if value is None else value
            interactions.append(total)
        lengths = columns.get("response/length")
        fresh = [now - before for now, before in zip(interactions, [0.0, *interactions][:-1], strict=True)]
        written = [n * (length or 0.0) for n, length in zip(fresh, lengths or [], strict=bool(lengths))]
        tokens = list(accumulate(written)) if lengths else None
        return Timeline(steps, interactions, tokens, list(accumulate(seconds)), columns)

    @property
    def attempt_steps(self) -> list[int]:
        """Updates whose attempts were kept; 0 for those of an evaluation."""
        return self.kept_steps("attempts")

    def attempts(self, step: int) -> list[dict[str, Any]]:
        """Attempts of one update, as `resd.report.samples` writes them."""
        return self.kept("attempts", step)

    def kept_steps(self, folder: str) -> list[int]:
        """Updates with a file in `attempts` or `evaluations`."""
        return list(files.numbered(self.path / folder, ".jsonl"))

    def kept(self, folder: str, step: int) -> list[dict[str, Any]]:
        """What that file holds."""
        return list(read_jsonl(self.path / folder / f"step_{step:06d}.jsonl"))

    @cached_property
    def _events(self) -> list[dict[str, Any]]:
        return [event for event in read_jsonl(self.path / "playbook.jsonl") if isinstance(event.get("step"), int)]

    @cached_property
    def playbook(self) -> list[dict[str, Any]]:
        """The life of every entry: `id section text parents attempt shelf born removed reason tags`, in order of birth.

        `attempt` is the id of the one it was learned from, null if unknown; `removed` is null for an entry that is
        still there; `tags` are (step, tag, id of the attempt or null).
        """
        entries: dict[str, dict[str, Any]] = {}
        shelf = ""
        for event in self._events:
            kind, id = event.get("event"), event.get("id")
            if kind == "start":
                entries, shelf = _begun(event["state"]), event["state"].get("shelf", "")
            elif kind == "turn":
                shelf = str(id)
            elif kind == "add":
                entry = {name: event.get(name) for name in ("id", "section", "text", "parents", "attempt")}
                life = {"shelf": shelf, "born": event["step"], "removed": None, "reason": None, "tags": []}
                entries[str(id)] = entry | life
            elif kind == "tag" and id in entries:
                entries[id]["tags"].append((event["step"], event["tag"], event.get("attempt")))
            elif kind == "remove" and id in entries:
                entries[id] |= {"removed": event["step"], "reason": event.get("reason")}
        return list(entries.values())

    @cached_property
    def turns(self) -> list[tuple[int, str]]:
        """Since which update the playbook shows which shelf; empty for a playbook of one."""
        return [(event["step"], str(event.get("id"))) for event in self._events if event.get("event") == "turn"]

    @cached_property
    def worth(self) -> dict[str, Any] | None:
        """worth.json, of a finished measurement (`resd.measure.ablation`). Raises UserError for what is none."""
        file = self.path / WORTH
        if not file.is_file():
            return None
        try:
            with reading(file):
                found = json.loads(file.read_text("utf-8"))
            return dict(found) if found["sets"] and "entries" in found else None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file} is not what `resd evaluate worth=N` writes: restore it, or remove it") from None


def has_something(path: Path) -> bool:
    """Whether a directory is that of a run, or of what the entries of a library are worth."""
    with reading(path):
        return any((path / name).is_file() for name in ("metrics.jsonl", WORTH))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or path} cannot be read ({error.strerror}): mend this, or leave the run out"
        ) from None


def _begun(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The lives so far of the entries that a branch of another run began with; who gave their tags is not known."""
    shelves = {state.get("shelf", ""): state["entries"], **state.get("shelves", {})}
    return {
        entry["id"]: {name: entry.get(name) for name in ("id", "section", "text", "parents")}
        | {"attempt": None, "shelf": shelf, "born": entry["created"], "removed": None, "reason": None}
        | {"tags": [(entry["last_tagged"], tag, None) for tag in ("helpful", "harmful") for _ in range(entry[tag])]}
        for shelf, entries in shelves.items()
        for entry in entries
    }


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs, each directory once. Raises UserError for what is not a run directory."""
    unique = {path.expanduser().resolve(): path for path in paths}
    return [read_run(path) for path in unique.values()]


def read_run(path: Path) -> RunRecord:
    """Raises UserError if `path` holds no metrics.jsonl and no worth.json, or a config.yaml that is none."""
    path = path.expanduser()
    if not has_something(path):
        raise UserError(f"{path} is not a run directory (no metrics.jsonl): give the run_dir of a training run")
    file = path / "config.yaml"
    if not file.is_file():
        return RunRecord(path)
    try:
        with reading(file):
            config = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{file} is not a configuration: restore it from the run, or remove it")
    return RunRecord(path, config)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a JSONL file, none if there is no file."""
    if not path.is_file():
        return
    with reading(path), path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value
