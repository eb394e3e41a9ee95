"""A run that is killed at many moments ends as if nothing had happened. Slow; `killed` does the killing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_train import SMALL, command, environment, finish, reached, same_end

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
    draw = random.Random(0)
    killed = 0
    for chain, length in enumerate([*[1] * 10, *[2] * 6, *[4] * 6]):
        # a first kill anywhere; later ones soon after the start, where a resumed run cleans up, as often as anywhere
        kills = [draw.randint(1, operations)]
        kills += [draw.randint(1, draw.choice([20, operations])) for _ in range(length - 1)]
        ends = run_killed(tiny_model, tmp_path / f"chain_{chain}", kills)["ends"]
        killed += ends.count(signal.SIGKILL)
        same_end(whole, tmp_path / f"chain_{chain}", 4)
    print(f"{killed} kills of one process, {operations} operations")
    assert killed >= 40

    two = tmp_path / "two"
    finish(command(tiny_model, two, *EXTRA, ranks=2))
    broken = tmp_path / "two_broken"
    for rank, step in ((1, 0), (0, 1), (1, 2), (0, 3)):
        process = subprocess.Popen(
            command(tiny_model, broken, *EXTRA, ranks=2), env=environment(), stderr=subprocess.DEVNULL
        )
        while process.poll() is None and reached(broken) < step:
            time.sleep(0.01)
        ranks = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        victims = [p for p in ranks if f"RANK={rank}".encode() in Path(f"/proc/{p}/environ").read_bytes().split(b"\0")]
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        process.wait(timeout=120)
    finish(command(tiny_model, broken, *EXTRA, ranks=2))
    same_end(two, broken, 4)


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
