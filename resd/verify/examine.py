"""The examination of a task before work starts, in a worker with a deadline as every later verdict."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import cloudpickle

from resd.task import Task, follows
from resd.types import Lost, Problem, Turn, UserError
from resd.verify.pool import cannot_start, outcome, pickled
from resd.verify.worker import START_SECONDS, Gone, Worker

WHO = {"verify": "verifier", "follow": "environment"}
SELF_TEST = 10  # deadlines of an answer, since it judges several


def examine(task: Task, problems: Sequence[Problem], timeout: float) -> str | None:
    """What the task's own test tells. Raises UserError unless it succeeds and an empty response can be judged.

    A model may well give an empty response. The problems are only tried for whether they can be sent to a worker.
    """
    image = pickled(task)
    try:
        worker = Worker(image, dict(os.environ))
    except OSError as error:
        raise UserError(cannot_start(str(error), "")) from None
    try:
        answers = [_answer(problem) for problem in problems]
        try:
            worker.start(START_SECONDS)
        except Gone as gone:
            raise UserError(cannot_start(gone.reason, worker.said())) from None
        name = type(task).__name__
        try:
            tested = worker.ask("self_test", b"", SELF_TEST * timeout)
        except Gone as gone:
            raise UserError(f"the self-test of {name} cannot be made: {gone.reason}") from None
        if "refused" in tested:
            raise UserError(str(tested["refused"]))
        if "lost" in tested:
            raise UserError(f"the self-test of {name} fails: {tested['lost']}")
        for problem, answer in zip(problems[:1], answers, strict=False):
            ask = partial(_tried, worker, timeout, name, problem)
            ask("verify", answer)
            if follows(task) and (heard := ask("follow", cloudpickle.dumps((problem, [Turn("")])))):
                ask("follow", cloudpickle.dumps((problem, [Turn("", heard), Turn("")])))  # which has to say the same
        return tested.get("told")
    finally:
        worker.end()


def _tried(worker: Worker, timeout: float, name: str, problem: Problem, kind: str, data: bytes) -> Any:
    """What a worker says. Raises UserError if it says nothing."""
    try:
        said = outcome(worker.ask(kind, data, timeout))
    except Gone as gone:
        said = Lost(gone.reason)
    if isinstance(said, Lost):
        raise UserError(
            f"the {WHO[kind]} of {name} fails on an empty response to problem {problem.id!r}, which a model may well "
            f"give: {said.reason}"
        )
    return said


def _answer(problem: Problem) -> bytes:
    try:
        return cloudpickle.dumps((problem, "", False))
    except Exception as error:
        raise UserError(
            f"the problem {problem.id!r} cannot be sent to the processes that judge ({error}): "
            "let its cases hold plain data"
        ) from None
