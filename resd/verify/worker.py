"""The run's side of one worker: questions go out, replies come in, and nothing is waited for without a deadline."""

import json
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from multiprocessing import spawn
from pathlib import Path
from subprocess import _args_from_interpreter_flags as _flags  # type: ignore[attr-defined]
from time import monotonic
from typing import Any

from resd.verify.serve import LIMIT

START_SECONDS = 120.0  # for imports, on a busy machine
GRACE = 10.0  # seconds for a guard's last report
_PREPARE = ("sys_path", "sys_argv", "orig_dir", "dir")  # of what multiprocessing tells its spawned processes
_START = (
    "import sys; sys.path.append(sys.argv[1]); from resd.verify.guard import main; main(*map(int, sys.argv[2:]))",
    str(Path(__file__).resolve().parents[2]),
)


class Gone(Exception):
    """A worker is of no more use. `begun`: it had begun to judge the answer that it was asked about last."""

    def __init__(self, reason: str, begun: bool) -> None:
        super().__init__(reason)
        self.reason, self.begun = reason, begun


class Worker:
    """A process that holds a task and judges one answer at a time. `image` is the pickled task.

    `environment`: that of the process, given since what a new process would inherit is read while it starts, and an
    engine that loads in another thread sets variables. Raises OSError when no process is to be had.
    """

    def __init__(self, image: bytes, environment: dict[str, str]) -> None:
        self.channel, channel = socket.socketpair()
        self.control, control = socket.socketpair()
        with channel, control:
            fds = [channel.fileno(), control.fileno()]
            self.process = subprocess.Popen(
                [sys.executable, *_flags(), "-c", *_START, str(os.getpid()), *map(str, fds)],
                env=environment,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.image = image
        self.token = secrets.token_hex(8)
        self.number = 0
        self.begun = self.interrupted = False
        self.buffer = bytearray()
        self.last_words: str | None = None

    def start(self, seconds: float) -> None:
        """Load the task. Raises Gone."""
        known = spawn.get_preparation_data("verifier")
        self._send((self.token, {name: known[name] for name in _PREPARE if name in known}, self.image), seconds)
        said = self._reply(seconds, f"took longer than {seconds:g} s to start")
        if "broken" in said:
            raise Gone(str(said["broken"]), begun=True)

    def ask(self, kind: str, data: bytes, seconds: float) -> dict[str, Any]:
        """The reply to a question of `serve.QUESTIONS`. Raises Gone."""
        self.number += 1
        self.begun, self.last_words = False, None
        self._send((self.number, kind, data), seconds)
        self._reply(seconds, "did not begin")
        self.begun = True
        return self._reply(seconds, f"took longer than {seconds:g} s")

    def said(self) -> str:
        """The end of what the process and its children have printed."""
        if self.last_words is None:
            with suppress(OSError):
                self.control.sendall(b"?")
            self._report(1.0)
        return (self.last_words or "").strip()

    def interrupt(self) -> None:
        """Make a call that waits in another thread raise Gone."""
        self.interrupted = True
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """End the process and all that it has started."""
        self.process.send_signal(signal.SIGCONT)  # should the verifier have stopped its guard
        with suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.channel.close()
        self.control.close()

    def _send(self, message: Any, seconds: float) -> None:
        self.channel.settimeout(seconds)
        try:
            self.channel.sendall(pickle.dumps(message))
        except TimeoutError:
            raise Gone("did not read its answer", self.begun) from None
        except OSError:
            raise Gone(self._fate(), self.begun) from None

    def _reply(self, seconds: float, late: str) -> dict[str, Any]:
        deadline = monotonic() + seconds
        mark = f"{self.token} {self.number} ".encode()
        while True:
            line = self._line(deadline, late)
            if line.startswith(mark):
                with suppress(ValueError, RecursionError):
                    said = json.loads(line[len(mark) :])
                    if isinstance(said, dict):
                        return said
                raise Gone("wrote into the channel of its verdicts", self.begun)

    def _line(self, deadline: float, late: str) -> bytes:
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > 2 * LIMIT:
                raise Gone("wrote into the channel of its verdicts", self.begun)
            self.channel.settimeout(max(deadline - monotonic(), 1e-3))
            try:
                found = self.channel.recv(2**20)
            except TimeoutError:
                raise Gone(late, self.begun) from None
            except OSError:
                found = b""
            if not found:
                raise Gone(self._fate(), self.begun)
            self.buffer += found
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line

    def _fate(self) -> str:
        """Why the channel is closed, as the guard says once the worker and its children are dead."""
        if self.interrupted:
            return "was interrupted"
        status = self._report(GRACE)
        if status is None:
            return "its process and its guard died" if self.process.poll() else "closed the channel of its verdicts"
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return f"its process ended (exit status {code})"
        known = {number.value: number.name for number in signal.Signals}
        return f"its process died ({known.get(-code, f'signal {-code}')})"

    def _report(self, seconds: float) -> int | None:
        """The worker's wait status, None while it lives; keeps what was printed."""
        self.control.settimeout(seconds)
        line = b""
        with suppress(OSError, ValueError, IndexError):  # the last two where the guard is gone
            while not line.endswith(b"\n") and (found := self.control.recv(65536)):
                line += found
            report = json.loads(line.splitlines()[-1])
            self.last_words = report["said"]
            return report["status"]
        return None
