"""Whole runs whose verifier goes wrong, by the real command line: what is said, what is written, what is left."""

import json
import re
import subprocess
from pathlib import Path

import judges
import pytest
from command import local, rows, train
from torch.distributed.device_mesh import DeviceMesh

SECONDS = "86398.75"  # that nothing else sleeps for


def test_bad_verdicts_cost_their_answers_alone(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every way in one batch: its losses are counted, the first is said with its place, and the sums at the end."""
    run, ways = tmp_path / "run", [*judges.GOOD, *judges.LOST]
    task = local(tmp_path, ways, seconds=SECONDS)
    done = train(capfd, *task, f"model.path={tiny_model}", f"run_dir={run}", "algorithm=sdpo", "verify.workers=2")
    assert done.status == 0, done.err
    assert done.err == ""
    first, second = (row for row in rows(run) if row["kind"] == "train")
    assert first["verify/lost"] == second["verify/lost"] == len(judges.LOST)
    assert second["interactions"] == 2 * len(ways)
    assert first["grad_norm"] > 0
    assert done.out.count(" x verify/lost (answers without a verdict, left out): ") == 1
    assert f"lost on the way {2 * len(judges.LOST)} x verify/lost" not in done.out.split("update 2/2")[0]
    assert re.search(rf"lost on the way .*{2 * len(judges.LOST)} x verify/lost \(", done.out)
    assert "judging" not in done.out
    kept = [json.loads(line) for line in (run / "attempts/step_000001.jsonl").read_text().splitlines()]
    assert sorted(ways[int(attempt["problem"][1:])] for attempt in kept) == sorted(judges.GOOD)
    for attempt in kept:
        way, verdict = ways[int(attempt["problem"][1:])], attempt["verdict"]
        if way in ("", "leaves_children", "prints_and_returns") and not verdict["passed"]:
            assert verdict["feedback"] == f"{len(attempt['response'])} characters"
        assert type(verdict["passed"]) is bool
        if way == "surrogate":
            assert verdict["feedback"] == "it printed \ufffd\ufffd"
    left = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    assert f"sleep {SECONDS}" not in left


ALL_LOST = {
    "nan": "returned a Verdict whose reward is nan, not a finite number",
    "prints_and_raises": (
        rf"KeyError: 'answr' \({re.escape(judges.__file__)}:{judges.raises.__code__.co_firstlineno + 1}\); "
        r"it has printed: '(about to fail(\\n)?)+'"
    ),
    "dies": r"its process died \(SIGKILL\)",
    "sleeps": "took longer than 4 s",
}


@pytest.mark.parametrize("way", ALL_LOST)
def test_a_run_that_loses_all_answers_ends_with_the_reason(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], way: str
) -> None:
    """After an update, not after the last one; its metrics and the reason are there."""
    run = tmp_path / "run"
    task = [*local(tmp_path, [way] * 2), "verify.timeout=4" if way == "sleeps" else "verify.timeout=60"]
    done = train(
        capfd,
        *task,
        f"model.path={tiny_model}",
        f"run_dir={run}",
        "verify.workers=2",
        "algorithm=grpo",
        "algorithm.group=2",
    )
    assert done.status == 2
    assert done.err == (
        "error: update 1 has no sample to learn from (4 x verify/lost); on_empty=warn goes on all the same\n"
    )
    [said] = re.findall(r"lost in update 1 4 x verify/lost \(answers without a verdict, left out\): (.*)", done.out)
    assert re.fullmatch(ALL_LOST[way], said), said
    [row] = rows(run)
    assert (row["step"], row["verify/lost"], row["interactions"]) == (1, 4, 4)


def test_a_run_may_go_on_without_verdicts(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = [*local(tmp_path, ["raises"] * 2), f"model.path={tiny_model}", f"run_dir={run}", "on_empty=warn"]
    done = train(capfd, *words)
    assert (done.status, done.err) == (0, "")
    assert [row["step"] for row in rows(run) if row["kind"] == "train"] == [1, 2]
    assert done.out.count("lost in update") == 1
    assert done.out.count("update 1 has no sample to learn from") == 1
    assert done.out.count("update 2 has no sample to learn from") == 1
    assert "lost on the way 4 x verify/lost" in done.out
    assert done.out.rstrip().endswith("none of the 2 updates had anything to learn from")
