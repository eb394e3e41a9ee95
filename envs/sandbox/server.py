"""The inside of the sandbox: a fork server, and the children in which programs run.

The server is a process of its own, started with an empty environment and no open file but the control socket. It loads
the modules that programs may import, gives up what it can, and forks a child for every answer. It never reads a
program, which travels on a socket of the child's own; and the child seals itself before it reads it.

On the control socket, `answer SECONDS` with a socket attached starts a child, `kill` ends it with all its descendants
and is answered with how the child had ended. On the child's socket, one packet each: from the child the layers that
hold it; to the child a list of arguments for each call as JSON, and then the function's name, a line break and the
source; from the child a reply for each call, as soon as it is known.
"""

import gc
import json
import os
import random
import signal
import socket
import sys
import types
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from resd.envs.sandbox import kernel
from resd.envs.sandbox.values import PACKET, plain

Reply = dict[str, Any]
OFFERED = """
    __future__ abc array bisect cmath collections contextlib copy dataclasses datetime decimal enum fractions functools
    heapq itertools json math numbers operator random re statistics string sys textwrap time traceback types typing
    unicodedata warnings
"""
_MEMORY = 512 << 20
_CHANNEL = 3  # the child's descriptors are 0 to 2, all /dev/null, and this one
_FILE = "<answer>"


def serve(descriptor: int, without: Collection[str]) -> None:
    """Answer the control socket until its other end is closed. `without` names layers to leave out."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by who asks, it would be here, and how children end be lost
    kernel.leave_no_core()
    for name in OFFERED.split():
        import_module(name)
    sys.path.clear()
    control = socket.socket(fileno=descriptor)
    layers = {"nobody": kernel.become_nobody, "namespaces": kernel.enter_namespaces}
    held = [name for name, enter in layers.items() if name not in without and _enter(enter)]
    if "namespaces" in held and (first := os.fork()):  # the next child is the init of the process space
        control.close()
        os.waitpid(first, 0)
        os._exit(0)
    kernel.adopt_orphans()
    kernel.hide_memory()
    gc.collect()
    gc.freeze()
    child = 0
    while True:
        message, channels, _, _ = socket.recv_fds(control, 64, 1)
        if message.startswith(b"answer"):
            child = os.fork()
            if not child:
                control.detach()
                _be_child(channels[0], int(message.split()[1]), held, without)
            os.close(channels[0])
            continue
        ending = _kill(child, everything="namespaces" in held) if child else ""
        if not message:
            os._exit(0)
        control.send(ending.encode())
        child = 0


def _enter(layer: Callable[[], None]) -> bool:
    """Try `layer` in a process that can be thrown away, then here."""
    trial = os.fork()
    if not trial:
        try:
            layer()
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(trial, 0)[1]:
        return False
    layer()
    return True


def _kill(child: int, everything: bool) -> str:
    """Kill `child` and all its descendants; tells how `child` had ended, if it had.

    As init of a process space this process may kill `everything` else there.
    """
    ended, status = os.waitpid(child, os.WNOHANG)
    doomed = [] if ended else [child]
    while doomed := doomed or ([-1] if everything else _children()):
        for process in doomed:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        try:
            process, how = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        if process == child:
            status = how  # a process that was ending already has its own
        doomed = []
    if not ended and status == signal.SIGKILL:
        return "it was stopped"
    return signal.Signals(status & 0x7F).name if os.WIFSIGNALED(status) else f"exit status {status >> 8}"


def _children() -> list[int]:
    """The processes that have this one as parent, orphans of an earlier answer included."""
    with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]
    return []


def _be_child(channel: int, seconds: int, held: list[str], without: Collection[str]) -> NoReturn:
    """Seal this process, then run the program that arrives on `channel`."""
    try:
        os.dup2(1, 2)
        os.dup2(channel, _CHANNEL)
        os.closerange(_CHANNEL + 1, 1 << 20)
        layers: dict[str, Callable[[], None]] = {
            "no_new_privs": kernel.forbid_new_privileges,
            "landlock": kernel.restrict_with_landlock,
            "rlimits": lambda: kernel.limit_resources(_MEMORY, seconds, _CHANNEL + 1),
            "seccomp": lambda: kernel.restrict_with_seccomp(_CHANNEL + 1),
        }
        for name, seal in layers.items():
            if name not in without:
                with suppress(OSError):
                    seal()
                    held.append(name)
        random.seed(0)  # or it would differ, as in every forked process
        _send(held)
        calls = json.loads(os.read(_CHANNEL, PACKET))
        function, _, source = os.read(_CHANNEL, PACKET).decode().partition("\n")
        answer = _define(source, function)
        for arguments in calls:
            _send(answer(arguments))
    finally:
        os._exit(0)


def _send(reply: Any) -> None:
    packet = json.dumps(reply).encode()
    if len(packet) > PACKET:
        packet = json.dumps({"error": "bad_value", "detail": "the value is too long"}).encode()
    os.write(_CHANNEL, packet)


def _define(source: str, name: str) -> Callable[[list[Any]], Reply]:
    """What answers arguments: the program's function, or the reason why there is none."""
    module = types.ModuleType("answer")
    sys.modules["answer"] = module  # dataclasses look their module up
    try:
        code = compile(source, _FILE, "exec", dont_inherit=True)
    except Exception as error:
        mistake = _failure("syntax", error, source)
        return lambda _: mistake
    try:
        exec(code, vars(module))
        if name not in vars(module):
            raise NameError(f"name {name!r} is not defined")
    except BaseException as error:
        failure = _failure("exception", error, source)
        return lambda _: failure
    return lambda arguments: _apply(vars(module)[name], arguments, source)


def _apply(function: Callable[..., Any], arguments: list[Any], source: str) -> Reply:
    try:
        value = function(*arguments)
    except BaseException as error:
        return _failure("exception", error, source)
    try:
        return {"value": plain(value, texts=True)}  # the other side, which knows what is wanted, decides
    except ValueError as error:
        return {"error": "bad_value", "detail": str(error)}


def _failure(kind: str, error: BaseException, source: str) -> Reply:
    """The error's type and text, and the lines of the program it came through, innermost last."""
    if isinstance(error, MemoryError) and kind != "syntax":
        error.__traceback__ = None  # which holds the memory
        return {"error": "memory", "detail": f"MemoryError: more than {_MEMORY >> 20} MB"}
    lines, trace = source.split("\n"), error.__traceback__
    places = []
    while trace:
        if trace.tb_frame.f_code.co_filename == _FILE:
            number = trace.tb_lineno or 1
            text = "".join(lines[number - 1 : number]).strip()
            places.append(f"line {number}, in {trace.tb_frame.f_code.co_name}: {text:.200}")
        trace = trace.tb_next
    shown = places if len(places) <= 6 else [*places[:2], "...", *places[-3:]]
    return {"error": kind, "detail": "\n".join([f"{type(error).__name__}: {error}", *shown])[:2000]}
