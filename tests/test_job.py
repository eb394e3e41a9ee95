"""`resd.sweep.job`: whatever ends first, nothing of a job is left."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it rests on what Linux offers")
ROOT = Path(__file__).resolve().parents[1]
JOB = [sys.executable, "-m", "resd.sweep.job"]
HASTY = [
    sys.executable,
    "-c",
    "import sys, resd.sweep.job as j; j.PATIENCE = 0.3; sys.exit(j.run(int(sys.argv[1]), sys.argv[2:]))",
]
FAMILY = """
import os, signal, subprocess, sys, time
ignore, ends = sys.argv[2] == "stubborn", sys.argv[2] == "ends"
if ignore:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
open(sys.argv[1] + ".new", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
if not ends:
    time.sleep(1000)
"""


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(process: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def start(job: list[str], said: Path, manner: str) -> "tuple[subprocess.Popen[bytes], list[int]]":
    """A job whose command has a child in a session of its own; the processes of both."""
    command = [*job, str(os.getpid()), sys.executable, "-c", FAMILY, str(said), manner]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    wait_until(said.exists)
    return process, [int(word) for word in said.read_text().split()]


@pytest.mark.parametrize(
    ("program", "status"), [("raise SystemExit(3)", 3), ("pass", 0), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_status_is_that_of_the_command(program: str, status: int) -> None:
    command = [*JOB, str(os.getpid()), sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == status


def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    process, family = start(JOB, tmp_path / "said", "ends")
    assert process.wait(120) == 0
    assert not any(map(is_running, family))


@pytest.mark.parametrize(("job", "manner"), [(JOB, "meek"), (HASTY, "stubborn")])
def test_told_to_stop(job: list[str], manner: str, tmp_path: Path) -> None:
    process, family = start(job, tmp_path / "said", manner)
    process.terminate()
    process.terminate()
    assert process.wait(120) == 143
    assert not any(map(is_running, family))


def test_a_terminal_stops_the_sweep_and_not_its_jobs(tmp_path: Path) -> None:
    process, family = start(JOB, tmp_path / "said", "meek")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert is_running(family[0])
    process.terminate()
    assert process.wait(120) == 143


def test_killed_it_takes_the_command_along(tmp_path: Path) -> None:
    process, family = start(JOB, tmp_path / "said", "meek")
    process.kill()
    process.wait()
    wait_until(lambda: not is_running(family[0]))
    os.kill(family[1], signal.SIGKILL)  # torchrun's ranks see to that themselves


def test_a_killed_parent_takes_everything_along(tmp_path: Path) -> None:
    program = "import os, subprocess, sys; subprocess.run([*sys.argv[1:4], str(os.getpid()), *sys.argv[4:]])"
    command = [sys.executable, "-c", program, *JOB, sys.executable, "-c", FAMILY, str(tmp_path / "said"), "meek"]
    parent = subprocess.Popen(command, cwd=ROOT)
    wait_until((tmp_path / "said").exists)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(is_running(int(word)) for word in (tmp_path / "said").read_text().split()))


def test_a_parent_that_is_gone_already(tmp_path: Path) -> None:
    command = [*JOB, "1", sys.executable, "-c", FAMILY, str(tmp_path / "said"), "meek"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 143
    assert not (tmp_path / "said").exists()
