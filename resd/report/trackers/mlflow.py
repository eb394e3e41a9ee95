"""MLflow. Its names have no `@`: `eval/per_task/mean@4` is `eval/per_task/mean_at_4` there."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

BATCH = 100  # parameters in one request
CHARACTERS = 500  # of a parameter's value, which every version takes


class Mlflow:
    def __init__(self, id: str, client: MlflowClient) -> None:
        self.id, self.client = id, client

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        self.client.log_batch(self.id, [Metric(_name(key), value, now, step) for key, value in values.items()])

    def text(self, step: int, name: str, text: str) -> None:
        self.client.log_text(self.id, text, name)

    def close(self, ok: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if ok else "FAILED")


def begin(id: str | None, run_dir: Path, settings: Mapping[str, Any]) -> Mlflow:
    client = MlflowClient()
    if id is not None:
        client.update_run(id, status="RUNNING")
        return Mlflow(id, client)
    project = os.environ.get("MLFLOW_EXPERIMENT_NAME", "resd")
    known = client.get_experiment_by_name(project)
    run = client.create_run(known.experiment_id if known else client.create_experiment(project), run_name=run_dir.name)
    params = [Param(_name(key), str(value)[:CHARACTERS]) for key, value in settings.items()]
    for first in range(0, len(params), BATCH):
        client.log_batch(run.info.run_id, params=params[first : first + BATCH])
    return Mlflow(run.info.run_id, client)


def _name(key: str) -> str:
    return re.sub(r"[^\w./ -]", "_", key.replace("@", "_at_"))
