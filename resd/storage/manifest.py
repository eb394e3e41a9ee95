"""Checksums of a folder's files, written last: a folder without its manifest is not whole, one that differs is damaged.

They find what a disk, a copy or a hand has changed. They are no signature: who can write the folder can write this too.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from resd import files

NAME = "manifest.json"
THREADS = 4  # hashing leaves the interpreter's lock


def write(folder: Path) -> None:
    """Read every file of `folder` back and note its size and SHA-256."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    with ThreadPoolExecutor(THREADS) as pool:
        sums = list(pool.map(_checksum, paths))
    entries = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": digest}
        for path, digest in zip(paths, sums, strict=True)
    }
    files.replace(folder / NAME, json.dumps({"files": entries}, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """By file, its size and checksum. Raises ValueError with what is wrong, FileNotFoundError if there is none."""
    try:
        entries = json.loads((folder / NAME).read_bytes())["files"]
        return {str(name): {"bytes": int(of["bytes"]), "sha256": str(of["sha256"])} for name, of in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{NAME} is not readable") from None


def damage(folder: Path, entries: Mapping[str, Any]) -> str | None:
    """What is wrong with the first of these files that is not as it was written; None if all are."""

    def fault(item: tuple[str, Any]) -> str | None:
        name, written = item
        path = folder / name
        try:
            size = path.stat().st_size
            if size != written["bytes"]:
                return f"{name} has {size} bytes instead of {written['bytes']}"
            return None if _checksum(path) == written["sha256"] else f"{name} has changed since it was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({files.reason(error)})"

    with ThreadPoolExecutor(THREADS) as pool:
        return next((fault for fault in pool.map(fault, entries.items()) if fault), None)


def model_damage(checkpoint: Path) -> str | None:
    """What is wrong with the model of a checkpoint; None if nothing is, or where there is no manifest."""
    try:
        entries = {name: of for name, of in read(checkpoint).items() if name.startswith("model/")}
        return damage(checkpoint, entries)
    except FileNotFoundError:  # copied without it, or from before there were any
        return None
    except ValueError as error:
        return str(error)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
