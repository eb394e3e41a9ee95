"""Processes that do not outlive the one that started them. Linux; elsewhere these functions do nothing."""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PARENT_DEATH, _SUBREAPER = 1, 36  # of prctl


def die_with_parent(number: int, parent: int | None = None) -> None:
    """Receive signal `number` when the parent (its thread that started this process) ends.

    Where `parent` is given and is the parent no longer, that has happened already.
    """
    _prctl(_PARENT_DEATH, number)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, so that `kill_children` finds them."""
    _prctl(_SUBREAPER, 1)


def kill_children() -> None:
    """End and reap all children of this process, and, after `adopt_orphans`, all its descendants."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(stat.parent.name))
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
