"""The process between a run and one verifier: nothing that the verifier starts outlives it, or the run.

The guard makes the worker, is its parent, and adopts whatever its descendants leave behind (Linux's subreaper), so
that all of them can be found below it. It ends them when the worker has died, when the run says so by closing its end
of `control`, and when the run is gone. It also keeps the end of what they print. Asked with one byte, and at the end,
it reports in one line of JSON: `status`, the worker's as waitpid gives it, and `said`.

Imports little, since each worker has one.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import traceback
from multiprocessing.connection import wait
from pathlib import Path
from time import sleep

TAIL = 2000  # bytes of what was printed
TICK = 0.5  # seconds between two looks at whether the run is still there
_PDEATHSIG, _SUBREAPER = 1, 36  # of prctl


def main(run: int, channel_fd: int, control_fd: int) -> None:
    """Guard a worker that answers over `channel_fd`, for the process `run`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file in the folder of the run
    _prctl(_SUBREAPER, 1)
    channel, control = socket.socket(fileno=channel_fd), socket.socket(fileno=control_fd)
    output, theirs = os.pipe()
    worker = os.fork()
    if worker == 0:
        control.close()
        os.close(output)
        _work(channel, theirs, os.getppid())
    channel.close()
    os.close(theirs)
    os.set_blocking(output, False)
    Guard(worker, output, control).watch(run)


def _work(channel: socket.socket, output: int, guard: int) -> None:
    try:
        os.setsid()
        _prctl(_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # which was gone before that took hold
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd in (1, 2):
            os.dup2(output, fd)
        os.close(output)
        from resd.verify.serve import serve

        serve(channel)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


class Guard:
    def __init__(self, worker: int, output: int, control: socket.socket) -> None:
        self.worker, self.output, self.control = worker, output, control
        self.status: int | None = None
        self.said = b""

    def watch(self, run: int) -> None:
        """Until the worker, the run or the run's interest in it has ended."""
        woken, wakes = socket.socketpair()
        for end in (woken, wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            while self._reap() and os.getppid() == run:
                ready = wait([self.control, self.output, woken], TICK)
                if woken in ready:
                    woken.recv(4096)
                self._listen()
                if self.control in ready:
                    if not self.control.recv(1):
                        break
                    self._report()
        finally:
            with contextlib.suppress(OSError):
                os.killpg(self.worker, signal.SIGKILL)  # at once, so that no fork escapes
            while kill_descendants(os.getpid()):
                self._reap()
                sleep(0.002)
            self._listen()
            self._report()

    def _reap(self) -> bool:
        """Bury the dead; whether the worker lives."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.worker:
                    self.status = found[1]
        return self.status is None

    def _listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):  # and look at the rest after whatever else there is to do
                if not (printed := os.read(self.output, 65536)):
                    break
                self.said = (self.said + printed)[-TAIL:]

    def _report(self) -> None:
        report = {"status": self.status, "said": self.said.decode(errors="replace")}
        with contextlib.suppress(OSError):
            self.control.sendall(json.dumps(report).encode() + b"\n")


def kill_descendants(pid: int) -> int:
    """Send SIGKILL to all processes below `pid`; how many there were, dead ones that wait for burial included."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parent = int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    below, found = [pid], 0
    while below:
        for child in children.get(below.pop(), []):
            found += 1
            below.append(child)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3)
