"""Where a run can be watched beside TensorBoard: wandb, MLflow, trackio, one file each, through their own libraries.

Projects, addresses and keys are what a library reads from its own environment variables (`WANDB_PROJECT`,
`MLFLOW_TRACKING_URI`, `TRACKIO_DIR`, …); the project is `resd` where they name none. `resd.report.tracking` calls them.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

LIBRARIES = {"wandb": "wandb", "mlflow": "mlflow-skinny", "trackio": "trackio"}  # import name: what pip installs


class Tracker(Protocol):
    """One run there. `id` is what it takes to go on with it."""

    id: str

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def text(self, step: int, name: str, text: str) -> None: ...

    def close(self, ok: bool) -> None: ...


def begin(name: str, id: str | None, run_dir: Path, settings: Mapping[str, Any]) -> Tracker:
    """A run there with these flat settings, or the one with this id again."""
    return importlib.import_module(f"{__name__}.{name}").begin(id, run_dir, settings)
