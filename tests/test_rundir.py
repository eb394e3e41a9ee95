"""Opening a run directory: what stays, what is moved away, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from torch.distributed.device_mesh import DeviceMesh

from resd.storage.rundir import RunDir
from resd.types import UserError


def make(run_dir: Path, checkpoints: list[int], rows: int) -> Path:
    """The files of a run of `rows` updates."""
    for step in checkpoints:
        (run_dir / f"checkpoints/step_{step:06d}").mkdir(parents=True)
    for folder in ("attempts", "evaluations"):
        (run_dir / folder).mkdir(parents=True)
        for step in range(1, rows + 1):
            (run_dir / f"{folder}/step_{step:06d}.jsonl").write_text(f"{step}")
    for name, first in (("metrics.jsonl", 0), ("playbook.jsonl", 1)):
        (run_dir / name).write_text("".join(f'{{"step": {step}}}\n' for step in range(first, rows + 1)))
    (run_dir / "config.yaml").write_text("old: 1\n")
    return run_dir


def begin(run_dir: Path, step: int | None, *, fresh: bool = False, start: Path | None = None) -> list[str]:
    directory = RunDir(str(run_dir))
    try:
        found = None if step is None else start or run_dir / f"checkpoints/step_{step:06d}"
        directory.check(found, step or 0, fresh=fresh)
        directory.begin(step, "new: 1\n")
        return directory.notes
    finally:
        directory.close()


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_will_be_written_again_goes(mesh: DeviceMesh, tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", [2], 3)
    (run_dir / "checkpoints/.step_000003").mkdir()
    assert begin(run_dir, 2) == []
    assert steps(run_dir / "metrics.jsonl") == [0, 1, 2]
    assert steps(run_dir / "playbook.jsonl") == [1, 2]
    for folder in ("attempts", "evaluations"):
        assert names(run_dir / folder) == ["step_000001.jsonl", "step_000002.jsonl"]
    assert names(run_dir / "checkpoints") == ["step_000002"]
    assert (run_dir / "config.yaml").read_text() == "new: 1\n"
    assert not (run_dir / "abandoned").exists()
    unsaved = make(tmp_path / "unsaved", [], 3)
    assert begin(unsaved, None) == []
    assert steps(unsaved / "metrics.jsonl") == []
    assert names(unsaved / "attempts") == names(unsaved / "evaluations") == []


def test_an_abandoned_branch_is_kept_whole(mesh: DeviceMesh, tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", [2, 3, 4], 5)
    (note,) = begin(run_dir, 2)
    kept = run_dir / "abandoned/after_step_000002"
    assert str(kept) in note
    assert names(run_dir / "checkpoints") == ["step_000002"]
    assert names(kept / "checkpoints") == ["step_000003", "step_000004"]
    for folder in ("attempts", "evaluations"):
        assert names(kept / folder) == [f"step_{n:06d}.jsonl" for n in (3, 4, 5)]
    assert steps(kept / "metrics.jsonl") == [0, 1, 2, 3, 4, 5]
    assert steps(run_dir / "metrics.jsonl") == [0, 1, 2]
    assert (kept / "config.yaml").read_text() == "old: 1\n"
    make(tmp_path / "again", [3], 3)
    shutil.copytree(tmp_path / "again/checkpoints", run_dir / "checkpoints", dirs_exist_ok=True)
    begin(run_dir, 2)
    assert names(run_dir / "abandoned") == ["after_step_000002", "after_step_000002_2"]


def test_foreign_names_stay_where_they_are(mesh: DeviceMesh, tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", [2], 2)
    (run_dir / "checkpoints/step_000002_backup").mkdir()
    (run_dir / "checkpoints/step_000003").write_text("a file")
    (run_dir / "checkpoints/step_000007").symlink_to("step_000002")
    for name in ("step_x.jsonl", "step_000009 (copy).jsonl"):
        (run_dir / "attempts" / name).write_text("")
    before = names(run_dir / "checkpoints"), names(run_dir / "attempts")
    begin(run_dir, 2)
    assert (names(run_dir / "checkpoints"), names(run_dir / "attempts")) == before


def test_lines_that_cannot_be_read_are_told(mesh: DeviceMesh, tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", [2], 2)
    content = (run_dir / "metrics.jsonl").read_bytes().replace(b'{"step": 1}', b'{"step": 1, "x": "\xff"}')
    (run_dir / "metrics.jsonl").write_bytes(content + b'{"step": 3, "ki')
    (note,) = begin(run_dir, 2)
    assert "1 line(s)" in note
    assert steps(run_dir / "metrics.jsonl") == [0, 2]


def test_a_checkpoint_of_another_run_needs_an_empty_directory(mesh: DeviceMesh, tmp_path: Path) -> None:
    run_dir, other = make(tmp_path / "run", [2], 2), make(tmp_path / "other", [3], 3)
    with pytest.raises(UserError, match="not a checkpoint of the run"):
        begin(run_dir, 3, start=other / "checkpoints/step_000003")
    assert steps(run_dir / "metrics.jsonl") == [0, 1, 2]
    new = tmp_path / "new"
    begin(new, 3, start=other / "checkpoints/step_000003")
    (new / "metrics.jsonl").write_text('{"step": 4}\n')
    begin(new, 3, start=other / "checkpoints/step_000003")  # killed after update 4, the same command
    assert steps(new / "metrics.jsonl") == []
    link = tmp_path / "link"
    link.symlink_to(run_dir)
    begin(link, 2, start=run_dir / "checkpoints/step_000002")


def test_a_run_is_not_begun_over_another(mesh: DeviceMesh, tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", [2], 2)
    with pytest.raises(UserError, match="write resume=auto"):
        begin(run_dir, None, fresh=True)
    assert steps(run_dir / "metrics.jsonl") == [0, 1, 2]


def test_it_has_one_owner(mesh: DeviceMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resd.storage.lock.PATIENCE", 0.0)
    first = RunDir(str(tmp_path))
    with pytest.raises(UserError, match="belongs to a run that is still going"):
        RunDir(str(tmp_path))
    first.close()
    RunDir(str(tmp_path)).close()


def test_what_the_disk_refuses_is_one_sentence(mesh: DeviceMesh, tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", [2], 2)
    directory = RunDir(str(run_dir))
    with (
        pytest.raises(UserError, match=r"No space left.*everything up to update 2 is kept") as caught,
        directory.told(),
    ):
        raise OSError(28, "No space left on device")
    assert str(run_dir) in str(caught.value)
    shutil.rmtree(run_dir)
    with pytest.raises(UserError, match="No such file"), directory.told():
        (run_dir / "metrics.jsonl").open("ab")
    with pytest.raises(FileNotFoundError), directory.told():
        (tmp_path / "elsewhere" / "x").open("ab")
    directory.close()
