"""Rows of a data set: from a JSONL or parquet file, from a folder with one such file a split, or from Hugging Face.

A JSONL file is UTF-8, with or without a byte order mark, and may as well be one JSON array of rows.

Rows from files come with their place, so that a task can say which one it cannot use. Everything that goes wrong here
is a UserError. Parquet and Hugging Face need packages of the extras `ifeval` and `hub`.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from resd.task import Split
from resd.types import UserError

Row = dict[str, Any]


def check_source(source: str, *words: str) -> str:
    """`source`, with the user's home for `~`. Raises UserError unless it is one of `words` or exists."""
    if source in words:
        return source
    path = os.path.expanduser(str(source))
    if not os.path.exists(path):
        others = f"{', '.join(words)}, or such a path" if words else "a JSONL file, or a folder with a file a split"
        raise UserError(f"source={source!r} is neither a file nor a folder: write {others}")
    return path


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
        raise UserError("source=hf needs the package datasets: run pip install datasets") from None
    try:
        return load_dataset(name, split=split, revision=revision)
    except Exception as error:  # offline, renamed, not permitted: the library has an exception for each
        reason = " ".join(str(error).split())
        raise UserError(f"the data set {name} cannot be loaded ({reason}): give its file as source") from None


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} must be a JSONL file in UTF-8, but cannot be read: {error}") from None
    if (array := _array(text)) is not None:
        found: Iterable[tuple[str, Any]] = [(f"{path}, entry {number}", row) for number, row in enumerate(array, 1)]
    else:
        lines = [(f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), 1)]
        found = ((place, _parse(line, place)) for place, line in lines if line.strip())
    for place, row in found:
        if not isinstance(row, dict):
            raise UserError(f"{place}: expected an object with the columns of a problem, not {row!r:.40}")
        yield place, row


def _array(text: str) -> list[Any] | None:
    """The rows of a text that is one JSON array of objects."""
    if re.match(r"\s*\[\s*\{", text) is None:
        return None
    try:
        whole = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    return whole if isinstance(whole, list) else None


def _parse(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place} is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise UserError(f"{place} is nested too deeply to be a row") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{place} cannot be read: {str(error).partition(';')[0]}") from None


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
