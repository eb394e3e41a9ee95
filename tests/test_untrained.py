"""An algorithm that trains nothing: no learner is built, a checkpoint holds the state alone, and it can be resumed."""

import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from test_train import metrics, of_kind, run
from torch.distributed.device_mesh import DeviceMesh

from resd import algorithms, plan
from resd.algorithms import base
from resd.config import Config
from resd.settings import AlgorithmSettings
from resd.types import Attempt, Observation, Problem


class Settings(AlgorithmSettings):
    name: Literal["counting"]


class Counting(base.Algorithm[Settings]):
    """Tries each problem, and tries again; remembers how many problems it saw."""

    learns = False
    seen = 0

    def observe(self, problems: Sequence[Problem]) -> Observation:
        self.seen += len(problems)
        firsts = self.run.rollout(problems)
        drafts = [self.run.speech.draft(a.problem, a.prompt, f"{a.id}/again", parent=a) for a in firsts]
        again: list[Attempt] = self.run.speak(drafts, self.run.sampling, "retry")
        return Observation([*firsts, *again], [], {"counting/seen": self.seen})

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


WANTED = ["algorithm=grpo", "algorithm.name=counting", "~algorithm.normalise_std", "algorithm.group=1", "on_empty=stop"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    module, counting = algorithms.module, types.SimpleNamespace(Settings=Settings, Algorithm=Counting)
    monkeypatch.setattr(algorithms, "module", lambda name: counting if name == "counting" else module(name))


@pytest.fixture
def no_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*_: Any, **__: Any) -> None:
        raise AssertionError("a learner was built")

    monkeypatch.setattr("resd.session.build_student", built)
    monkeypatch.setattr("resd.session.Learner", built)


@pytest.mark.usefixtures("no_learner")
def test_it_runs_saves_its_state_and_goes_on(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = of_kind(run(tiny_model, tmp_path, *WANTED), "train")
    assert [row["counting/seen"] for row in rows] == [4, 8]
    assert "loss" not in rows[0]
    saved = tmp_path / "checkpoints/step_000002"
    assert sorted(path.name for path in saved.iterdir()) == ["manifest.json", "state"]
    assert [path.name for path in (saved / "state").iterdir()] == ["run.json"]
    assert (tmp_path / "best").resolve() == saved.resolve()
    assert "nothing is trained" in capsys.readouterr().out
    rows = of_kind(run(tiny_model, tmp_path, *WANTED, "steps=4"), "train")
    assert [row["counting/seen"] for row in rows] == [4, 8, 12, 16]
    assert "continuing after update 2" in capsys.readouterr().out
    (tmp_path / "checkpoints/step_000004/state/run.json").write_text("{")
    run(tiny_model, tmp_path, *WANTED, "steps=4")
    assert "step_000004 is damaged" in capsys.readouterr().out
    assert [row["step"] for row in of_kind(metrics(tmp_path), "train")] == [1, 2, 3, 4]
    lines = [json.loads(line) for line in (tmp_path / "attempts/step_000004.jsonl").read_text().splitlines()]
    assert [line["parent"] for line in lines] == [None] * 4 + [line["id"] for line in lines[:4]]


def test_its_memory_is_that_of_the_engine_alone(tiny_model: Path) -> None:
    from hydra import compose, initialize_config_dir
    from test_train import SMALL

    from resd.config import CONF, validate

    def configured(*overrides: str) -> Config:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return validate(compose("config", [*SMALL, f"model.path={tiny_model}", "run_dir=x", *overrides]))

    shape = plan.Shape(1000, 64, 2, 4, 2, 16, 128, tied=True)
    author = plan.Shape(9000, 512, 8, 4, 2, 16, 1024, tied=True)
    alone = plan.estimate(shape, configured(*WANTED), 1, 0)
    assert {part for parts in alone.phases.values() for part in parts} == {"libraries", "engine", "cache"}
    trained = plan.estimate(shape, configured(), 1, 0)
    assert trained.peak > alone.peak
    for without, settings in ((alone, configured(*WANTED)), (trained, configured())):
        helped = plan.estimate(shape, settings, 1, 0, author=author)
        for name, parts in helped.phases.items():
            if name != "loading":
                assert parts["author"] == 4 * author.parameters, name
        assert helped.least >= without.least + 4 * author.parameters
        assert helped.phases["writing"]["author's cache"] > 0
