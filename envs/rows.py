"""Rows of a data set: from a JSONL or parquet file, from a folder with one such file a split, or from Hugging Face.

Rows from files come with their place, so that a task can say which one it cannot use. Everything that goes wrong here
is a UserError. Parquet and Hugging Face need packages of the extras `ifeval` and `hub`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resd.task import Split
from resd.types import UserError

Row = dict[str, Any]


def check_source(source: str) -> None:
    """Raises UserError unless `source` is `hf` or exists."""
    if source != "hf" and not Path(source).exists():
        raise UserError(f"source={source!r} is neither a file nor a folder: write hf, or such a path")


def read_file(source: str, split: Split) -> Iterator[tuple[str, Row]]:
    """(place, row) of the file `source`, or of its `train.jsonl`, `test.parquet`, … when `source` is a folder."""
    path = Path(source)
    if path.is_dir():
        kept = [path / f"{split}{suffix}" for suffix in (".jsonl", ".parquet")]
        path = next((file for file in kept if file.exists()), kept[0])
    return _parquet(path) if path.suffix == ".parquet" else _jsonl(path)


def read_hub(name: str, split: str, revision: str | None = None) -> Any:
    """The Hugging Face data set `name`, a sequence of rows with `features`."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError("source=hf needs the package datasets: run pip install 'resd[hub]'") from None
    try:
        return load_dataset(name, split=split, revision=revision)
    except Exception as error:  # offline, renamed, not permitted: the library has an exception for each
        reason = " ".join(str(error).split())
        raise UserError(f"the data set {name} cannot be loaded ({reason}): give its file as source") from None


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} must be a JSONL file in UTF-8, but cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{place} is not JSON: {error.msg} at column {error.colno}") from None
            except RecursionError:
                raise UserError(f"{place} is nested too deeply to be a row") from None
            if not isinstance(row, dict):
                raise UserError(f"{place}: expected an object with the columns of a problem, not {row!r:.40}")
            yield place, row


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path} needs the package pyarrow: run pip install pyarrow, or give a JSONL file") from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} must be a parquet file, but cannot be read: {str(error).splitlines()[0]}") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row
