"""Reflecting in the shadow of the rollout gives what reflecting after it gives."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from test_train import SMALL, command, environment
from tiny import model
from torch.distributed.device_mesh import DeviceMesh
from verifier_tasks import Echo

from resd import dist
from resd.config import CONF, validate
from resd.engine.transformers import TransformersEngine
from resd.observe.pipeline import Pipeline
from resd.train import train
from resd.types import Attempt, Completion, Problem, Request
from resd.verify import Verifier

SETTINGS = ["task=custom", "task.name=verifier_tasks:Echo", "batch_size=6", "rollout.max_response=24", "steps=2"]
SETTINGS += ["rollout.max_prompt=200", "model.max_prompt=800", "evaluation.before=false", "evaluation.samples=1"]
LONG = "algorithm.writing.max_response=64"  # noise that holds whole lines, for what is cut off does not count
SAID = ("id", "response", "verdict", "reflection", "teacher_prompt")


def attempts(run_dir: Path) -> list[dict[str, Any]]:
    files = sorted((run_dir / "attempts").glob("step_*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def run(path: Path, run_dir: Path, *overrides: str) -> list[dict[str, Any]]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(validate(compose("config", [*SETTINGS, f"model.path={path}", f"run_dir={run_dir}", *overrides])))
    return attempts(run_dir)


@pytest.mark.parametrize("group", [1, 2])
def test_a_pipelined_run_writes_the_same(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, group: int) -> None:
    settings = [f"algorithm.group={group}", "optimizer.lr=1e-3", LONG]
    plain = run(tiny_model, tmp_path / "plain", *settings)
    piped = run(tiny_model, tmp_path / "piped", *settings, "engine.pipelined=true")
    assert len({attempt["reflection"]["text"] for attempt in plain if attempt["reflection"]}) > 2
    assert [[a[name] for name in SAID] for a in piped] == [[a[name] for name in SAID] for a in plain]
    assert (tmp_path / "piped/playbook.jsonl").read_text() == (tmp_path / "plain/playbook.jsonl").read_text()


def test_two_processes_pipeline_like_one(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    overrides = [*SETTINGS, "engine.pipelined=true", "optimizer.lr=0"]
    run(tiny_model, tmp_path / "1", *SMALL, *overrides)
    done = subprocess.run(
        command(tiny_model, tmp_path / "2", *overrides, ranks=2), env=environment(), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    one, two = (attempts(tmp_path / str(ranks)) for ranks in (1, 2))
    assert [[a[name] for name in SAID] for a in two] == [[a[name] for name in SAID] for a in one]


class Recorded(TransformersEngine):
    """Notes the order in which requests finish."""

    def generate(self, requests: Sequence[Request], more: Any = None) -> Any:
        self.finished: list[int] = []
        # waits for whatever is outstanding, so that a slow verifier on a busy machine changes no order
        for number, completion in super().generate(requests, more and (lambda idle: more(self.waits or idle))):
            self.finished.append(number)
            yield number, completion

    waits = False


def test_questions_join_while_a_long_response_decodes() -> None:
    """The first response is long; what is asked about the others is answered before it ends."""
    engine = Recorded(model(), eos_ids=[], max_batch=8, max_length=1200)
    engine.waits = True
    verifier = Verifier(Echo(), workers=1, timeout=60.0)
    problem = Problem("p", "yes")
    assert len(list(verifier.verify([(problem, "no", False)]))) == 1  # the worker has started
    drafts = {i: Attempt(f"0/{i}", problem, [], "", [1, 2], [], [], "", True) for i in range(4)}
    requests = {i: Request([1, 2 + i], 1000 if i == 0 else 4, seed=i) for i in drafts}
    asked: list[str] = []

    def ask(attempt: Attempt) -> Request | None:
        assert attempt.verdict is not None
        asked.append(attempt.id)
        return None if attempt.id == "0/2" else Request([5, 6], 3, seed=9)

    def fill(attempt: Attempt, completion: Completion) -> None:
        attempt.response_ids = completion.ids

    try:
        outcomes = Pipeline(engine, verifier, drafts, ask).run(requests, fill, lambda: None)
    finally:
        verifier.close()
    assert min(number for number in engine.finished if number >= 4) in engine.finished[: engine.finished.index(0)]
    assert sorted(asked) == [f"0/{i}" for i in drafts]
    assert {i: outcome.answer is not None for i, outcome in outcomes.items()} == {0: True, 1: True, 2: False, 3: True}
    alone = dict(engine.generate([Request([5, 6], 3, seed=9)]))[0]
    assert outcomes[1].answer is not None
    assert outcomes[1].answer.ids == alone.ids
    assert torch.allclose(torch.tensor(outcomes[1].answer.logprobs), torch.tensor(alone.logprobs), atol=1e-5)


def test_a_replica_without_work_meets_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process groups are made by all ranks together: one that waits for its first question would keep the rest."""
    made: list[int] = []
    monkeypatch.setattr(dist, "world", lambda: 4)
    monkeypatch.setattr(dist, "_group", made.append)
    idle: Any = SimpleNamespace(replica=1, replicas=2, generate=lambda *_: iter(()))
    assert Pipeline(idle, idle, {}, lambda attempt: None).run({}, lambda *_: None, lambda: None) == {}
    assert made == [2]
    idle.replicas = 4
    Pipeline(idle, idle, {}, lambda attempt: None)
    assert made == [2]  # ranks that are engines of their own need no group


def test_short_answers_do_not_wait_for_the_long_one() -> None:
    engine = Recorded(model(), eos_ids=[], max_batch=8, max_length=600)
    arrivals = [[], [], [Request([3], 2)], []]
    more = lambda idle: arrivals.pop(0) if arrivals else []  # noqa: E731
    list(engine.generate([Request([1, 2], 200)], more))
    assert engine.finished == [1, 0]
