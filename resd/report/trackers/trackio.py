"""trackio, which keeps runs in a folder of its own (`TRACKIO_DIR`)."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio


class Trackio:
    def __init__(self, id: str, run: Any) -> None:
        self.id, self.run = id, run

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        self.run.log({f"text/{name}": trackio.Markdown(text)}, step=step)

    def close(self, ok: bool) -> None:
        self.run.finish()


def begin(id: str | None, run_dir: Path, settings: Mapping[str, Any]) -> Trackio:
    """A run is named there, hence a name that no other one has."""
    id = id or f"{run_dir.name}-{uuid.uuid4().hex[:8]}"
    project = os.environ.get("TRACKIO_PROJECT", "resd")
    return Trackio(id, trackio.init(project=project, name=id, config=dict(settings), resume="allow", embed=False))
