"""A run that is killed at many moments, or whose directory is damaged, ends as if nothing had happened. Slow.

`killed` does the killing.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_train import SMALL, command, environment, finish, reached, run, same_end
from torch.distributed.device_mesh import DeviceMesh

from resd.types import UserError

EXTRA = ["steps=4", "batch_size=2", "algorithm.teacher.rate=0.1", "checkpoints.every=2", "checkpoints.keep=1"]


def run_killed(model: Path, run_dir: Path, kills: list[int]) -> dict[str, Any]:
    plan = run_dir.with_suffix(".json")
    arguments = [*SMALL, *EXTRA, f"model.path={model}", f"run_dir={run_dir}"]
    plan.write_text(json.dumps({"arguments": arguments, "run_dir": str(run_dir), "kills": kills}))
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run([sys.executable, str(script), str(plan)], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["ends"][:-1]) <= {signal.SIGKILL, 0}, done.stderr
    assert found["ends"][-1] == 0, done.stderr
    return found


@pytest.mark.slow
def test_fifty_random_kills(tiny_model: Path, tmp_path: Path) -> None:
    """In training, while saving and while resuming: 46 by number of the file operation, 4 of one rank of two."""
    whole = tmp_path / "whole"
    operations = run_killed(tiny_model, whole, [])["operations"]
    draw, killed, chain = random.Random(0), 0, 0
    while killed < 46:  # a kill that a child does not live to see is no kill
        # a first one anywhere; later ones soon after the start, where a resumed run cleans up, as often as anywhere
        kills = [draw.randint(1, operations)]
        kills += [draw.randint(1, draw.choice([20, operations])) for _ in range(draw.randint(0, 3))]
        run_dir = tmp_path / f"chain_{chain}"
        killed += run_killed(tiny_model, run_dir, kills)["ends"].count(signal.SIGKILL)
        same_end(whole, run_dir, 4)
        chain += 1
    print(f"{killed} kills of one process in {chain} chains, {operations} operations in a whole run")

    two = tmp_path / "two"
    finish(command(tiny_model, two, *EXTRA, ranks=2))
    broken = tmp_path / "two_broken"
    for rank, step in ((1, 0), (0, 1), (1, 2), (0, 3)):
        process = subprocess.Popen(
            command(tiny_model, broken, *EXTRA, ranks=2), env=environment(), stderr=subprocess.DEVNULL
        )
        victim = None
        while process.poll() is None and (reached(broken) < step or (victim := of_rank(process.pid, rank)) is None):
            time.sleep(0.01)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        process.wait(timeout=120)
    finish(command(tiny_model, broken, *EXTRA, ranks=2))
    same_end(two, broken, 4)


def of_rank(launcher: int, rank: int) -> int | None:
    """The process of this rank, once torchrun has begun it."""
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    return None


@pytest.mark.slow
def test_a_kill_while_going_back_leaves_a_state_from_which_the_same_command_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    """`resume=OLDER`, killed at each operation of opening the directory, again: as if it had not been killed."""
    older = ["checkpoints.every=1", "checkpoints.keep=9"]
    base = tmp_path / "base"
    finish(command(tiny_model, base, *EXTRA, *older))
    expected = tmp_path / "expected"
    subprocess.run(["cp", "-r", base, expected], check=True)
    back = [*EXTRA, *older, "optimizer.lr=1e-4"]
    finish(command(tiny_model, expected, *back, f"resume={expected}/checkpoints/step_000002"))
    for moment in range(2, 40, 3):
        run_dir = tmp_path / f"back_{moment}"
        subprocess.run(["cp", "-r", base, run_dir], check=True)
        plan = tmp_path / f"back_{moment}.json"
        arguments = [*SMALL, *back, f"model.path={tiny_model}", f"run_dir={run_dir}"]
        arguments.append(f"resume={run_dir}/checkpoints/step_000002")
        plan.write_text(json.dumps({"arguments": arguments, "run_dir": str(run_dir), "kills": [moment]}))
        script = Path(__file__).with_name("killed.py")
        done = subprocess.run([sys.executable, str(script), str(plan)], env=environment(), capture_output=True)
        assert json.loads(done.stdout.splitlines()[-1])["ends"] == [signal.SIGKILL, 0], done.stderr
        same_end(expected, run_dir, 4)
        kept = {path.name for path in run_dir.glob("abandoned/*/checkpoints/step_*")}
        assert kept == {"step_000003", "step_000004"}


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


LAST = "checkpoints/step_000003"
SAME = {  # what is done to a run of three updates, and that it goes on to the end of an untouched one
    **{
        f"{file} {name}": (lambda run, file=file, change=change: _rewrite(run / LAST / file, change))
        for file in ("state/__0_0.distcp", "state/.metadata", "state/run.json", "model/model.safetensors")
        for name, change in {
            "flipped": lambda data: data[:400] + bytes(255 - b for b in data[400:416]) + data[416:],
            "halved": lambda data: data[: len(data) // 2],
            "emptied": lambda data: b"",
        }.items()
    },
    "no manifest": lambda run: (run / LAST / "manifest.json").unlink(),
    "no state": lambda run: shutil.rmtree(run / LAST / "state"),
    "no last checkpoint": lambda run: shutil.rmtree(run / LAST),
    "backup of a checkpoint": lambda run: shutil.copytree(run / LAST, run / f"{LAST}_backup"),
    "link beside checkpoints": lambda run: (run / "checkpoints/step_000009").symlink_to("nowhere"),
    "file in the way": lambda run: (shutil.rmtree(run / LAST), (run / LAST).write_text("x")),
    "leftover of a kill": lambda run: (run / LAST).rename(run / "checkpoints/.step_000003"),
    "half a row": lambda run: _append(run / "metrics.jsonl", b'{"step": 3, "ki'),
    "foreign row": lambda run: _append(run / "metrics.jsonl", b"\xff\xfe\n[1]\n"),
    "no last line end": lambda run: _rewrite(run / "metrics.jsonl", bytes.rstrip),
    "half an event": lambda run: _append(run / "playbook.jsonl", b'{"event": "add", "st'),
    "no link best": lambda run: (run / "best").unlink(),
    "best is a folder": lambda run: ((run / "best").unlink(), shutil.copytree(run / LAST, run / "best")),
    "no playbook.md": lambda run: (run / "playbook.md").unlink(),
    "no tensorboard": lambda run: shutil.rmtree(run / "tensorboard"),
}
REFUSED = {  # and what is said instead
    "configuration cut": (lambda run: _rewrite(run / "config.yaml", lambda data: data[:300] + b": ["), "configuration"),
    "configuration of bytes": (lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe"), "configuration"),
    "all checkpoints cut": (
        lambda run: [_rewrite(c / "state/run.json", lambda data: data[:9]) for c in (run / "checkpoints").iterdir()],
        "no whole checkpoint",
    ),
}


@pytest.mark.slow
def test_twenty_damages(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    """Each damage of a run directory has its right answer: the same end, or a sentence and nothing lost."""
    more = ["batch_size=2", "algorithm.teacher.rate=0.1", "checkpoints.keep=9", "evaluation.every=1"]
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    run(tiny_model, whole, *more, "steps=3")
    shutil.copytree(whole, longer, symlinks=True)
    run(tiny_model, longer, *more, "steps=4")
    for number, (name, damage) in enumerate(SAME.items()):
        run_dir = Path(shutil.copytree(whole, tmp_path / f"same_{number}", symlinks=True))
        damage(run_dir)
        print(name)
        run(tiny_model, run_dir, *more, "steps=4")
        same_end(longer, run_dir, 4)
        assert (run_dir / "best/model/config.json").is_file()
        assert (run_dir / "best").is_symlink()
    for number, (name, (damage, says)) in enumerate(REFUSED.items()):
        run_dir = Path(shutil.copytree(whole, tmp_path / f"refused_{number}", symlinks=True))
        damage(run_dir)
        print(name)
        with pytest.raises(UserError, match=says):
            run(tiny_model, run_dir, *more, "steps=4")
        assert (run_dir / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
