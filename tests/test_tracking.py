"""Trackers: what a run hands to them, real ones without a network, and those that fail or hang."""

import importlib.util
import json
import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_config import load
from test_train import run
from torch.distributed.device_mesh import DeviceMesh

from resd.report import trackers, tracking
from resd.report.tracking import Tracking
from resd.types import UserError


class Spy:
    """Takes everything, but `metrics` of the steps that it refuses."""

    def __init__(self, id: str, refused: Callable[[int], bool] = lambda step: False) -> None:
        self.id, self.refused = id, refused
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.texts: list[tuple[int, str, str]] = []
        self.ended: bool | None = None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if self.refused(step):
            raise OSError(28, "No space left on device")
        self.rows.append((step, values))

    def text(self, step: int, name: str, text: str) -> None:
        self.texts.append((step, name, text))

    def close(self, ok: bool) -> None:
        self.ended = ok


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, Spy, dict[str, Any]]]:
    """What was opened: name, the id that was asked for, the tracker, its settings."""
    found: list[tuple[str, str | None, Spy, dict[str, Any]]] = []

    def begin(name: str, id: str | None, run_dir: Path, settings: Mapping[str, Any]) -> Spy:
        found.append((name, id, Spy(id or f"{name}-1"), dict(settings)))
        return found[-1][2]

    monkeypatch.setattr(trackers, "begin", begin)
    installed(monkeypatch, object())
    return found


def installed(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    """What Python knows of each tracker's library."""
    find = importlib.util.find_spec
    known = lambda name, *a: spec if name in trackers.LIBRARIES else find(name, *a)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", known)


def test_a_run_is_tracked_and_goes_on_as_the_same_one(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, opened: list[Any]
) -> None:
    few = ["batch_size=2", "evaluation.limit=1", "evaluation.before=false"]
    rows = run(tiny_model, tmp_path, *few, "steps=1", "trackers=[wandb,mlflow]")
    # Each is opened in a thread of its own, so either may be first.
    assert sorted((name, asked) for name, asked, _, _ in opened) == [("mlflow", None), ("wandb", None)]
    for _, _, spy, settings in opened:
        logged = [(row["step"], {k: v for k, v in row.items() if k not in ("step", "kind")}) for row in rows]
        assert spy.rows == [(step, {k: v for k, v in values.items() if v is not None}) for step, values in logged]
        assert spy.texts == [(1, "playbook.md", (tmp_path / "playbook.md").read_text())]
        assert (settings["optimizer.lr"], settings["batch_size"], spy.ended) == (1e-3, 2, True)
    run(tiny_model, tmp_path, *few, "steps=2", "trackers=[mlflow]")
    assert opened[-1][:2] == ("mlflow", "mlflow-1")
    assert [step for step, _ in opened[-1][2].rows] == [2, 2]
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": "wandb-1", "mlflow": "mlflow-1"}


def track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *spies: Spy) -> tuple[Tracking, list[str]]:
    said: list[str] = []
    byname = {spy.id: spy for spy in spies}
    monkeypatch.setattr(trackers, "begin", lambda name, id, run_dir, settings: byname[name])
    return Tracking(list(byname), tmp_path, {}, said.append), said


def test_one_that_fails_is_said_once_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = Spy("bad", lambda step: step in (2, 3, 5, 6)), Spy("good")
    tracked, said = track(tmp_path, monkeypatch, bad, good)
    for step in range(1, 9):
        tracked.metrics(step, {"loss": step, "nan": math.nan})
    tracked.close(ok=False)
    assert [step for step, _ in bad.rows] == [1, 4, 7, 8]
    assert good.rows == [(step, {"loss": step}) for step in range(1, 9)]
    assert (bad.ended, good.ended) == (False, False)
    assert said == [
        "tracker bad failed (No space left on device); the run goes on without it",
        "tracker bad did not take 4 write(s); metrics.jsonl has everything",
    ]


def test_one_that_keeps_failing_is_asked_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Spy("bad", lambda step: step < 4)
    tracked, said = track(tmp_path, monkeypatch, bad)
    for step in range(1, 6):
        tracked.metrics(step, {"loss": step})
    tracked.close()
    assert bad.rows == []
    assert said[-1] == "tracker bad did not take 6 write(s); metrics.jsonl has everything"


def test_one_that_cannot_begin_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def refuse(*arguments: Any) -> Any:
        raise RuntimeError("no key\nand more")

    monkeypatch.setattr(trackers, "begin", refuse)
    tracked = Tracking(["wandb"], tmp_path, {}, said.append)
    tracked.metrics(1, {"loss": 1.0})
    tracked.close()
    assert said[0] == "tracker wandb failed (no key); the run goes on without it"
    assert not (tmp_path / "trackers.json").exists()


def test_one_that_hangs_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going = threading.Event()
    hanging, good = Spy("hanging", lambda step: not going.wait(60)), Spy("good")
    tracked, said = track(tmp_path, monkeypatch, hanging, good)
    tracked.metrics(1, {"loss": 1.0})
    tracked.threads[1].close()
    assert [step for step, _ in good.rows] == [1]
    monkeypatch.setattr(tracking, "SECONDS", 0.1)
    tracked.threads[0].close()
    going.set()
    assert said == ["tracker hanging did not finish in 0 s and is left; metrics.jsonl has everything"]


def test_a_library_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, None)
    with pytest.raises(UserError, match=r"needs mlflow, which is not installed: pip install mlflow-skinny"):
        load("trackers=[mlflow]")
    with pytest.raises(UserError, match="trackers"):
        load("trackers=[weights]")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a library may be long in coming."""
    monkeypatch.setattr(tracking, "SECONDS", 900.0)


FEW = {"loss": 1.5, "eval/per_task/mean@4": 0.25}


def test_mlflow_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    said: list[str] = []
    for step in (1, 2):
        tracked = Tracking(["mlflow"], tmp_path, {"optimizer.lr": 1e-3, "task.options.a&b": None}, said.append)
        tracked.metrics(step, FEW)
        tracked.text(step, "playbook.md", f"after {step}")
        tracked.close()
    assert said == []
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("resd").experiment_id])
    assert found.data.params == {"optimizer.lr": "0.001", "task.options.a_b": "None"}
    assert found.info.status == "FINISHED"
    for name, value in (("loss", 1.5), ("eval/per_task/mean_at_4", 0.25)):
        history = client.get_metric_history(found.info.run_id, name)
        assert [(point.step, point.value) for point in history] == [(1, value), (2, value)]
    assert mlflow.artifacts.load_text(f"{found.info.artifact_uri}/playbook.md") == "after 2"


def test_wandb_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    said: list[str] = []
    for step in (1, 2):
        tracked = Tracking(["wandb"], tmp_path, {"optimizer.lr": 1e-3}, said.append)
        tracked.metrics(step, FEW)
        tracked.text(step, "playbook.md", f"after {step} <b>")
        tracked.close()
    assert said == []
    id = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    files = list(tmp_path.glob(f"wandb/offline-run-*/run-{id}.wandb"))
    assert len(files) == 2
    assert all(b"eval/per_task/mean@4" in file.read_bytes() for file in files)
    texts = sorted(file.read_text() for file in tmp_path.glob("wandb/offline-run-*/files/media/html/**/*.html"))
    assert ["after 1 &lt;b&gt;" in texts[0], "after 2 &lt;b&gt;" in texts[1]] == [True, True]


def test_trackio_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    said: list[str] = []
    for step in (1, 2):
        tracked = Tracking(["trackio"], tmp_path, {"optimizer.lr": 1e-3}, said.append)
        tracked.metrics(step, FEW)
        tracked.text(step, "playbook.md", f"after {step}")
        tracked.close()
    assert said == []
    (found,) = trackio.Api().runs("resd")
    assert found.name == json.loads((tmp_path / "trackers.json").read_text())["trackio"]
    assert list((tmp_path / "trackio").rglob("*"))
