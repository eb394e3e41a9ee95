"""A set of rows of a user's own, wherever it lies, and its splits.

`source` is a file, whose rows are all there is; a folder with a file a split (`train.csv`, `test.csv`, parts such as
`train-00000-of-00002.parquet`, also in a folder `data` inside), as repositories of data sets have them; a folder that
`datasets` has saved; or the name of a data set of the Hugging Face hub, `owner/name`, with its `subset`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from resd.envs import rows
from resd.envs.rows import Placed
from resd.task import Split
from resd.types import UserError

Reader = Callable[[], Iterator[Placed]]

_SAVED = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")


def check(source: str) -> str:
    """`source`, with the user's home for `~`. Raises UserError unless it exists or may be a name of the hub."""
    named = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)) and not rows.kind(Path(source))
    return source if named and not Path(source).exists() else rows.check_source(source)


def read(source: str, split: Split, names: Mapping[str, str], subset: str | None) -> tuple[list[Placed], bool]:
    """(place, row) of one split, and whether it is all there is, so that it has to be divided.

    `names` says what the set calls `train` and `test`, where it is not that; one split may serve as both.
    Raises UserError if there is no such split.
    """
    path = Path(source)
    if path.is_file():
        return list(rows.read(path)), True
    splits = _folder(path) if path.is_dir() else _hub(source, subset)
    if unknown := [f"splits.{key}={name}" for key, name in names.items() if name not in splits]:
        raise UserError(f"{unknown[0]} is not in {source}: it has {', '.join(splits)}")
    wanted = {"train": "train", "test": "test", **names}
    if wanted["train"] == wanted["test"]:
        return list(splits[wanted[split]]()), True
    if len(splits) == 1:
        return list(next(iter(splits.values()))()), True
    if missing := [key for key, name in wanted.items() if name not in splits]:
        raise UserError(
            f"source={source!r} has the splits {', '.join(splits)} and no {missing[0]}: "
            f"write task.options.splits.{missing[0]}=NAME for one of them"
        )
    return list(splits[wanted[split]]()), False


def _folder(path: Path) -> dict[str, Reader]:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _loaded(str(path), lambda library: library.load_from_disk(str(path)))
    found: dict[str, list[Path]] = {}
    for folder in (path, path / "data"):
        for end in rows.KINDS:
            here: dict[str, list[Path]] = {}
            for name, file in (rows.files(folder, end) if folder.is_dir() else {}).items():
                if file.name not in _SAVED:
                    here.setdefault(re.sub(r"(?<=.)-\d+-of-\d+$", "", name), []).append(file)
            found = here | found
    if not found:
        raise UserError(
            f"source={str(path)!r} has no file of rows: give a folder with train.jsonl and test.jsonl, "
            f"or the like in {' '.join(rows.KINDS)}"
        )
    return {name: _reader(parts) for name, parts in sorted(found.items())}


def _reader(files: Iterable[Path]) -> Reader:
    return lambda: (placed for file in files for placed in rows.read(file))


def _hub(name: str, subset: str | None) -> dict[str, Reader]:
    return _loaded(name, lambda library: library.load_dataset(name, subset))


def _loaded(source: str, load: Callable[[Any], Any]) -> dict[str, Reader]:
    library = rows.library(source)
    try:
        loaded = load(library)
    except Exception as error:  # offline, renamed, not permitted, no such subset: the library has an exception for each
        reason = " ".join(str(error).split())
        raise UserError(
            f"source={source!r} is no file here, and cannot be loaded as a data set ({reason:.300}): "
            "give a file, or the name of a data set and task.options.subset"
        ) from None
    splits = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    return {str(name): _placed(f"{source} ({name})", found) for name, found in splits.items()}


def _placed(source: str, found: Iterable[Any]) -> Reader:
    return lambda: ((f"{source}, row {number}", dict(row)) for number, row in enumerate(found, 1))
