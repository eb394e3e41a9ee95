"""`python -m resd.train` in this process: the real words, configuration and exit status, without its start-up."""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from resd.train import begin, guarded


class Done(NamedTuple):
    status: int
    out: str
    err: str


SMALL = [
    *("batch_size=4", "inner_updates=2", "steps=2", "rollout.max_response=12", "rollout.max_prompt=600"),
    *("model.max_prompt=1500", "evaluation.before=false", "evaluation.samples=1"),
    *("evaluation.limit=1", "optimizer.lr=1e-3"),
]


def train(capfd: pytest.CaptureFixture[str], *words: str) -> Done:
    """What a run of these words ends with, and what it said. Needs the fixture `mesh`."""
    argv, handler, status = sys.argv, signal.getsignal(signal.SIGTERM), 0
    sys.argv = ["resd.train", *SMALL, *words]
    capfd.readouterr()
    try:
        guarded(begin)
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
    return Done(status, *capfd.readouterr())


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl as a strict reader has it: NaN and Infinity are no JSON."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} in metrics.jsonl")

    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def local(folder: Path, ways: Sequence[str] = ("",), **fields: Any) -> list[str]:
    """Words of a local task with a training problem for each way to judge, and one plain one to test."""
    problems = [{"split": "train", "id": f"p{i}", "prompt": f"Say {i}.", "way": way} for i, way in enumerate(ways)]
    problems.append({"split": "test", "id": "t", "prompt": "Say it.", "way": ""})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row | fields) + "\n" for row in problems))
    source = f"task.options.source={folder / 'rows.jsonl'}"
    return ["task=local", source, "task.options.verifier=judges:check", f"batch_size={len(ways)}"]
