"""Where a run begins or goes on: the checkpoint, what it holds, and what is to be said of it. Changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resd import config
from resd.config import Config
from resd.observe.stream import Fingerprint, check_same_problems
from resd.storage import checkpoint
from resd.storage.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Start:
    """`state` is what `run.json` of `checkpoint` holds, or that of a run that has made no update (None)."""

    checkpoint: Path | None
    state: dict[str, Any]
    lr_scale: float
    damaged: list[str]
    changes: list[str] = field(default_factory=list)


def find(directory: RunDir, settings: Config, problems: Mapping[str, Fingerprint]) -> Start:
    """Raises UserError if the directory holds another run than `settings` and `problems` make. Collective."""
    rollbacks = directory.rollbacks()
    begun = [record["to"] for record in rollbacks if not record["done"]]
    found, damaged = checkpoint.find(directory.path, settings.resume, *begun[-1:])
    state: dict[str, Any] = {"step": 0, "interactions": 0, "evaluations": {}}
    changes: list[str] = []
    if found:
        state = checkpoint.read_run(found)
        changes = config.check_same_run(directory.path, settings, found)
        check_same_problems(f"run_dir={directory.path}", state.get("problems", {}), problems)
    directory.check(found, state["step"], fresh=settings.resume == "never")
    return Start(found, state, rollbacks[-1]["lr_scale"] if rollbacks else 1.0, damaged, changes)
