"""What an evaluation prints."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from resd.report.worth import honesty, points, summary


def show(metrics: Mapping[str, float], weighed: Mapping[str, Any] | None = None) -> None:
    """A table for people at a terminal; for anything else one line of JSON."""
    if not sys.stdout.isatty():
        print(json.dumps(metrics))
        return
    console = Console(highlight=False)
    if weighed is not None:
        console.print(worth_table(weighed))
        console.print(*(escape(note) for note in (honesty(weighed), *weighed["notes"])), sep="\n")
        return
    table = Table("metric", Column("value", justify="right"), title="the test split", title_justify="left")
    for name, value in metrics.items():
        share = "@" in name or name.endswith(("pooled", "truncated"))
        table.add_row(escape(name.removeprefix("eval/")), f"{100 * value:.2f} %" if share else f"{value:g}")
    console.print(table)


def worth_table(weighed: Mapping[str, Any]) -> Table:
    """Entries, best first, as people read them."""
    numbers = (Column(name, justify="right") for name in ("helpful", "harmful", "worth", "95 % interval"))
    table = Table("entry", "text", *numbers, title=summary(weighed), title_justify="left")
    for entry in weighed["entries"]:
        table.add_row(entry["id"], escape(entry["text"]), str(entry["helpful"]), str(entry["harmful"]), *points(entry))
    return table
