"""Rows of a data set: from a file, from a folder with a file a split, or from Hugging Face.

A file is known by the end of its name, in capitals or not: `.jsonl` or `.json` (an object a line, or one array of
objects), `.csv` and `.tsv` (with a header; every cell is a text), `.parquet`; texts may be packed (`.csv.gz`). They are
UTF-8, with or without a byte order mark, or UTF-16 with one. The separator of a CSV file is the one of `,;|` and tab
that its header has most of.

Rows from files come with their place, so that a task can say which one it cannot use. Everything that goes wrong here
is a UserError. Parquet and Hugging Face need packages of the extras `parquet` and `hub`. Not covered: spreadsheets,
files without a header.
"""

import csv
import gzip
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from resd.task import Split
from resd.types import Problem, UserError

Row = dict[str, Any]
Placed = tuple[str, Row]

KINDS = {".jsonl": "JSONL", ".json": "JSON", ".ndjson": "JSONL", ".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}
SEPARATORS = ",;\t|"


def check_source(source: str, *words: str) -> str:
    """`source`, with the user's home for `~`. Raises UserError unless it is one of `words` or exists."""
    if source in words:
        return source
    path = os.path.expanduser(str(source))
    if not os.path.exists(path):
        formats = "a JSONL, JSON, CSV, TSV or Parquet file, or a folder with a file a split"
        others = f"{', '.join(words)}, or such a path" if words else formats
        raise UserError(f"source={source!r} is neither a file nor a folder: write {others}")
    return path


def kind(path: Path) -> str:
    """The end of its name that says what it holds; "" if none does."""
    end = (path.with_suffix("") if _packed(path) else path).suffix.lower()
    return end if end in KINDS else ""


def _packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def files(folder: Path, end: str) -> dict[str, Path]:
    """The files of one kind by name. Raises UserError where two would be read as one."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        name = file.stem[: -len(end)] if _packed(file) else file.stem
        if kind(file) == end and file.is_file() and found.setdefault(name, file) != file:
            raise UserError(f"{folder} has both {found[name].name} and {file.name}: leave one of them out")
    return found


def read_file(source: str, split: Split) -> Iterator[Placed]:
    """(place, row) of the file `source`, or of its `train.jsonl`, `test.parquet`, … when `source` is a folder."""
    path = Path(source)
    if path.is_dir():
        kept = (files(path, end).get(split) for end in KINDS)
        path = next(filter(None, kept), path / f"{split}.jsonl")
    return read(path)


def read(path: Path) -> Iterator[Placed]:
    """(place, row) of one file."""
    match kind(path):
        case ".parquet":
            return _parquet(path)
        case ".csv" | ".tsv" as end:
            return _table(path, "\t" if end == ".tsv" else None)
    return _jsonl(path)


def distinct(found: Iterable[tuple[str, Problem]]) -> list[Problem]:
    """The problems of (place, problem). Raises UserError at the second one of an id."""
    problems: dict[str, Problem] = {}
    for place, problem in found:
        if problem.id in problems:
            raise UserError(f"{place}: the id {problem.id!r} occurs twice; every problem needs its own")
        problems[problem.id] = problem
    return list(problems.values())


def library(source: str) -> Any:
    """The package datasets, which `source` needs. Raises UserError if it is not there."""
    try:
        import datasets
    except ImportError:
        hub = "" if source == "hf" or os.path.exists(source) else " is no file or folder here, and as a name of the hub"
        raise UserError(f"source={source}{hub} needs the package datasets: run pip install datasets") from None
    return datasets


def read_hub(name: str, split: str, revision: str | None = None) -> Any:
    """The Hugging Face data set `name`, a sequence of rows with `features`."""
    load_dataset = library("hf").load_dataset
    try:
        return load_dataset(name, split=split, revision=revision)
    except Exception as error:  # offline, renamed, not permitted: the library has an exception for each
        reason = " ".join(str(error).split())
        raise UserError(f"the data set {name} cannot be loaded ({reason}): give its file as source") from None


def _text(path: Path) -> str:
    named = f"{path} must be a {KINDS.get(kind(path), 'JSONL')} file in UTF-8, but cannot be read"
    if not kind(path):
        named = f"{path} does not end in {' '.join(KINDS)}, and cannot be read as JSONL in UTF-8"
    try:
        raw = path.read_bytes()
        if _packed(path):
            raw = gzip.decompress(raw)
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{named}: line {line} has bytes that are not; save it as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{named}: {error}") from None


def _jsonl(path: Path) -> Iterator[Placed]:
    text = _text(path).replace("\r\n", "\n").replace("\r", "\n")
    if (array := _array(text, path)) is not None:
        found: Iterable[tuple[str, Any]] = [(f"{path}, entry {number}", row) for number, row in enumerate(array, 1)]
    else:
        lines = [(f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), 1)]
        found = ((place, _parse(line, place)) for place, line in lines if line.strip())
    for place, row in found:
        if not isinstance(row, dict):
            raise UserError(f"{place}: expected an object with the columns of a problem, not {row!r:.40}")
        yield place, row


def _array(text: str, path: Path) -> list[Any] | None:
    """The rows of a text that is one JSON array of objects. Raises UserError for one object over several lines."""
    start = re.match(r"\s*(\[\s*[{\]]|\{[^\S\n]*\n)", text)
    if start is None:
        return None
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno} is not JSON: {error.msg} at column {error.colno}") from None
    except (RecursionError, ValueError):
        return None
    if isinstance(whole, dict):
        raise UserError(f"{path} is one object, not rows: write [ROW, ROW, …], or one row a line")
    return whole if isinstance(whole, list) else None


def _table(path: Path, separator: str | None) -> Iterator[Placed]:
    text = _text(path)
    first = text.lstrip().partition("\n")[0]
    separator = separator or max(SEPARATORS, key=first.count)
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    while True:
        place = f"{path}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{place} is no row of a {KINDS[kind(path)]} file: {error}") from None
        if not any(cells):
            continue
        if not header:
            header = [name.strip() for name in cells]
            if twice := next((name for name in header if name and header.count(name) > 1), None):
                raise UserError(f"{place}: two columns are called {twice!r}; every column needs its own name")
            continue
        if len(cells) != len(header):
            raise UserError(
                f"{place} has {len(cells)} cells, and the header {len(header)}: write cells that contain "
                f"{separator!r} or a line break in double quotes"
            )
        yield place, {name: cell for name, cell in zip(header, cells, strict=True) if name}


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
        raise UserError(f"{path} needs the package pyarrow: run pip install pyarrow, or give JSONL or CSV") from None
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} must be a parquet file, but cannot be read: {str(error).splitlines()[0]}") from None
    names = table.column_names
    columns = [_cells(f"{path}: the column {name!r}", each) for name, each in zip(names, table.columns, strict=True)]
    for number, cells in enumerate(zip(*columns, strict=True), 1):
        yield f"{path}, row {number}", dict(zip(names, cells, strict=True))


def _cells(named: str, column: Any) -> list[Any]:
    """Python's values of a column, or texts of those that Python has none for: years above 9999, nanoseconds."""
    try:
        return list(column.to_pylist())
    except Exception as error:  # each library of times and zones has an exception of its own
        with suppress(Exception):
            return list(column.cast("string").to_pylist())
        said = " ".join(str(error).split())
        raise UserError(f"{named} cannot be read ({said}): leave it out, or write it as text in UTF-8") from None
