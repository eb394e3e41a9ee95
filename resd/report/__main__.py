"""`python -m resd.report RUN [RUN …] --out report.html`: one self-contained page about one or more runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from resd.report.html import write_report
from resd.types import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m resd.report", description="One HTML file about training runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory; seeds of one method join")
    parser.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--title", default="resd report", help="heading of the page")
    chosen = parser.parse_args(arguments)
    try:
        size = write_report(chosen.runs, chosen.out, title=chosen.title)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {chosen.out} cannot be written ({error.strerror}): choose another --out", file=sys.stderr)
        return 2
    print(f"{chosen.out}: {size / 1e6:.1f} MB; open it in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
