"""What is called the best update has a checkpoint: kept while it is the best, after kills and after going back."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_train import of_kind, run
from torch.distributed.device_mesh import DeviceMesh

from resd.files import numbered
from resd.measure import exam
from resd.report.groups import checkpoints, group_runs
from resd.report.ranking import METRICS
from resd.report.read import read_run
from resd.session import Session
from resd.types import UserError

RUN = ["batch_size=2", "inner_updates=1", "epochs=3", "evaluation.every=1", "evaluation.limit=1"]
RUN += ["checkpoints.every=3", "checkpoints.keep=1"]
Script = Callable[[Mapping[int, float]], None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Evaluations find what they are told to: all four metrics of an update the same."""
    told: dict[int, float] = {}
    take, evaluate, now = exam.Exam.evaluate, exam.evaluate, [0]

    def noted(self: exam.Exam, run: Any, *arguments: Any) -> None:
        now[0] = run.step
        take(self, run, *arguments)

    def scripted(*arguments: Any) -> Any:
        return {name.format(n=2): told[now[0]] for name in METRICS}, evaluate(*arguments)[1]

    monkeypatch.setattr(exam.Exam, "evaluate", noted)
    monkeypatch.setattr(exam, "evaluate", scripted)
    return told.update


def kept(run_dir: Path) -> list[int]:
    return list(numbered(run_dir / "checkpoints"))


def named_best(run_dir: Path) -> int:
    """By the link, which must lead to a whole checkpoint of an update that the report calls the best."""
    link = run_dir / "best"
    assert (link / "model/config.json").is_file()
    step = json.loads((link / "state/run.json").read_text())["step"]
    (group,) = group_runs([read_run(run_dir)])
    (best,) = [found for found in checkpoints(group) if found.name == "best"]
    assert best.steps == [step]
    return step


def test_a_new_best_is_saved_and_spared_between_scheduled_checkpoints(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script({0: 0.9, 1: 0.1, 2: 0.5, 3: 0.3, 4: 0.2, 5: 0.4, 6: 0.1})
    run(tiny_model, tmp_path, *RUN, "steps=6")
    assert kept(tmp_path) == [2, 6]
    assert named_best(tmp_path) == 2
    assert "update 2 (best)" in capsys.readouterr().out


def test_a_kill_between_evaluation_and_checkpoint(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script({0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3, 4: 0.9, 5: 0.5, 6: 0.1})
    save = Session._save

    def killed(self: Session) -> None:
        if self.run.step == 4:
            raise KeyboardInterrupt
        save(self)

    monkeypatch.setattr(Session, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path, *RUN, "steps=6")
    assert of_kind([json.loads(line) for line in (tmp_path / "metrics.jsonl").open()], "eval")[-1]["step"] == 4
    assert (kept(tmp_path), named_best(tmp_path)) == ([3], 3)
    monkeypatch.setattr(Session, "_save", save)
    rows = run(tiny_model, tmp_path, *RUN, "steps=6")
    assert [row["step"] for row in of_kind(rows, "eval")] == [0, 1, 2, 3, 4, 5, 6]
    assert (kept(tmp_path), named_best(tmp_path)) == ([4, 6], 4)


def test_going_back_behind_the_best_leaves_the_best_that_is_there(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, script: Script
) -> None:
    """Update 1 was the best until 4, and went; back at 3 it cannot be called the best again, nor keep 5 from it."""
    script({0: 0.0, 1: 0.8, 2: 0.2, 3: 0.3, 4: 0.9})
    run(tiny_model, tmp_path, *RUN, "steps=4", "checkpoints.keep=2")
    assert kept(tmp_path) == [3, 4]
    script({4: 0.1, 5: 0.5, 6: 0.2})
    run(tiny_model, tmp_path, *RUN, "steps=6", "checkpoints.keep=2", f"resume={tmp_path}/checkpoints/step_000003")
    assert (kept(tmp_path), named_best(tmp_path)) == ([5, 6], 5)


def test_the_link_is_mended_when_a_run_goes_on(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill after a checkpoint was renamed and before the link was set; another one before the next checkpoint."""
    script({0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3, 4: 0.2})
    run(tiny_model, tmp_path, *RUN, "steps=3", "checkpoints.keep=3")
    (tmp_path / "best").unlink()
    (tmp_path / "best").symlink_to("checkpoints/step_000001")

    def killed(self: Session) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path, *RUN, "steps=4", "checkpoints.keep=3")
    assert named_best(tmp_path) == 3


def test_a_run_directory_without_links_is_ranked_by_its_evaluations(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, script: Script
) -> None:
    script({0: 0.0, 1: 0.4, 2: 0.2})
    run(tiny_model, tmp_path / "run", *RUN, "steps=2")
    copied = Path(shutil.copytree(tmp_path / "run", tmp_path / "copied"))  # the link has become a folder
    (group,) = group_runs([read_run(copied)])
    assert [found.steps for found in checkpoints(group) if found.name == "best"] == [[1]]


PATIENT = [*RUN, "evaluation.patience=2", "steps=9"]


def test_a_run_ends_when_nothing_better_comes(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order: a last checkpoint and the table; the same command finds nothing to do, more patience goes on."""
    script({0: 0.9, 1: 0.2, 2: 0.1, 3: 0.3, 4: 0.3, 5: 0.1, 6: 0.4, 7: 0.0, 8: 0.0, 9: 0.0})
    run(tiny_model, tmp_path, *PATIENT)
    said = capsys.readouterr().out
    assert "stopping after update 5: 2 evaluations without a new best since update 3" in said
    assert "update 3 (best)" in said
    assert (kept(tmp_path), named_best(tmp_path)) == ([3, 5], 3)
    run(tiny_model, tmp_path, *PATIENT)
    assert "nothing to do: 2 evaluations without a new best" in capsys.readouterr().out
    assert kept(tmp_path) == [3, 5]
    rows = run(tiny_model, tmp_path, *PATIENT, "evaluation.patience=3")
    assert of_kind(rows, "train")[-1]["step"] == 9
    assert named_best(tmp_path) == 6


def test_patience_survives_a_kill(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script({0: 0.9, 1: 0.2, 2: 0.1, 3: 0.1, 4: 0.1, 5: 0.1})
    evaluate = Session._evaluate

    def killed(self: Session) -> None:
        if self.run.step == 3:
            raise KeyboardInterrupt
        evaluate(self)

    monkeypatch.setattr(Session, "_evaluate", killed)
    patient = [*PATIENT, "checkpoints.every=2", "checkpoints.keep=9"]
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path, *patient)
    monkeypatch.setattr(Session, "_evaluate", evaluate)
    assert kept(tmp_path) == [1, 2]
    rows = run(tiny_model, tmp_path, *patient)
    assert of_kind(rows, "train")[-1]["step"] == 3
    assert kept(tmp_path) == [1, 2, 3]


def test_patience_needs_evaluations(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"write evaluation\.every=N"):
        run(tiny_model, tmp_path, "evaluation.patience=1", "evaluation.every=0")
