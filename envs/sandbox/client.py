"""The outside of the sandbox: starts the fork server, keeps the deadlines, and trusts nothing that comes back."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any

import resd
from resd.envs.sandbox.values import PACKET, plain
from resd.types import UserError

KERNEL_LAYERS = frozenset({"namespaces", "landlock", "seccomp"})
_ENOUGH = frozenset({"namespaces", "seccomp"})  # either keeps a program from other processes of its user
_ROOT = str(Path(resd.__file__).resolve().parents[1])
_START = (
    "import sys; sys.path.append(sys.argv[1]); from resd.envs.sandbox.server import serve; "
    "serve(int(sys.argv[2]), sys.argv[3:])"
)
_START_SECONDS = 20.0
_END_SECONDS = 5.0
_GRACE = 0.25  # of seconds_per_call, for all calls after one that ran out of time or memory or ended its process
_ANSWER = 5.0  # default of seconds_per_answer, in seconds_per_call


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call gave.

    value: finite numbers and lists of them, where they are wanted texts, True, False and None; None after an error
    error: None, or `syntax`, `exception`, `memory`, `timeout`, `killed` (its process ended), `bad_value` (it returned
        something else than numbers and lists), `too_long` (the source, or the arguments)
    detail: one or more lines on the error, at most 2000 characters, of which the program may be the author
    """

    value: Any = None
    error: str | None = None
    detail: str = ""


class Sandbox:
    """A fork server and the layers that hold its children. `without` leaves layers out, for tests of the others."""

    def __init__(self, without: Collection[str] = ()) -> None:
        if sys.platform != "linux":
            raise UserError("programs written by a model are run on Linux only, which has the means to hold them")
        self.without = tuple(without)
        self.lock = threading.Lock()
        self._start()
        try:
            child = self._fork(1)
            self.layers = child.layers
            self._end(child)
        except OSError as error:
            said = self.close()
            raise UserError(f"the sandbox for programs does not start on this machine: {said or error}") from None

    def call(
        self,
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
        """See `call` of this module."""
        if not allow_unsafe and _ENOUGH.isdisjoint(self.layers):
            raise UserError(
                "this machine can hold no program of a model: it has neither user namespaces nor seccomp; "
                "run on one that has, or accept the danger with task.options.allow_unsafe=true"
            )
        try:
            program = f"{function}\n{source}".encode()
        except UnicodeEncodeError as error:
            return [Outcome(None, "syntax", f"the source is not Unicode: {error.reason}")] * len(arguments)
        calls = [list(each) if spread else [each] for each in arguments]
        if max(len(program), len(json.dumps(calls))) > PACKET:
            return [Outcome(None, "too_long", f"source or arguments have more than {PACKET} bytes")] * len(arguments)
        patience = _ANSWER * seconds_per_call if seconds_per_answer is None else seconds_per_answer
        with self.lock:
            if self.process.poll() is not None:  # it ended, or an interrupted call has closed it
                self._start()
            try:
                return self._answer(program, calls, seconds_per_call, patience, texts)
            except OSError as error:
                self.close()
                raise RuntimeError(f"the sandbox is broken: {error}") from error
            except BaseException:
                self.close()
                raise

    def _answer(
        self, program: bytes, calls: list[list[Any]], seconds: float, patience: float, texts: bool
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        end = monotonic() + patience
        while len(outcomes) < len(calls) and monotonic() < end:
            child = self._fork(ceil(patience) + 1)
            if child.layers != self.layers:
                raise OSError(f"a process is held by {child.layers} instead of {self.layers}")
            outcomes += child.converse(program, calls[len(outcomes) :], seconds, end, texts)
            ending = self._end(child)
            if outcomes[-1].error == "killed":
                outcomes[-1] = replace(outcomes[-1], detail=f"the program ended its process: {ending}")
            end = min(end, monotonic() + _GRACE * seconds)
        late = Outcome(None, "timeout", "no time was left for this call")
        return outcomes + [late] * (len(calls) - len(outcomes))

    def _fork(self, cpu_seconds: int) -> "_Child":
        ours, theirs = _pair()
        with theirs:
            socket.send_fds(self.control, [f"answer {cpu_seconds}".encode()], [theirs.fileno()])
        return _Child(ours)

    def _end(self, child: "_Child") -> str:
        self.control.send(b"kill")
        ending = self.control.recv(64).decode()
        child.channel.close()
        return ending

    def _start(self) -> None:
        self.control, theirs = _pair()
        self.control.settimeout(_START_SECONDS)
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        with theirs:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *["-s", "-S", "-P", "-B", "-W", "ignore", "-c"],
                    _START,
                    _ROOT,
                    str(theirs.fileno()),
                    *self.without,
                ],
                env={"PYTHONHASHSEED": "0"} | kept,  # so that an answer's verdict is the same everywhere
                pass_fds=[theirs.fileno()],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )

    def close(self) -> str:
        """End the server, upon which its children end, by force if it does not; gives what it said last."""
        self.control.close()
        try:
            said = self.process.communicate(timeout=_END_SECONDS)[1]
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # all of it: who lives on would hold the pipe open
            try:
                said = self.process.communicate(timeout=_END_SECONDS)[1]
            except subprocess.TimeoutExpired:
                said = b""
        return said.decode(errors="replace").strip() if said else ""

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Connected sockets, neither of them a standard descriptor, which this process may have closed."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if min(end.fileno() for end in ends) > 2:
        return ends
    first, second = (socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3)) for end in ends)
    for end in ends:
        end.close()
    return first, second


class _Child:
    """This side of the process in which one program runs."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        channel.settimeout(_START_SECONDS)
        packet = channel.recv(PACKET)
        if not packet:
            raise OSError("a process ended before it was sealed")
        self.layers = tuple(json.loads(packet))  # sent before it has received the program

    def converse(
        self, program: bytes, calls: list[list[Any]], seconds: float, end: float, texts: bool
    ) -> list[Outcome]:
        """The outcomes of the calls up to the first after which the process is of no more use."""
        outcomes: list[Outcome] = []
        start = monotonic()
        with suppress(TimeoutError, ConnectionError):  # whatever is wrong shows again when there is no reply
            for packet in (json.dumps(calls).encode(), program):
                self._wait_until(start + seconds)
                self.channel.send(packet)
        while len(outcomes) < len(calls):
            outcomes.append(self._reply(min(start + seconds, end), texts))
            if outcomes[-1].error in ("timeout", "memory", "killed"):
                break
            start = monotonic()
        return outcomes

    def _wait_until(self, deadline: float) -> None:
        self.channel.settimeout(max(deadline - monotonic(), 1e-3))

    def _reply(self, deadline: float, texts: bool) -> Outcome:
        self._wait_until(deadline)
        try:
            packet = self.channel.recv(PACKET + 1)
        except TimeoutError:
            return Outcome(None, "timeout", "the call ran out of time")
        except ConnectionError:
            packet = b""
        return _read(packet, texts) if packet else Outcome(None, "killed")


def _read(packet: bytes, texts: bool) -> Outcome:
    """The outcome in a packet that the program itself may have written."""
    try:
        reply = json.loads(packet)
        if "value" in reply:
            return _value(reply["value"], texts)
        kind, detail = reply["error"], reply["detail"]
        if kind in ("syntax", "exception", "memory", "bad_value") and type(detail) is str:
            return Outcome(None, kind, _printable(detail))
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    return Outcome(None, "bad_value", "the reply is not a value that can be used")


def _value(value: Any, texts: bool) -> Outcome:
    try:
        return Outcome(plain(value, texts))
    except ValueError as error:
        return Outcome(None, "bad_value", str(error))


def _printable(text: str) -> str:
    """At most 2000 characters, without control characters and halves of surrogate pairs."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text[:2000])
