"""Rows in the columns that APIGen's published set has: `query`, `tools` and `answers`, and an `id` if there is one.

`tools` and `answers` are lists, or JSON texts of them. A set is divided as in `resd.envs.divided`. An argument that is
null is left out, which is what tables make of one that other rows have. Everything that cannot be judged is refused
with the place of its row: what is no JSON, functions and arguments that are called and not declared, no call at all.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from resd.envs.columns import Row
from resd.envs.divided import Divided
from resd.envs.function_calling.calls import MAX_CHARS, Call, Fault, Malformed, calls, faults, read
from resd.envs.function_calling.draw import Item
from resd.envs.function_calling.tools import Tool, tool
from resd.envs.functions import text
from resd.task import Split
from resd.types import UserError

COLUMNS = ("query", "tools", "answers")


class Rows:
    """Raises UserError when the source or a row cannot be used."""

    def __init__(self, source: str, test_share: float | None = None) -> None:
        self.rows = Divided(source, _named, test_share=test_share)

    def __call__(self, split: Split) -> Iterator[tuple[str, str, Item]]:
        """(place, id, item) of each row of a split."""
        for own, place, row in self.rows(split):
            yield place, text(row, "id", place) or own, item(row, place)


def item(row: Row, place: str) -> Item:
    """What a row asks for. Raises UserError, which names the place."""
    query = row["query"]
    if not isinstance(query, str) or not query.strip():
        raise UserError(f"{place}: query must be a text, not {query!r:.40}")
    tools = _cell(row, "tools", place)
    known = declared(tools, place)
    right = []
    for number, call in enumerate(calls(_cell(row, "answers", place)), 1):
        if isinstance(call, Fault):
            raise UserError(f"{place}: call {number} of answers cannot be used: {call.reason}")
        if call.name not in known:
            raise UserError(f"{place}: answers call {call.name!r:.60}, and tools have only {', '.join(known)}")
        arguments = {name: value for name, value in call.arguments.items() if value is not None}
        if unknown := arguments.keys() - known[call.name].parameters.keys():
            raise UserError(f"{place}: answers give {call.name} the argument {min(unknown)!r:.60}, which it has not")
        right.append({"name": call.name, "arguments": arguments})
    if not right:
        raise UserError(f"{place}: answers is empty; leave out rows that want no call")
    if len(json.dumps(right)) > MAX_CHARS:
        raise UserError(f"{place}: answers have more than {MAX_CHARS} characters, more than an answer may have")
    return Item(query, tools, right)


def declared(tools: Any, place: str) -> Mapping[str, Tool]:
    """The functions of a list by name. Raises UserError, which names the place."""
    known: dict[str, Tool] = {}
    for each in tools:
        try:
            found = tool(each)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        if known.setdefault(found.name, found) != found:
            raise UserError(f"{place}: tools declare {found.name} twice, and not alike")
    if not known:
        raise UserError(f"{place}: tools is empty; a row needs a function at least")
    return known


def wanted(item: Item) -> list[Call]:
    """The calls that are right, as the judge compares them."""
    return [Call(call["name"], call["arguments"]) for call in item.calls]


def _named(row: Row, place: str) -> Row:
    """The row with its query as the prompt, by which rows without an id are divided."""
    if lacking := [name for name in COLUMNS if name not in row]:
        raise UserError(f"{place} has no column {lacking[0]!r}: it has {', '.join(row)}")
    return {**row, "prompt": row["query"]}


def _cell(row: Row, name: str, place: str) -> list[Any]:
    """The list that a cell holds or spells, with nothing in it that JSON has not."""
    cell = row[name]
    try:
        value = read(cell if isinstance(cell, str) else json.dumps(cell))
    except Malformed as error:
        raise UserError(f"{place}: {name} cannot be read. {error}") from None
    except (TypeError, ValueError, RecursionError):
        raise UserError(f"{place}: {name} must be a list, or JSON of one, not {cell!r:.40}") from None
    if wrong := next(faults(value, name), None):
        raise UserError(f"{place}: {wrong}")
    if not isinstance(value, list):
        raise UserError(f"{place}: {name} must be a list, or JSON of one, not {cell!r:.40}")
    return value
