"""One owner, for as long as its process lives."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from resd.storage.lock import Lock
from resd.types import UserError

HOLD = """
import os, pathlib, sys, time
from resd.storage.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]), print)
print("mine", flush=True)
time.sleep(600)
"""


def owner(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    return process


def test_a_second_process_is_told_who_the_first_is(tmp_path: Path) -> None:
    process, said = owner(tmp_path), []
    try:
        with pytest.raises(UserError) as caught:
            Lock(tmp_path, said.append, patience=0.2)
    finally:
        process.kill()
        process.wait()
    assert f"process {process.pid} on {socket.gethostname()} since 20" in str(caught.value)
    assert "choose another run_dir" in str(caught.value)
    assert len(said) == 1


def test_a_kill_lets_go_at_once_although_children_live(tmp_path: Path) -> None:
    """A forked child of the owner, such as a data worker, does not keep the lock."""
    code = HOLD.replace('print("mine"', "child = os.fork()\nif not child:\n    time.sleep(600)\nprint(child")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        Lock(tmp_path, print, patience=20.0).close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_short_wait_is_enough_for_an_owner_that_is_ending(tmp_path: Path) -> None:
    process, said = owner(tmp_path), []

    def end(text: str) -> None:
        said.append(text)
        process.kill()
        process.wait()

    Lock(tmp_path, end, patience=60.0).close()
    assert f"process {process.pid}" in said[0]


def test_within_one_process_too(tmp_path: Path) -> None:
    first = Lock(tmp_path, print)
    with pytest.raises(UserError, match=f"process {os.getpid()}"):
        Lock(tmp_path, print, patience=0.0)
    first.close()
    Lock(tmp_path, print, patience=0.0).close()
