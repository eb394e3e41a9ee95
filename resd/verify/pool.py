"""The pool: answers in, verdicts or the reasons of their loss out, as they finish; also what an environment says."""

import os
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from time import sleep
from typing import Any

import cloudpickle

from resd.task import Task, follows
from resd.types import Lost, Messages, Problem, Turn, UserError, Verdict
from resd.verdict import checked, readable
from resd.verify.heard import heard
from resd.verify.worker import START_SECONDS, Gone, Worker

Answer = tuple[Problem, str | Sequence[Turn], bool]  # problem, response, truncated
Said = Verdict | Messages | Lost
PAUSE = 1.0  # seconds, for processes or memory that are not to be had just now
TRIES = 3  # of starting a worker, and of judging an answer that no worker has begun to judge
PRINTED = 300  # characters of what a verifier has printed


class Verifier:
    """Judges batches of answers in `workers` processes with `timeout` seconds for each answer.

    A thread for each worker feeds it, keeps its deadlines and replaces it. Raises UserError for a task that cannot be
    sent to another process and, from `poll` and `verify`, when no worker can start.
    """

    def __init__(self, task: Task, workers: int, timeout: float) -> None:
        self.image = pickled(task)
        self.environment = dict(os.environ)
        self.follows = follows(task)
        self.timeout = timeout
        self.closed = False
        self.pending = 0
        self.waiting: SimpleQueue[tuple[int, str, bytes] | None] = SimpleQueue()
        self.found: SimpleQueue[tuple[int, Any] | Exception] = SimpleQueue()
        self.workers: list[Worker | None] = [None] * workers
        self.threads = [Thread(target=self._work, args=(slot,), daemon=True) for slot in range(workers)]
        for thread in self.threads:
            thread.start()

    def verify(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict | Lost]]:
        """(index, verdict) as they finish."""
        return self._asked("verify", answers)

    def follow(self, conversations: Sequence[tuple[Problem, Sequence[Turn]]]) -> Iterator[tuple[int, Messages | Lost]]:
        """(index, what the environment says after the last turn) as they finish."""
        return self._asked("follow", conversations)

    def _asked(self, kind: str, several: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        for index, asked in enumerate(several):
            self._submit(index, kind, asked)
        while self.busy:
            yield from self.poll()

    def submit(self, index: int, answer: Answer) -> None:
        """Judge an answer when a worker is free; `poll` hands the verdict out."""
        self._submit(index, "verify", answer)

    def _submit(self, index: int, kind: str, asked: tuple[Any, ...]) -> None:
        self.pending += 1
        try:
            data = cloudpickle.dumps(asked)
        except Exception as error:
            self.found.put((index, Lost(f"the problem {asked[0].id!r} cannot be pickled: {error}")))
        else:
            self.waiting.put((index, kind, data))

    @property
    def busy(self) -> bool:
        """Whether a verdict is still to come."""
        return self.pending > 0

    def poll(self, idle: bool = True) -> list[tuple[int, Any]]:
        """The verdicts that are there; `idle` waits for one if there is none but one is to come."""
        found: list[tuple[int, Any]] = []
        while self.pending and (not self.found.empty() or (idle and not found)):
            match self.found.get():
                case Exception() as error:
                    self.close()
                    raise error
                case judged:
                    self.pending -= 1
                    found.append(judged)
        return found

    def close(self) -> None:
        """End all processes; what is not judged yet never will be."""
        self.closed = True
        for _ in self.threads:
            self.waiting.put(None)
        for worker in self.workers:
            if worker:
                worker.interrupt()
        for thread in self.threads:
            thread.join()

    def _work(self, slot: int) -> None:
        try:
            self._start(slot)
            while (given := self.waiting.get()) and not self.closed:
                index, kind, data = given
                self.found.put((index, self._ask(slot, kind, data)))
                if self.workers[slot] is None:
                    self._start(slot)
        except Exception as error:
            if not self.closed:
                self.found.put(error)
        finally:
            self._end(slot)

    def _ask(self, slot: int, kind: str, data: bytes) -> Said:
        for _ in range(TRIES):
            worker = self.workers[slot] or self._start(slot)
            try:
                said = outcome(worker.ask(kind, data, self.timeout))
            except Gone as gone:
                lost = Lost(gone.reason)
                said = self._show(lost, worker) if gone.begun else lost
                self._end(slot)
                if gone.begun or self.closed:
                    break
            else:
                return self._show(said, worker) if isinstance(said, Lost) else said
        return said

    def _start(self, slot: int) -> Worker:
        reason = printed = ""
        for _ in range(TRIES):
            try:
                worker = self.workers[slot] = Worker(self.image, self.environment)
            except OSError as error:
                reason = str(error)
                sleep(PAUSE)
                continue
            if self.closed:
                break
            try:
                worker.start(START_SECONDS)
                return worker
            except Gone as gone:
                reason, printed = gone.reason, worker.said()
                self._end(slot)
                if gone.begun or self.closed:  # it would say the same again
                    break
        raise UserError(cannot_start(reason, printed))

    def _end(self, slot: int) -> None:
        if worker := self.workers[slot]:
            worker.end()
            self.workers[slot] = None

    def _show(self, lost: Lost, worker: Worker) -> Lost:
        """With what the verifier has printed, which may explain it."""
        if printed := worker.said():
            return Lost(f"{lost.reason}; it has printed: {printed[-PRINTED:]!r}")
        return lost


def pickled(task: Task) -> bytes:
    """The task as it goes to its workers. Raises UserError if it cannot.

    What they could not import (of `__main__`, a notebook or a function's inside) goes along, so that no worker runs the
    script again that started it.
    """
    try:
        return cloudpickle.dumps(task)
    except Exception as error:
        raise UserError(
            f"the task {type(task).__name__} cannot be sent to the processes that judge ({error}): "
            "let it and what its functions name hold plain data, and open files in verify"
        ) from None


def outcome(reply: dict[str, Any]) -> Said:
    """What a worker's reply says, checked once more on this side."""
    try:
        if "verdict" in reply:
            return checked(Verdict(**reply["verdict"]))
        if "heard" in reply:
            return heard(reply["heard"])
        return Lost(readable(str(reply.get("refused") or reply["lost"])))
    except (TypeError, LookupError):
        return Lost("wrote into the channel of its verdicts")
    except UserError as error:
        return Lost(str(error))


def cannot_start(reason: str, printed: str) -> str:
    said = f"; it has printed: {printed[-PRINTED:]!r}" if printed else ""
    return f"the process that judges answers cannot start: {reason}{said}"
