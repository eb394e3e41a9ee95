"""What a run that ends early leaves behind, and what it says how to go on with it."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import command
import pytest
import test_train
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from resd import again, train
from resd.folder import made_for, take_back
from resd.session import Session
from resd.types import UserError


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["resd.train", "task=local", "task.options.noun=a word", "+resume=never", "run_dir=old", "--config-dir=it's"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "resd.train", *argv[1:]])
    for name in ("TORCHELASTIC_RUN_ID", "GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_the_command_has_the_words_and_the_real_directory(words: None, monkeypatch: pytest.MonkeyPatch) -> None:
    said = shlex.split(again.command(Path("runs/it's a=b")))
    assert said[:3] == ["python", "-m", "resd.train"]
    assert said[3:] == ["task=local", "task.options.noun=a word", "--config-dir=it's", 'run_dir="runs/it\'s a=b"']
    monkeypatch.setattr(sys, "orig_argv", ["python", "/usr/bin/resd", "train", "task=local"])
    assert again.command(Path("runs/x")).startswith("resd train task=local ")
    assert again.command(Path("runs/x-1_2")).endswith(" run_dir=runs/x-1_2")
    assert again.command(Path("2024")).endswith(" 'run_dir=\"2024\"'")


def test_the_command_of_several_processes(words: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert again.command(Path("r")).startswith("torchrun -m resd.train ")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert again.command(Path("r")).startswith("torchrun --nproc-per-node 8 -m resd.train ")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert "on each machine, as before" in again.command(Path("r"))


def test_a_stopped_run_goes_on_with_the_command_that_it_says(
    mesh: DeviceMesh,
    tiny_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir, save = tmp_path / "it's a=b", Session._save

    def stop_after_saving(session: Session) -> None:
        save(session)
        session.checkpoints.wait()
        if session.run.step == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Session, "_save", stop_after_saving)
    given = (f"model.path={tiny_model}", f"run_dir={run_dir}", "checkpoints.every=1", "on_empty=warn")
    stopped = command.train(capfd, *given)
    assert stopped.status == 130
    advice = stopped.err.strip().rpartition("go on where it was with: python -m resd.train ")[2]
    went_on = command.train(capfd, *shlex.split(advice))
    assert went_on.status == 0, went_on.err
    assert "continuing after update 1" in went_on.out
    assert [row["step"] for row in command.rows(run_dir) if row["kind"] == "train"] == [1, 2]


def test_a_failed_start_leaves_no_directory(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir, impossible = tmp_path / "runs/mine", (f"model.path={tiny_model}", "rollout.max_prompt=5")
    failed = command.train(capfd, *impossible, f"run_dir={run_dir}")
    assert (failed.status, failed.err.count("\n")) == (2, 1)
    assert not run_dir.parent.exists()
    run_dir.mkdir(parents=True)
    assert command.train(capfd, *impossible, f"run_dir={run_dir}").status == 2
    assert run_dir.exists()


def test_a_run_that_is_told_to_stop_before_its_first_result_leaves_no_directory(
    tiny_model: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "runs/mine"
    words = test_train.command(tiny_model, run_dir, "task.name=rundir_tasks:Told")
    stopped = {**test_train.environment(), "RESD_TEST_STOPPED": str(run_dir)}
    done = subprocess.run(words, env=stopped, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert done.stderr.endswith("there is nothing to go on with\n")
    assert not run_dir.parent.exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_every_rank_knows_whether_there_is_a_run_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(sys, "argv", ["train"])
    run_dir = tmp_path / "mine"
    run_dir.mkdir()
    for result, said in (("", "there is nothing to go on with"), ("attempts.jsonl", "go on where it was with")):
        (run_dir / result).touch()
        with made_for(run_dir):
            again.remember(run_dir)
            take_back()
        assert again.advice().startswith(said)
        assert run_dir.exists()  # it was there before


def test_what_a_kill_leaves_of_a_start_is_begun_again(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also with other settings, and by who wants no run in it."""
    for folder in ("attempts", "evaluations", "checkpoints/.step_000001", "tensorboard"):
        (tmp_path / "run" / folder).mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text("seed: 1\n")
    for name in (".lock", "tensorboard/events"):
        (tmp_path / "run" / name).touch()
    given = (f"model.path={tiny_model}", f"run_dir={tmp_path / 'run'}", "resume=never", "seed=2", "on_empty=warn")
    done = command.train(capfd, *given, "steps=1")
    assert done.status == 0, done.err
    assert [row["step"] for row in command.rows(tmp_path / "run") if row["kind"] == "train"] == [1]


def test_a_log_without_a_row_and_empty_folders_are_worth_nothing(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    def fail() -> None:
        with made_for(run_dir):
            for folder in ("attempts", "evaluations", "checkpoints"):
                (run_dir / folder).mkdir()
            (run_dir / "metrics.jsonl").touch()
            raise UserError("no")

    with pytest.raises(UserError, match="no"):
        fail()
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("result", "stays"),
    [
        ("config.yaml", False),
        ("tensorboard/events", False),
        (".lock", False),
        ("metrics.jsonl", True),
        ("attempts/step_000001.jsonl", True),
        ("checkpoints/step_000001/manifest.json", True),
        ("notes.txt", True),
    ],
)
def test_what_is_worth_keeping_stays(result: str, stays: bool, tmp_path: Path) -> None:
    def fail() -> None:
        with made_for(tmp_path / "a/b"):
            (tmp_path / "a/b" / result).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "a/b" / result).write_text("x")
            raise UserError("no")

    with pytest.raises(UserError, match="no"):
        fail()
    assert (tmp_path / "a/b").exists() == (tmp_path / "a").exists() == stays


def test_torchruns_report_ends_with_the_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, handler = tmp_path / "error.json", signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))

    def fail() -> Any:
        raise UserError("write steps=4")

    try:
        with pytest.raises(SystemExit):
            train.guarded(fail)
    finally:
        signal.signal(signal.SIGTERM, handler)
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(file))
    assert "write steps=4" in ChildFailedError("resd.train", {0: failure}).format_msg().partition("Root Cause")[2]
    assert json.loads(file.read_text())
