"""`python -m resd.report RUN [RUN …] --out report.html`: one self-contained page about one or more runs.

With `--live` it is served to this machine instead, and drawn again as the runs go on.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from resd.arguments import Parser
from resd.report.groups import group_runs
from resd.report.html import write_report
from resd.report.live import Live, serve
from resd.report.markdown import curves, matrices, scores, worths
from resd.report.read import has_something, read_runs
from resd.types import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 with one sentence on standard error."""
    parser = Parser(prog="python -m resd.report", description="One HTML file about training runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory; seeds of one method join")
    parser.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--title", default="resd report", help="heading of the page")
    parser.add_argument(
        "--across",
        action="append",
        default=[],
        metavar="SETTING",
        help="runs that differ in it alone are seeds of one method too, such as task.options.rules",
    )
    parser.add_argument("--live", action="store_true", help="serve the page to this machine while the runs go on")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown too")
    try:
        chosen, _ = parser.parse(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        runs = [path for path in chosen.runs if has_something(path) or not path.exists()]
        left_out = [str(path) for path in chosen.runs if path not in runs and path.is_dir()]
        if runs and left_out:  # a job of a sweep that failed at once
            print(f"left out, for want of a metrics.jsonl: {' '.join(left_out)}")
        if chosen.live:
            serve(Live(runs or chosen.runs, chosen.title, chosen.across))
            return 0
        size = write_report(runs or chosen.runs, chosen.out, title=chosen.title, across=chosen.across)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{chosen.out}: {size / 1e6:.1f} MB; open it in a browser")
    if chosen.markdown:
        groups = group_runs(read_runs(runs), chosen.across)
        told = (scores(groups), curves(groups), matrices(groups), worths(groups))
        print("", *filter(None, told), sep="\n", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
