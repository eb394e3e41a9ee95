"""The rows of a source that belong to one split, each with its place and an id of its own.

Where rows of one file say `"split": "train"` or `"split": "test"`, that is their split. A set without splits is divided
by a hash of each row's id, or of its prompt where it has none: a share of `test_share` is for testing, and at least one
row. A row stays on its side when others are added, and equal prompts are on one side.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from resd.envs import sets
from resd.envs.columns import Row
from resd.envs.functions import text
from resd.envs.rows import Placed
from resd.task import Split
from resd.types import UserError

TEST_SHARE = 0.2


class Divided:
    """Raises UserError when the source cannot be used.

    source: what `resd.envs.sets` reads
    columns: makes of a row and its place the row that is given, with `id`, `prompt` and `split` where it has them
    splits: the set's names of `train` and `test`; one name for both divides that split
    subset: of a data set of the hub
    test_share: of a set without splits, above 0 and below 1; None: a fifth
    """

    def __init__(
        self,
        source: str,
        columns: Callable[[Row, str], Row],
        splits: Mapping[str, str | None] | None = None,
        subset: str | None = None,
        test_share: float | None = None,
    ) -> None:
        self.source, self.columns, self.subset = sets.check(source), columns, subset
        self.splits = names("splits", splits)
        if wrong := self.splits.keys() - {"train", "test"}:
            raise UserError(f"splits has train and test, and no {min(wrong)}: write splits.train or splits.test")
        self.test_share = share(test_share)

    def __call__(self, split: Split) -> Iterator[tuple[str, str, Row]]:
        """(id for a row that has none, place, row) in the order of the file, at least one."""
        placed, whole = sets.read(self.source, split, self.splits, self.subset)
        if not placed:
            raise UserError(f"source={self.source!r} has no rows: add some, a problem each")
        rows = [(place, self.columns(row, place)) for place, row in placed]
        sides = self._sides(rows) if whole else [split] * len(rows)
        if split not in sides:
            raise UserError(f'source={self.source!r} has no {split} problem: add rows with "split": "{split}"')
        for number, ((place, row), side) in enumerate(zip(rows, sides, strict=True), 1):
            if side == split:
                yield f"{split}-{number}", place, row

    def _sides(self, rows: list[Placed]) -> list[str]:
        """For each row of a set that is not divided, "train", "test", or "" if it is neither."""
        names = {"train": "train", "test": "test", **self.splits}
        if all(row.get("split") in (None, "") for _, row in rows):
            return self.divided(rows)
        said = [text(row, "split", place) for place, row in rows]
        for (place, row), name in zip(rows, said, strict=True):
            if not self.splits and name not in names.values():
                raise UserError(
                    f'{place}: split must be "train" or "test", not {row.get("split")!r}; '
                    "or give a folder with a file for each, or say which are which: task.options.splits.test=NAME"
                )
        if unknown := [name for name in self.splits.values() if name not in said]:
            others = ", ".join(dict.fromkeys(filter(None, said)))
            raise UserError(f"source={self.source!r} has no row of the split {unknown[0]}: it has {others}")
        if names["train"] == names["test"]:
            sides = iter(self.divided([row for row, name in zip(rows, said, strict=True) if name == names["train"]]))
            return [next(sides) if name == names["train"] else "" for name in said]
        side = {name: key for key, name in names.items()}
        return [side.get(name, "") for name in said]

    def divided(self, rows: list[Placed]) -> list[str]:
        """Sides by a hash of each row, neither of them empty if two rows differ."""
        keys = [text(row, "id", place) or json.dumps(row.get("prompt"), default=str) for place, row in rows]
        return list(sides(keys, self.test_share))


def share(test_share: float | None) -> float:
    """The share that is for testing, a fifth unless it is given. Raises UserError unless it is above 0 and below 1."""
    given = TEST_SHARE if test_share is None else test_share
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < 1:
        raise UserError(f"test_share={given!r} is no share: write a number above 0 and below 1")
    return given


def sides(keys: Sequence[str], test_share: float) -> list[Split]:
    """The side of each key, by a hash of it alone; neither side is empty if two keys differ."""
    places = [_place_of(key) for key in keys]
    first, last = min(places), max(places)
    limit = min(max(test_share, math.nextafter(first, 1)), last)
    return ["test" if place < limit else "train" for place in places]


def names(key: str, names: Any) -> dict[str, str]:
    """Those that are given."""
    if names is not None and not isinstance(names, Mapping):
        raise UserError(f"{key}={names!r:.80} has no names: write {key}.NAME=VALUE")
    given = {str(name): value for name, value in (names or {}).items() if value is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise UserError(f"{key}.{name}={value!r:.80} is no name: write a text")
    return {name: str(value) for name, value in given.items()}


def _place_of(key: str) -> float:
    """A number from 0 to 1 that depends on `key` alone."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48
