"""The columns of a user's rows under the names that `task=local` reads, and prompts made of several columns."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, TemplateError

from resd.types import UserError

Row = dict[str, Any]


class Columns:
    """`names` are the user's columns by ours (`{"prompt": "question"}`); a row keeps its own columns beside them.

    template: Jinja, in which the columns of a row are variables; it makes the prompt
    """

    def __init__(self, names: Mapping[str, str], template: str | None) -> None:
        self.names, self.template = dict(names), template
        if template is not None:
            _compiled(template)

    def __call__(self, row: Row, place: str) -> Row:
        """The row as the task reads it; cells that say nothing (NaN) are None.

        Raises UserError, with the place, for a column that is not there.
        """
        row = {name: None if isinstance(cell, float) and math.isnan(cell) else cell for name, cell in row.items()}
        for name, theirs in self.names.items():
            if theirs not in row:
                raise UserError(
                    f"{place} has no column {theirs!r}, which columns.{name} names: its columns are {', '.join(row)}"
                )
        row |= {name: row[theirs] for name, theirs in self.names.items()}
        return row if self.template is None else row | {"prompt": _filled(self.template, row, place)}


def _filled(template: str, row: Row, place: str) -> str:
    try:
        return _compiled(template).render(row)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    except Exception as error:  # a filter may raise anything
        raise UserError(
            f"{place}: the template cannot be filled ({' '.join(str(error).split())}): its columns are {', '.join(row)}"
        ) from None


@cache
def _compiled(template: str) -> Template:
    try:
        return Environment(undefined=StrictUndefined, finalize=_said, autoescape=False).from_string(template)
    except TemplateError as error:
        raise UserError(f"template={template!r:.80} cannot be read as Jinja: {error}") from None


def _said(value: Any) -> Any:
    if value is None:
        raise UserError("the template shows a cell that is empty: fill it, leave the row out, or write {% if COLUMN %}")
    return value
