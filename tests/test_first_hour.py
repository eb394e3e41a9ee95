"""docs/first_hour.md: its commands are run one after the other, and print what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/first_hour.md").read_text()
STEPS = re.findall(r"^```sh\n(.*?)^```\n(?:```text\n(.*?)^```)?", PAGE, re.DOTALL | re.MULTILINE)
HEAVY = ("doctor", "run_dir=", "checkpoint=", "report", "push", "ls ")  # what imports torch, or reads what these leave
# What keeps training short; the page's own settings stay.
SHORT = "batch_size=2 evaluation.limit=2 rollout.max_response=48 verify.timeout=300"


def plain(line: str) -> str:
    """Without what differs from machine to machine, and with the length of the run."""
    return re.sub(r"\s+", " ", re.sub(r"[\d.]+(\+\w+)?", "0", line)).strip()


def follow(folder: Path, commands: str, shown: str) -> None:
    """Every line that the page shows is printed, in this order."""
    for line in ("resd.train", "resd.evaluate"):
        commands = re.sub(rf"(-m {line}(?!.*--help) [^|\n]*)", rf"\1 {SHORT} ", commands)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(["bash", "-c", commands], cwd=folder, env=environment, capture_output=True, text=True)
    printed = iter([plain(line) for line in (done.stdout + done.stderr).splitlines()])
    for line in shown.splitlines():
        assert line == "…" or plain(line) in printed, f"{commands}: {line}\n{done.stdout}{done.stderr}"
    assert done.returncode == (2 if "error: " in shown else 0), done.stderr


def test_every_block_is_a_command_or_what_it_prints() -> None:
    assert len(STEPS) + sum(bool(shown) for _, shown in STEPS) == len(re.findall(r"^```", PAGE, re.MULTILINE)) // 2
    assert len(STEPS) >= 10


@pytest.mark.parametrize("step", [step for step in STEPS if not any(word in step[0] for word in HEAVY)])
def test_what_needs_no_model(step: tuple[str, str], tmp_path: Path) -> None:
    follow(tmp_path, *step)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_whole_hour(tmp_path: Path) -> None:
    for step in STEPS:
        follow(tmp_path, *step)
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", PAGE))))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / "docs" / target).exists()
