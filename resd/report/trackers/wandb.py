"""Weights & Biases. Curves are drawn over `step`, so that a run that goes back writes again what it wrote before."""

import html
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb


class Wandb:
    def __init__(self, id: str, run: Any) -> None:
        self.id, self.run = id, run

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({**values, "step": step})

    def text(self, step: int, name: str, text: str) -> None:
        self.run.log({f"text/{name}": wandb.Html(f"<pre>{html.escape(text)}</pre>"), "step": step})

    def close(self, ok: bool) -> None:
        self.run.finish(exit_code=0 if ok else 1)


def begin(id: str | None, run_dir: Path, settings: Mapping[str, Any]) -> Wandb:
    id = id or uuid.uuid4().hex
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "resd"),
        id=id,
        name=os.environ.get("WANDB_NAME", run_dir.name),
        dir=run_dir,
        config=dict(settings),
        resume="allow",
        reinit="create_new",  # another run of this process may have one
        settings=wandb.Settings(console="off"),
    )
    run.define_metric("*", step_metric="step")
    return Wandb(id, run)
