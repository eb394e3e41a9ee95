"""A sandbox for Python programs that a model wrote. Linux only.

    outcomes = call(source, "predict_position", [0.1, 0.2], seconds_per_call=1.0)

runs `source` once and calls its function with one argument after the other, in a process that was forked for this
answer, knows nothing but the source and the arguments, and is sealed by every layer that the machine has (`layers()`;
`kernel.py` says what each takes away): an unprivileged user, namespaces, no_new_privs, resource limits, Landlock,
seccomp. With neither namespaces nor seccomp nothing is run unless `allow_unsafe`. No privilege is needed.

What comes out is numbers and lists of numbers, where they are wanted also short texts, True, False and None, rebuilt
and checked here, and for an error a short text, which the program may have chosen: print it, never act on it. Verdicts
belong on this side: the expected values never go in.

Programs may import `server.OFFERED`, a part of the standard library, and see neither files nor a network; what they
print is lost. Random numbers and hashes are the same in every run. All calls of an answer share a process, so that a
program can remember earlier ones.

It does not protect against: a hole in the kernel, or in the dozen system calls that stay allowed; side channels such
as caches and timing; a busy processor for as long as the deadline. With fewer layers it protects less: namespaces alone
leave every system call. Landlock alone, run only with `allow_unsafe`, leaves UDP, sockets that lie in the file system,
the dates and permissions of the user's own files, before Linux 6.12 signals, System V IPC objects that stay behind, and
limits, priority and processors of the asking process, which the kernel lets every process of the same user change
(`man 2 prlimit`: it compares user ids, and asks neither Landlock nor whether a process may be traced). And a program
may return whatever numbers it likes, whenever it likes: a judge decides on the numbers alone.
"""

import atexit
import os
import threading
from collections.abc import Sequence
from typing import Any

from resd.envs.sandbox.client import Outcome, Sandbox

__all__ = ["Outcome", "Sandbox", "call", "layers"]

_sandboxes: dict[int, Sandbox] = {}
_lock = threading.Lock()


def call(
    source: str,
    function: str,
    arguments: Sequence[Any],
    seconds_per_call: float,
    *,
    seconds_per_answer: float | None = None,
    allow_unsafe: bool = False,
    spread: bool = False,
    texts: bool = False,
) -> list[Outcome]:
    """One outcome for each of `arguments` (JSON values); a few milliseconds for a harmless program.

    With `spread` each of them is a list, the arguments of one call; with `texts` calls may return texts, True, False
    and None besides numbers.

    Time is wall-clock time. The first call includes running `source`. `seconds_per_answer` (default: 5 calls' worth)
    bounds the sum; once a call has run out of time or memory, or ended its process, the calls left have a quarter of a
    call's time together, in fresh processes. Raises UserError where the machine has no layer to hold a program, and
    RuntimeError if the sandbox itself is broken.
    """
    return _shared().call(
        source,
        function,
        arguments,
        seconds_per_call,
        seconds_per_answer=seconds_per_answer,
        allow_unsafe=allow_unsafe,
        spread=spread,
        texts=texts,
    )


def layers() -> tuple[str, ...]:
    """The layers that hold programs on this machine, as a sealed process has reported them."""
    return _shared().layers


def _shared() -> Sandbox:
    """The sandbox of this process; one that a fork has inherited belongs to the parent."""
    with _lock:
        if os.getpid() not in _sandboxes:
            _sandboxes[os.getpid()] = sandbox = Sandbox()
            atexit.register(sandbox.close)
        return _sandboxes[os.getpid()]
