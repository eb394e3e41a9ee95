"""How a judging process comes to be, whatever else goes on in the run's own process."""

import itertools
import os
import subprocess
import threading
from contextlib import closing
from typing import Any

import pytest
from verifier_tasks import Echo

from resd.types import Problem, UserError
from resd.verify import Verifier, examine
from resd.verify.worker import Worker

PROBLEM = Problem("p", "yes")
ANSWERS = [(PROBLEM, "yes", False)]
GENEROUS = 120.0


def test_workers_start_while_another_thread_sets_variables() -> None:
    """As an engine does that loads meanwhile: what is inherited then would be read while it moves in memory."""
    done = threading.Event()
    environment = dict(os.environ)

    def load() -> None:
        for i in itertools.count():
            if done.is_set():
                break
            os.environ[f"RESD_TEST_{i % 400}"] = "y" * (i % 300)
            os.environ.pop(f"RESD_TEST_{i * 13 % 400}", None)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(20):
            Worker(b"", environment).end()
    finally:
        done.set()
        thread.join()
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]


def test_a_process_that_is_not_to_be_had_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, refused = subprocess.Popen, 2

    def scarce(*arguments: Any, **named: Any) -> Any:
        nonlocal refused
        if named.get("pass_fds") and refused:
            refused -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return begin(*arguments, **named)

    monkeypatch.setattr("resd.verify.worker.subprocess.Popen", scarce)
    monkeypatch.setattr("resd.verify.pool.PAUSE", 0.0)
    with closing(Verifier(Echo(), 1, GENEROUS)) as verifier:
        assert [said for _, said in verifier.verify(ANSWERS)] == [Echo().verify(PROBLEM, "yes", False)]
    refused = 3
    with (
        closing(Verifier(Echo(), 1, GENEROUS)) as verifier,
        pytest.raises(UserError, match=r"judges answers cannot start: .*Resource temporarily unavailable"),
    ):
        list(verifier.verify(ANSWERS))
    refused = 1
    with pytest.raises(UserError, match=r"judges answers cannot start: .*Resource temporarily unavailable"):
        examine(Echo(), [], GENEROUS)
