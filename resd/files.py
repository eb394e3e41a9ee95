"""Files that a kill cannot halve: written beside and renamed, or appended to in whole lines.

`replace` and `cut` leave either the old or the new content, after a power cut too. An `append` may be cut in the middle
of its last line; `cut` drops such a line, and readers skip it. What these raise is the plain OSError.
"""

import json
import os
import re
import shutil
from pathlib import Path


def replace(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing."""
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def append(path: Path, lines: str) -> None:
    """Add whole lines to the end, in one write."""
    with path.open("ab", buffering=0) as file:
        rest = memoryview(lines.encode("utf-8", "backslashreplace"))
        while rest:
            rest = rest[file.write(rest) :]


def sync(path: Path) -> None:
    """Make what was written to a file or folder survive a power cut; a missing one is left out."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` for everything under a folder, itself included."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def cut(path: Path, step: int) -> int:
    """Keep the lines of a JSONL file whose `step` is at most `step`: what a resumed run will write again goes.

    Returns how many other lines were dropped, since they could not be read; the half line of a kill does not count.
    """
    if not path.exists():
        return 0
    content = path.read_bytes()
    lines = content.splitlines()
    steps = [_step(line) for line in lines]
    kept = b"".join(line + b"\n" for line, of in zip(lines, steps, strict=True) if of is not None and of <= step)
    if kept != content:
        replace(path, kept)
    half = bool(lines) and steps[-1] is None and not content.endswith(b"\n")
    return steps.count(None) - half


def _step(line: bytes) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if type(step) is int else None


def numbered(folder: Path, suffix: str = "") -> dict[int, Path]:
    """`step_000001…` in `folder`, by number, ascending; nothing that only looks like one (copies, backups, links)."""
    found = {}
    for path in folder.glob(f"step_*{suffix}"):
        name = re.fullmatch(r"step_(\d{6,})" + re.escape(suffix), path.name)
        if name and not path.is_symlink() and (path.is_file() if suffix else path.is_dir()):
            found[int(name[1])] = path
    return dict(sorted(found.items()))


def steps(path: Path) -> list[int]:
    """The `step` of every readable line of a JSONL file."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [step for line in lines if (step := _step(line)) is not None]


def free(path: Path) -> Path:
    """`path`, or with a number if that name is taken."""
    number, found = 2, path
    while found.exists() or found.is_symlink():
        found, number = path.with_name(f"{path.name}_{number}"), number + 1
    return found


def move_aside(path: Path, folder: Path) -> Path:
    """Move `path` into `folder`, whatever is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    return path.rename(free(folder / path.name))


def remove(path: Path) -> None:
    """A file, a link or a whole folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """A whole copy of a file, if there is one to copy and none yet."""
    if source.is_file() and not target.exists():
        part = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, part)
        sync(part)
        part.replace(target)


def reason(error: BaseException) -> str:
    """The first line of what went wrong, for a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
