"""`python -m resd.sweep.job PARENT COMMAND …`: run a command of which nothing is left when it, this process or PARENT
has ended, however they end.

Told to stop, it tells the command, waits for `PATIENCE` seconds and kills what is left: all descendants, those in
sessions of their own included. torchrun alone does not: when it is stopped while it starts its ranks, or killed, they
stay behind.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from resd.process import adopt_orphans, die_with_parent, kill_children

PATIENCE = 15.0


class Stopped(Exception):
    """SIGTERM has arrived."""


def run(parent: int, command: Sequence[str]) -> int:
    """The exit status of `command`, 128 + the signal that ended it, or that of SIGTERM when told to stop."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: PARENT decides what becomes of its jobs
    process = None
    try:
        die_with_parent(signal.SIGTERM, parent)
        adopt_orphans()
        # alone in this process, so that running Python between fork and exec is safe
        process = subprocess.Popen(command, preexec_fn=_as_child)
        status = process.wait()
    except Stopped:
        status = -signal.SIGTERM
        if process:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
    finally:
        kill_children()
    return 128 - status if status < 0 else status


def _as_child() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(signal.SIGTERM)


def _stop(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise Stopped


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
