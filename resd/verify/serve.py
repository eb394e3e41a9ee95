"""A worker's own side: reads questions, asks the task, replies with plain data under the number of the question.

A reply is a line `TOKEN NUMBER JSON`, with a line break before it too: whatever else is written into the channel is no
reply. A process that the verifier has forked cannot reply, neither by returning nor by raising.
"""

import json
import os
import pickle
import resource
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import spawn
from typing import Any

from resd.task import SelfTesting, Task, follows
from resd.types import Turn, UserError
from resd.verdict import checked
from resd.verify.heard import heard, replayed

LIMIT = 16 * 2**20  # characters of a reply


def serve(channel: socket.socket) -> None:
    """Until the run closes the channel."""
    worker = os.getpid()
    os.register_at_fork(after_in_child=lambda: _close(channel))
    reader = channel.makefile("rb")
    token, preparation, image = pickle.load(reader)

    def reply(number: int, said: dict[str, Any]) -> None:
        if os.getpid() != worker:
            os._exit(0)
        text = json.dumps(said, allow_nan=False)
        if len(text) > LIMIT:
            text = json.dumps({"lost": f"returned a verdict of {len(text):,} characters ({LIMIT:,} may be)"})
        channel.sendall(f"\n{token} {number} {text}\n".encode())

    try:
        spawn.prepare(preparation)
        del sys.argv[1:]  # as where the run imports the task
        task = pickle.loads(image)
    except BaseException as error:
        reply(0, {"broken": explain(error)})
        return
    reply(0, {"ready": True})
    own = Surroundings()
    while True:
        try:
            number, kind, data = pickle.load(reader)
        except EOFError:
            return
        reply(number, {"begun": True})
        try:
            said = QUESTIONS[kind](task, data)
        except BaseException as error:
            own.restore()  # memory, say, to explain it with
            said = {"refused" if isinstance(error, UserError) else "lost": explain(error)}
        whole = own.restore()
        reply(number, said)
        if not whole:
            return


def _verify(task: Task, data: bytes) -> dict[str, Any]:
    problem, said, truncated = pickle.loads(data)
    if follows(task):
        said = replayed(task, problem, [Turn(said)] if isinstance(said, str) else said)
    return {"verdict": asdict(checked(task.verify(problem, said, truncated)))}


def _follow(task: Task, data: bytes) -> dict[str, Any]:
    assert follows(task)
    problem, turns = pickle.loads(data)
    return {"heard": [dict(each) for each in heard(task.follow(problem, replayed(task, problem, turns)))]}


def _self_test(task: Task, data: bytes) -> dict[str, Any]:
    told = task.self_test() if isinstance(task, SelfTesting) else None
    return {"told": str(told) if told else None}


QUESTIONS = {"verify": _verify, "follow": _follow, "self_test": _self_test}


def explain(error: BaseException) -> str:
    """One line: what was raised and where; of a UserError, what it says."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(it cannot be said)"
    if isinstance(error, UserError):
        return text[:2000]
    said = f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return f"{said} ({frames[0].filename}:{frames[0].lineno})" if frames else said


class Surroundings:
    """What an answer's verdict may leave changed in the process and would disturb the next one."""

    def __init__(self) -> None:
        self.folder = os.getcwd()
        self.streams = sys.stdout, sys.stderr
        self.files = self._files()
        kinds = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
        self.limits = {kind: resource.getrlimit(kind) for kind in kinds}

    def restore(self) -> bool:
        """Put them back; False if that is not possible."""
        try:
            for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
                signal.setitimer(timer, 0)
            for kind, limits in self.limits.items():
                if resource.getrlimit(kind) != limits:
                    resource.setrlimit(kind, limits)
            os.chdir(self.folder)
            sys.stdout, sys.stderr = self.streams
            for stream in self.streams:
                stream.flush()
            return self._files() == self.files
        except (OSError, ValueError):
            return False

    def _files(self) -> list[tuple[int, int]]:
        return [(found.st_dev, found.st_ino) for found in map(os.fstat, range(3))]


def _close(channel: socket.socket) -> None:
    with suppress(OSError):
        os.close(channel.detach())
