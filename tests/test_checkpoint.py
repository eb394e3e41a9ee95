"""Checkpoints that are damaged, foreign, abandoned or not written, and what a run does about them."""

import json
import pickle
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import SMALL, environment, of_kind, run, same_end, weights
from torch.distributed.device_mesh import DeviceMesh

from resd import config
from resd.observe.stream import check_same_problems
from resd.session import Session
from resd.storage import checkpoint, manifest
from resd.storage.shards import read_metadata
from resd.types import UserError

MORE = ["batch_size=2", "evaluation.every=1", "evaluation.limit=2", "checkpoints.keep=9"]


def go(model: Path, run_dir: Path, *overrides: str) -> list[dict[str, Any]]:
    return run(model, run_dir, *MORE, *overrides)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 16] = bytes(255 - byte for byte in content[middle : middle + 16])
    path.write_bytes(content)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "flipped shard": ("state/__0_0.distcp has changed", lambda c: flip(c / "state/__0_0.distcp")),
    "halved shard": ("state/__0_0.distcp has", lambda c: halve(c / "state/__0_0.distcp")),
    "missing shard": ("state/__0_0.distcp is missing", lambda c: (c / "state/__0_0.distcp").unlink()),
    "flipped model": ("model/model.safetensors has changed", lambda c: flip(c / "model/model.safetensors")),
    "missing config": ("model/config.json is missing", lambda c: (c / "model/config.json").unlink()),
    "missing run.json": ("run.json is missing", lambda c: (c / "state/run.json").unlink()),
    "empty run.json": ("run.json is not readable", lambda c: (c / "state/run.json").write_text("")),
    "run.json of a list": ("run.json is not readable", lambda c: (c / "state/run.json").write_text("[1]")),
    "halved metadata": (".metadata is not a checkpoint's", lambda c: halve(c / "state/.metadata")),
    "missing metadata": (".metadata is missing", lambda c: (c / "state/.metadata").unlink()),
    "missing manifest": ("manifest.json is missing", lambda c: (c / manifest.NAME).unlink()),
    "broken manifest": ("manifest.json is not readable", lambda c: (c / manifest.NAME).write_bytes(b"\xff{")),
    "no state": ("run.json is missing", lambda c: shutil.rmtree(c / "state")),
    "emptied": ("run.json is missing", lambda c: (shutil.rmtree(c), c.mkdir())[0]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(run_dir: Path, damage: str) -> None:
    says, inflict = DAMAGES[damage]
    last = run_dir / "checkpoints/step_000003"
    assert checkpoint.find(run_dir, "auto") == (last, [])
    inflict(last)
    found, (told,) = checkpoint.find(run_dir, "auto")
    assert found == run_dir / "checkpoints/step_000002"
    assert "step_000003 is damaged" in told
    assert says in told
    with pytest.raises(UserError, match="write resume=auto") as caught:
        checkpoint.find(run_dir, str(last))
    assert says in str(caught.value)


def test_nothing_whole_is_not_begun_again(run_dir: Path) -> None:
    for folder in (run_dir / "checkpoints").iterdir():
        halve(folder / "state/run.json")
    with pytest.raises(UserError, match="has no whole checkpoint"):
        checkpoint.find(run_dir, "auto")


def test_a_checkpoint_without_checksums_from_before_them(
    mesh: DeviceMesh, tiny_model: Path, run_dir: Path, finished: Path
) -> None:
    older = run_dir / "checkpoints/step_000003"
    (older / manifest.NAME).unlink()
    state = json.loads((older / "state/run.json").read_text())
    del state["format"], state["problems"]
    (older / "state/run.json").write_text(json.dumps(state))
    assert checkpoint.find(run_dir, "auto") == (older, [])
    rows = go(tiny_model, run_dir, "steps=4")
    assert [row["step"] for row in of_kind(rows, "train")] == [1, 2, 3, 4]
    halve(older / "state/__0_0.distcp")
    assert checkpoint.fault(older) is not None


def test_auto_goes_back_over_damage_and_ends_the_same(
    mesh: DeviceMesh, tiny_model: Path, run_dir: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(run_dir / "checkpoints/step_000003/state/__0_0.distcp")
    go(tiny_model, run_dir, "steps=3")
    said = capsys.readouterr().out
    assert "step_000003 is damaged (state/__0_0.distcp has changed since it was written)" in said
    assert "continuing after update 2" in said
    same_end(finished, run_dir, 3)
    assert (run_dir / "abandoned/after_step_000002/checkpoints/step_000003").is_dir()


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("open('PWNED', 'w').close()",)


def test_a_checkpoint_runs_no_code(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    last = run_dir / "checkpoints/step_000003"
    good = read_metadata(last / "state")
    for foreign in (Evil(), {"a": [Evil()]}, good):
        if foreign is good:
            good.planner_data = {"x": Evil()}
        (last / "state/.metadata").write_bytes(pickle.dumps(foreign))
        manifest.write(last)  # checksums are no signature
        found, (told,) = checkpoint.find(run_dir, "auto")
        assert found == run_dir / "checkpoints/step_000002"
        assert "builtins.eval, which is no part of a checkpoint" in told
        with pytest.raises(UserError, match="no part of a checkpoint"):
            checkpoint.find(run_dir, str(last))
    assert not (tmp_path / "PWNED").exists()


def test_shards_run_no_code(mesh: DeviceMesh, tiny_model: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single value that is a foreign object, in place of the learning rate."""
    monkeypatch.chdir(run_dir.parent)
    last = run_dir / "checkpoints/step_000003"
    metadata = read_metadata(last / "state")
    place = next(place for index, place in metadata.storage_data.items() if index.fqn.endswith("param_groups.0.lr"))
    torch.save(Evil(), last / "state/evil.distcp")
    place.relative_path, place.offset = "evil.distcp", 0
    place.length = (last / "state/evil.distcp").stat().st_size
    (last / "state/.metadata").write_bytes(pickle.dumps(metadata))
    manifest.write(last)
    with pytest.raises(UserError, match="cannot be resumed"):
        go(tiny_model, run_dir, "steps=4")
    assert not (run_dir.parent / "PWNED").exists()


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd"])
def test_metadata_names_no_file_elsewhere(run_dir: Path, name: str) -> None:
    last = run_dir / "checkpoints/step_000003/state"
    metadata = read_metadata(last)
    next(iter(metadata.storage_data.values())).relative_path = name
    (last / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ValueError, match="file elsewhere"):
        read_metadata(last)


def test_another_run_is_no_way_on_even_without_a_configuration_beside_it(
    mesh: DeviceMesh, tiny_model: Path, run_dir: Path, tmp_path: Path
) -> None:
    """The checkpoint says itself of which run it is."""
    last = run_dir / "checkpoints/step_000003"
    with pytest.raises(UserError, match=rf"resume={last} holds a run with seed=0, not 5"):
        go(tiny_model, tmp_path / "branch", "steps=4", "seed=5", f"resume={last}")
    assert not (tmp_path / "branch").exists()
    (run_dir / "config.yaml").unlink()
    with pytest.raises(UserError, match=rf"resume={last} holds a run with seed=0, not 5"):
        go(tiny_model, run_dir, "steps=4", "seed=5")
    go(tiny_model, tmp_path / "branch", "steps=4", "optimizer.lr=1e-4", f"resume={last}")
    assert (tmp_path / "branch/checkpoints/step_000004").is_dir()


def test_going_back_begins_a_branch_that_auto_continues(
    mesh: DeviceMesh, tiny_model: Path, run_dir: Path, tmp_path: Path, finished: Path
) -> None:
    branch = ["optimizer.lr=1e-4"]
    expected = Path(shutil.copytree(finished, tmp_path / "expected", symlinks=True))
    for name in ("step_000002", "step_000003"):
        shutil.rmtree(expected / "checkpoints" / name)
    go(tiny_model, expected, *branch, "steps=4")
    go(tiny_model, run_dir, *branch, "steps=2", f"resume={run_dir}/checkpoints/step_000001")
    state = json.loads((run_dir / "checkpoints/step_000002/state/run.json").read_text())
    assert sorted(state["evaluations"]) == ["0", "1", "2"]
    assert not (run_dir / "checkpoints/step_000003").exists()
    go(tiny_model, run_dir, *branch, "steps=4")
    same_end(expected, run_dir, 4)
    kept = run_dir / "abandoned/after_step_000001"
    assert weights(kept, 3)["model.norm.weight"].equal(weights(finished, 3)["model.norm.weight"])
    assert (kept / "metrics.jsonl").read_text() == (finished / "metrics.jsonl").read_text()


def test_a_copied_run_with_foreign_files_goes_on(
    mesh: DeviceMesh, tiny_model: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cp -rL`, backups beside checkpoints, a file in the way of the next one; in a folder that rich would read."""
    copied = Path(shutil.copytree(finished, tmp_path / "x[/b] = ä:bug:"))
    assert not (copied / "best").is_symlink()
    shutil.copytree(copied / "checkpoints/step_000002", copied / "checkpoints/step_000002_backup")
    shutil.copy(copied / "attempts/step_000001.jsonl", copied / "attempts/step_000001 (copy).jsonl")
    (copied / "checkpoints/step_000004").write_text("in the way")
    (copied / "checkpoints/step_000009").symlink_to("step_000001")
    go(tiny_model, copied, "checkpoints.keep=1", "steps=4")
    assert (copied / "best").is_symlink()
    assert (copied / "best/model/config.json").is_file()
    assert (copied / "checkpoints/step_000004/state/run.json").is_file()
    assert (copied / "checkpoints/step_000002_backup/state/run.json").is_file()
    assert (copied / "abandoned/step_000004").read_text() == "in the way"
    assert (copied / "abandoned/best/model").is_dir()
    said = capsys.readouterr().out
    assert f"run directory {copied}\n" in said
    assert f"continuing after update 3 from {copied}/checkpoints/step_000003\n" in said


def test_a_checkpoint_holds_no_later_evaluation(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = threading.Event()
    write, evaluate = checkpoint.write_model, Session._evaluate

    def slow(folder: Path, *arguments: Any) -> None:
        if "step_000002" in str(folder):
            evaluated.wait(60)
        write(folder, *arguments)

    def noted(self: Session) -> None:
        evaluate(self)
        if self.run.step == 3:
            evaluated.set()

    monkeypatch.setattr(checkpoint, "write_model", slow)
    monkeypatch.setattr(Session, "_evaluate", noted)
    go(tiny_model, tmp_path / "run", "steps=3", "checkpoints.every=2")
    state = json.loads((tmp_path / "run/checkpoints/step_000002/state/run.json").read_text())
    assert sorted(state["evaluations"]) == ["0", "1", "2"]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Saving update 2 fails as on a full disk, until the returned function is called."""
    write = checkpoint.write_model

    def fail(folder: Path, *arguments: Any) -> None:
        if "step_000002" in str(folder):
            raise OSError(28, "No space left on device", str(folder))
        write(folder, *arguments)

    monkeypatch.setattr(checkpoint, "write_model", fail)
    return lambda: monkeypatch.setattr(checkpoint, "write_model", write)


def test_a_failed_save_is_told_and_costs_nothing(
    mesh: DeviceMesh,
    tiny_model: Path,
    tmp_path: Path,
    finished: Path,
    full_disk: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(UserError, match="No space left on device") as caught:
        go(tiny_model, run_dir, "steps=3")
    for part in (str(run_dir / "checkpoints"), "everything up to update 1 is kept", f"run_dir={run_dir}"):
        assert part in str(caught.value)
    assert "stopping after this update" in capsys.readouterr().out
    assert checkpoint.find(run_dir, "auto")[0] == run_dir / "checkpoints/step_000001"
    full_disk()
    go(tiny_model, run_dir, "steps=3")
    same_end(finished, run_dir, 3)


@pytest.mark.parametrize(("part", "size"), [("state", 20_000), ("state", 50_000), ("model", 50_000)])
def test_a_file_that_the_system_cuts_short_is_one_sentence(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, size: int
) -> None:
    """By a real limit on sizes: torch and safetensors have errors of their own for that."""
    limits, write = resource.getrlimit(resource.RLIMIT_FSIZE), checkpoint.write_model

    def limited(work: Callable[..., Any], *arguments: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            work(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    if part == "model":
        monkeypatch.setattr(checkpoint, "write_model", lambda *arguments: limited(write, *arguments))
    work: Callable[..., Any] = go if part == "model" else lambda *arguments: limited(go, *arguments)
    with pytest.raises(UserError, match="checkpoint of update 1 could not be written") as caught:
        work(tiny_model, tmp_path / "run", "steps=1", "evaluation.before=false")
    assert re.search(r"\((a file could not be written whole.*|.*File too large.*)\): make room", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_removed_run_directory_is_one_sentence(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Session._evaluate

    def remove(self: Session) -> None:
        if self.run.step == 2:
            while (tmp_path / "run").exists():  # something may still be written there
                shutil.rmtree(tmp_path / "run", ignore_errors=True)
        evaluate(self)

    monkeypatch.setattr(Session, "_evaluate", remove)
    with pytest.raises(UserError, match=r"run_dir=.*run cannot be written"):
        go(tiny_model, tmp_path / "run", "steps=3", "checkpoints.every=9")
    assert not (tmp_path / "run").exists()


def test_other_numbers_of_samples_are_not_compared(
    mesh: DeviceMesh, tiny_model: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(tiny_model, run_dir, "steps=4", "evaluation.samples=1")
    assert (run_dir / "best").resolve().name == "step_000004"
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "per_task/mean@" in line]
    known = {row[0].strip(): [cell.strip() != "–" for cell in row[1:]] for row in rows[-2:]}
    assert known == {"per_task/mean@2": [True, False], "per_task/mean@1": [False, True]}


def test_a_score_may_come_late(
    mesh: DeviceMesh,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = "task.name=rundir_tasks:Changing"
    go(tiny_model, tmp_path / "run", task, "steps=1")
    monkeypatch.setenv("RESD_TEST_SCORE", "s[/b]")
    go(tiny_model, tmp_path / "run", task, "steps=2")
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "s[/b]/mean@2" in line and "│" in line]
    assert [cell.strip() for cell in row.split("│")[2:-1]] in (["–", "50.00"], ["–", "–", "50.00"])


@pytest.mark.parametrize("change", ["appended", "reversed", "retold"])
def test_other_problems_are_another_run(
    mesh: DeviceMesh, tiny_model: Path, changing: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setenv("RESD_TEST_PROBLEMS", change)
    with pytest.raises(UserError, match=r"other (training|test) problems") as caught:
        go(tiny_model, changing, "task.name=rundir_tasks:Changing", "steps=2")
    assert "the same ones in the same order" in str(caught.value)


@pytest.fixture(scope="module")
def changing(mesh: DeviceMesh, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("changing") / "run"
    go(tiny_model, run_dir, "task.name=rundir_tasks:Changing", "steps=1")
    return run_dir


def test_a_split_that_only_one_of_them_knows_is_not_compared() -> None:
    one = {"count": 1, "sha256": "a"}
    check_same_problems("run_dir=x", {}, {"training": one})
    check_same_problems("run_dir=x", {"training": one, "forgetting": one}, {"training": one})
    with pytest.raises(UserError, match=r"run_dir=x was made with 1 other test problems \(2 now\)"):
        check_same_problems("run_dir=x", {"test": one}, {"test": {"count": 2, "sha256": "b"}})


def test_processes_that_see_other_problems_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, "task.name=rundir_tasks:UnlikeRanks", f"model.path={tiny_model}", f"run_dir={tmp_path}/run"]
    script = Path(__file__).with_name("world.py")
    done = subprocess.run(
        [sys.executable, str(script), "2", *arguments, "steps=1"], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "error: process 1 has another training problems, or another order of them than process 0" in done.stderr
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"- 1", b""])
def test_a_broken_configuration_is_one_sentence(tmp_path: Path, finished: Path, content: bytes) -> None:
    settings = config.read(finished / "config.yaml")
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match="is not the configuration of a run") as caught:
        config.check_same_run(tmp_path, settings)
    assert "\n" not in str(caught.value)
