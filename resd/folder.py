"""The folder that a command was told to write to: made before anything heavy, taken back if nothing comes of it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resd import again
from resd.config import rank
from resd.types import UserError

LITTER = {".lock", "config.yaml", "tensorboard"}  # of a run without a result
_at_work: list[tuple[Path, list[Path]]] = []  # those of this process, and which folders were made for each


@contextmanager
def made_for(folder: Path, name: str = "run_dir") -> Iterator[None]:
    """Makes the directory, rank 0's, or says why it cannot be. One that this made goes again, with the folders made
    for it, if the block fails before anything is worth keeping."""
    _at_work.append((folder, _make(folder, name) if rank() == 0 else []))
    try:
        yield
    except BaseException:
        take_back()
        raise
    finally:
        _at_work.pop()


def take_back() -> None:
    """What `made_for` does at a failure; for a process that ends at once, too. Every rank knows then what is left."""
    for folder, made in _at_work:
        if _worth(folder):
            continue
        again.forget()
        if made:
            with suppress(OSError):
                shutil.rmtree(folder)
                for path in made[1:]:
                    path.rmdir()


def _worth(folder: Path) -> bool:
    """Whether there is more in a directory than a run lays out before its first result: folders, and an empty log."""
    files = (
        path for path in folder.rglob("*") if not path.is_dir() and path.relative_to(folder).parts[0] not in LITTER
    )
    try:
        return any(path.name != "metrics.jsonl" or path.stat().st_size > 0 for path in files)
    except FileNotFoundError:  # the first rank is taking it back
        return False


def _make(folder: Path, name: str) -> list[Path]:
    """Make the directory that the setting `name` gives, or say why it cannot be; which folders were not there."""
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe_{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{name}={folder} cannot be written ({error.strerror}): choose another {name}") from None
    return missing
