"""Verification in killable worker processes: a verifier that hangs or crashes loses one answer, never the run.

A lost answer has no verdict (None): it is counted and not trained on, instead of turning into a silent zero reward.
This isolates failures, not attackers; tasks that run model-written code bring their own sandbox.
"""

import multiprocessing as mp
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from time import monotonic
from typing import Any

from resd.task import Task
from resd.types import Problem, Verdict

Answer = tuple[Problem, str, bool]  # problem, response, truncated


class Worker:
    """One process that holds the task and judges answers, one at a time."""

    def __init__(self, task: Task) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(task, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.index: int | None = None
        self.deadline = 0.0
        self.starting = True
        self.dead = False

    def give(self, index: int, answer: Answer, timeout: float) -> None:
        if self.starting:  # so that the deadline does not count the start of the process
            self.pipe.recv()
            self.starting = False
        self.pipe.send(answer)
        self.index, self.deadline = index, monotonic() + timeout

    def take(self) -> Verdict | None:
        """The verdict, or None if the verifier raised or the process died."""
        self.index = None
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.dead = True
            return None

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Verifier:
    """Judges batches of answers in `workers` processes with `timeout` seconds for each answer."""

    def __init__(self, task: Task, workers: int, timeout: float) -> None:
        self.task = task
        self.timeout = timeout
        self.workers = [Worker(task) for _ in range(workers)]
        self.waiting: deque[tuple[int, Answer]] = deque()

    def verify(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict | None]]:
        """(index, verdict) as they finish."""
        for index, answer in enumerate(answers):
            self.submit(index, answer)
        while self.busy:
            yield from self.poll()

    def submit(self, index: int, answer: Answer) -> None:
        """Judge an answer when a worker is free; `poll` hands the verdict out."""
        self.waiting.append((index, answer))
        self._give()

    @property
    def busy(self) -> bool:
        """Whether a verdict is still to come."""
        return bool(self.waiting) or any(worker.index is not None for worker in self.workers)

    def poll(self, idle: bool = True) -> list[tuple[int, Verdict | None]]:
        """The verdicts that are there; `idle` waits for one if there is none but one is to come."""
        busy = [worker for worker in self.workers if worker.index is not None]
        if not busy:
            return []
        patience = max(0.0, min(worker.deadline for worker in busy) - monotonic()) if idle else 0.0
        ready: set[Any] = set(wait([worker.pipe for worker in busy], patience))
        found: list[tuple[int, Verdict | None]] = []
        for slot, worker in enumerate(self.workers):
            if worker.index is None:
                continue
            if worker.pipe in ready:
                found.append((worker.index, worker.take()))
            elif monotonic() >= worker.deadline:
                found.append((worker.index, None))
                self._replace(slot)
        self._give()
        return found

    def _give(self) -> None:
        for slot, worker in enumerate(self.workers):
            if worker.dead:
                worker = self._replace(slot)
            if worker.index is None and self.waiting:
                worker.give(*self.waiting.popleft(), self.timeout)

    def _replace(self, slot: int) -> Worker:
        self.workers[slot].kill()
        self.workers[slot] = Worker(self.task)
        return self.workers[slot]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()


def _serve(task: Task, pipe: Connection) -> None:
    pipe.send("ready")
    while True:
        try:
            problem, response, truncated = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            verdict: Verdict | None = task.verify(problem, response, truncated)
        except Exception:
            verdict = None
        pipe.send(verdict)
