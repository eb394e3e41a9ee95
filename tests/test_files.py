"""Whole files, whole lines, and what is ignored."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd import files

ROWS = st.lists(
    st.one_of(
        st.integers(0, 9).map(lambda step: b'{"step": %d, "kind": "train"}' % step),
        st.sampled_from([b'{"step": 3, "ki', b"\xff\xfe", b"[1]", b'{"step": "2"}', b'{"kind": 1}', b"null"]),
    ),
    max_size=12,
)


@given(ROWS, st.integers(-1, 9), st.booleans())
def test_cutting_keeps_every_readable_row_up_to_a_step(rows: list[bytes], step: int, ended: bool) -> None:
    content = b"\n".join(rows) + b"\n" * (ended and bool(rows))
    good = [row for row in rows if row.endswith(b'"train"}')]
    unread = len(rows) - len(good)
    half = bool(rows) and not ended and rows[-1] not in good
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        path.write_bytes(content)
        assert files.cut(path, step) == unread - half
        assert path.read_bytes().splitlines() == [row for row in good if int(row[9:10]) <= step]
        assert files.cut(path, step) == 0


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a full disk or a kill would leave it: nothing of the new content under the old name."""
    file = tmp_path / "config.yaml"
    file.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace(file, "new")
    assert file.read_text() == "old"


def test_text_of_any_kind_can_be_written(tmp_path: Path) -> None:
    files.replace(tmp_path / "a", "ä \udcff")
    files.append(tmp_path / "a", "b\n")
    assert (tmp_path / "a").read_bytes() == "ä \\udcffb\n".encode()


def test_only_real_steps_are_numbered(tmp_path: Path) -> None:
    for name in (
        "step_000002",
        "step_000010",
        "step_000002_backup",
        "step_x",
        "step_2",
        ".step_000004",
        "step_000001 (copy)",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "step_000003").write_text("a file")
    (tmp_path / "step_000005").symlink_to("step_000002")
    assert list(files.numbered(tmp_path)) == [2, 10]
    for name in ("step_000001.jsonl", "step_000001 (copy).jsonl", "step_x.jsonl", "step_000002.jsonl.bak"):
        (tmp_path / name).write_text("")
    assert list(files.numbered(tmp_path, ".jsonl")) == [1]


def test_moving_aside_never_replaces(tmp_path: Path) -> None:
    for content in "abc":
        (tmp_path / "x").write_text(content)
        files.move_aside(tmp_path / "x", tmp_path / "aside")
    assert {p.name: p.read_text() for p in (tmp_path / "aside").iterdir()} == {"x": "a", "x_2": "b", "x_3": "c"}
