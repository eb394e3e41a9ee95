"""`resd.train` and `resd.evaluate` from Python: the same runs as from the command line, wherever a task is defined."""

import contextlib
import inspect
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import train as command
from hydra.core.global_hydra import GlobalHydra
from test_train import SMALL, environment, of_kind
from torch.distributed.device_mesh import DeviceMesh
from verifier_tasks import Echo

import resd
from resd import api, commandline
from resd.api import _words
from resd.config import Config, validate
from resd.envs import functions
from resd.types import Messages, Problem, UserError, Verdict
from resd.verify import Verifier, examine

SHORT: dict[str, Any] = {
    "steps": 2,
    "batch_size": 4,
    "inner_updates": 2,
    "rollout": {"max_response": 12, "max_prompt": 200},
    "model": {"max_prompt": 800},
    "evaluation": {"every": 2, "samples": 2},
    "checkpoints": {"every": 1},
    "on_empty": "warn",
    "optimizer": {"lr": 1e-3},
}


def short(model: Path, run_dir: Path, **overrides: Any) -> dict[str, Any]:
    """Settings of a run of seconds."""
    return {**SHORT, "model.path": model, "run_dir": run_dir, **overrides}


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what differs from run to run."""
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "perf/"))} for row in rows]


def test_a_run_is_that_of_the_command_line_and_so_is_an_evaluation(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    echo = ["task=custom", "task.name=verifier_tasks:Echo"]
    words = [*SMALL, f"model.path={tiny_model}", f"run_dir={tmp_path / 'words'}"]
    assert command(capfd, *words, "evaluation.before=true", "evaluation.limit=null").status == 0
    result = resd.train("custom", **short(tiny_model, tmp_path / "python", **{"task.name": "verifier_tasks:Echo"}))
    there = resd.Result.read(tmp_path / "words")
    rows = result.metrics()
    assert lasting(rows) == lasting(there.metrics())
    assert [row["step"] for row in of_kind(rows, "train")] == [1, 2]
    assert result.evaluations == there.evaluations
    assert result.evaluations.keys() == {0, 2}
    assert result.evaluations[2].items() <= of_kind(rows, "eval")[1].items()
    assert result.run_dir == tmp_path / "python"
    assert result.best in [tmp_path / f"python/checkpoints/step_{step:06d}" for step in (1, 2)]
    assert result.playbook == (tmp_path / "words/playbook.md").read_text()
    assert "test after update 2  task/mean@2" in repr(result)
    assert "reward" not in repr(result)  # which says no more than what passed
    said = evaluated(capfd, *echo, f"checkpoint={tmp_path}/python/checkpoints/step_000002", "samples=2")
    checkpoint = tmp_path / "python/checkpoints/step_000002"
    given = resd.evaluate(checkpoint, "custom", samples=2, **{"task.name": "verifier_tasks:Echo"})
    assert given == json.loads(said.splitlines()[-1])
    assert given == {name: result.evaluations[2][name] for name in given}


def evaluated(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """What `python -m resd.evaluate` prints, in this process."""
    from resd.evaluate import begin

    argv, handler, sys.argv = sys.argv, signal.getsignal(signal.SIGTERM), ["resd.evaluate", *words]
    capfd.readouterr()
    try:
        begin()
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
    return capfd.readouterr().out


def test_an_interrupted_run_goes_on(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(Echo):
        """Somebody presses Ctrl-C when a prompt is made for the `presses`-th time."""

        presses = 0

        def prompt(self, problem: Problem) -> Messages:
            self.presses -= 1
            if self.presses == 0:
                raise KeyboardInterrupt
            return super().prompt(problem)

    settings = {"steps": 4, "evaluation": {"before": False, "samples": 1, "limit": 1}}
    run = short(tiny_model, tmp_path / "broken", **settings)
    counted, task = Interrupted(), Interrupted()
    whole = resd.train(counted, **short(tiny_model, tmp_path / "whole", **settings))
    task.presses = -counted.presses - 6  # in one of the last updates
    with pytest.raises(KeyboardInterrupt):
        resd.train(task, **run)
    assert f"the same call with run_dir='{tmp_path}/broken' continues" in capfd.readouterr().out
    assert 0 < resd.Result.read(tmp_path / "broken").metrics()[-1]["step"] < 4
    result = resd.train(task, **run)  # at once: the directory is free
    assert "continuing after update" in capfd.readouterr().out
    assert lasting(result.metrics()) == lasting(whole.metrics())


SCRIPT = """
import json, os, signal, sys, threading
from dataclasses import dataclass
from pathlib import Path

import resd

assert not {"torch", "hydra", "pydantic", "yaml"} & set(sys.modules)
print("started", flush=True)
settings = json.loads(sys.argv[1])
WORDS = {"train": ["stone", "river", "cloud", "amber"], "test": ["ocean"]}


@dataclass
class Want:
    text: str

    def share(self, said):
        return sum(a == b for a, b in zip(said, self.text)) / max(len(said), len(self.text))


def problems(split):
    return [{"prompt": f"Write {word!r} backwards.", "want": Want(word[::-1])} for word in WORDS[split]]


def judge(row, response):
    assert isinstance(row["want"], Want)
    share = row["want"].share(response)
    return share, f"{share:.0%} of {len(WORDS['train'])} words."


class Backwards:
    noun = "word"

    def problems(self, split):
        return [resd.Problem(word, word, cases=[Want(word)]) for word in WORDS[split]]

    def prompt(self, problem):
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem, response, truncated=False):
        share = problem.cases[0].share(response)
        return resd.Verdict(share, share == 1, 0, 1, "No.")


handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
task = resd.Task(problems, judge, name="backwards")
first = resd.train(task, run_dir="one", **settings)
assert first.metrics()[-1]["kind"] == "eval"
try:
    resd.train(task, run_dir="none", batch_size=99, **{k: v for k, v in settings.items() if k != "batch_size"})
except resd.UserError as error:
    print(error)
second = resd.train(Backwards(), run_dir="two", algorithm="sdpo", **settings)

import torch
from hydra.core.global_hydra import GlobalHydra

assert not torch.distributed.is_initialized()
assert not GlobalHydra.instance().is_initialized()
assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
children = [Path(entry, "children").read_text() for entry in Path("/proc/self/task").iterdir()]
print(json.dumps({
    "threads": [thread.name for thread in threading.enumerate()],
    "children": "".join(children).split(),
    "evaluated": resd.evaluate(first.best, task, samples=1, progress="off"),
    "expected": first.evaluations[1],
    "lost": sum(row.get("verify/lost", 0) for run in (first, second) for row in run.metrics()),
    "names": [str(run.run_dir.name) for run in (first, second)],
    "feedback": json.loads(Path("one/attempts/step_000001.jsonl").read_text().splitlines()[0])["verdict"]["feedback"],
}))
"""


def test_a_script_without_a_main_guard_defines_its_tasks(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    settings = {**SHORT, "steps": 1, "model.path": str(tiny_model), "evaluation": {"samples": 1, "before": False}}
    done = subprocess.run(
        [sys.executable, "script.py", json.dumps(settings)],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(Path(resd.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    told = json.loads(lines[-1])
    assert lines.count("started") == 1  # no worker runs the script again
    assert any(line.startswith("batch_size=99") for line in lines), done.stdout
    assert told["children"] == []
    assert told["threads"] == ["MainThread"]
    assert told["lost"] == 0
    assert told["evaluated"] == told["expected"]
    assert told["names"] == ["one", "two"]
    assert told["feedback"].endswith("% of 4 words.")
    assert {path.name for path in tmp_path.iterdir()} == {"script.py", "one", "two"}


def test_what_a_worker_could_not_import_goes_along() -> None:
    """A class of a function's inside, an instance of another one in a problem, and a function without a name."""

    @dataclass
    class Case:
        right: str

    class Local(Echo):
        def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
            (case,) = problem.cases
            assert isinstance(case, Case)
            passed = same[0](case.right, response)
            return Verdict(float(passed), passed, int(passed), 1, "" if passed else "no")

    same = [lambda one, two: one == two]
    answers = [(Problem(right, "", cases=[Case(right)]), "yes", False) for right in ("yes", "no", "yes")]
    with contextlib.closing(Verifier(Local(), 1, 120.0)) as verifier:
        assert [verdict.reward for _, verdict in sorted(verifier.verify(answers))] == [1.0, 0.0, 1.0]
    assert examine(Local(), [Problem("p", "", cases=[Case("")])], 120.0) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stepz": 3}, "stepz is not a setting: did you mean steps?"),
        ({"optimizer": {"lrr": 1}}, "optimizer.lrr is not a setting: did you mean optimizer.lr?"),
        ({"algorithm": {"playbook": {"entries": 3}}}, "algorithm.playbook.entries is not a setting: did you mean"),
        ({"algorithm": "RESD"}, "algorithm=RESD does not exist: choose one of custom, grpo, opd,"),
        ({"algorithm": "grpo", "algorithm.group": 1}, "algorithm.group=2 or more"),
        ({"steps": [1, 2]}, "steps=[1, 2]: "),
        ({"steps": object()}, "cannot be a setting: give a text, a number,"),
        ({"hydra": {"run": {"dir": "x"}}}, "hydra is for the command line: leave it out"),
        ({"hydra/launcher": "basic"}, "hydra/launcher is for the command line"),
        ({"task": "manufactorio"}, "task=manufactorio does not exist: choose one of bouncingsim,"),
        ({"task": 3}, "task=3 is no task (it has no noun, problems, prompt, verify): write a name, resd.Task("),
        ({"task": Echo}, "task=Echo is a class: write task=Echo()"),
        ({"task": Echo(), "task.options": {"source": "x"}}, "task.options is for a task that is named"),
        ({"task": Echo(), "steps": 99}, "steps=99 exceeds the stream of 32 updates"),
        ({"task": "custom", "task.name": "nowhere:Echo"}, "task='nowhere:Echo' cannot be imported"),
    ],
)
def test_a_mistake_is_the_sentence_of_the_command_line_and_leaves_nothing(
    settings: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(resd.UserError) as caught:
        resd.train(**{"batch_size": 1, **settings})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert not GlobalHydra.instance().is_initialized()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_values_arrive_as_they_are(tmp_path: Path) -> None:
    def load(**settings: Any) -> Config:
        return validate(commandline.composed([*_words(None, settings)], "config"))

    for text in ("2024", "a=b,c", 'it\'s "one"', "[x", "null", "f(1)", "läufe", "\\\\", "x\\"):
        assert load(run_dir=text).run_dir == text
    for number in (1e-5, 3e-07, 0.1 + 0.2):
        assert load(optimizer={"lr": number}).optimizer.lr == number
    settings = load(
        **{"optimizer.lr": np.float32(0.5), "seed": np.int64(2**40)},
        evaluation={"before": False, "limit": None},
        optimizer={"betas": (0.5, 0.25)},
        run_dir=tmp_path / "x",
        model={"lora": {"rank": 2, "alpha": 4, "targets": ["q_proj"]}},
        algorithm="sdpo",
    )
    assert (settings.optimizer.lr, settings.optimizer.betas, settings.seed) == (0.5, (0.5, 0.25), 2**40)
    assert (settings.evaluation.before, settings.evaluation.limit) == (False, None)
    assert (settings.run_dir, settings.algorithm.name) == (str(tmp_path / "x"), "sdpo")
    assert settings.model.lora is not None
    assert (settings.model.lora.rank, list(settings.model.lora.targets)) == (2, ["q_proj"])


def test_the_functions_are_the_modules() -> None:
    import resd.evaluate
    import resd.train
    from resd import evaluate, train

    assert train is resd.train is sys.modules["resd.train"]
    assert evaluate is resd.evaluate is sys.modules["resd.evaluate"]
    assert callable(train.load_task)
    assert callable(evaluate.judge)
    assert resd.train.train is not train
    for module, function in ((train, api.train), (evaluate, api.evaluate)):
        called, wanted = inspect.signature(module).parameters, inspect.signature(function).parameters
        assert [*map(str, called.values())] == [*map(str, wanted.values())]
    assert {"train", "evaluate", "Task", "Result"} <= {*dir(resd)}
    assert resd.Task is functions.Task
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = resd.trian


ROWS: dict[Any, Any] = {"train": [{"prompt": "Say a.", "wanted": "a"}, {"id": 7, "prompt": "Say b.", "wanted": "b"}]}


def test_a_task_of_functions_asks_and_judges() -> None:
    task = resd.Task(ROWS, lambda row, said: (said == row["wanted"], f"Not {row['wanted']}."))
    first, second = task.problems("train")
    assert (first.id, second.id, first.statement, task.name) == ("train-1", "7", "Say a.", "task")
    assert task.prompt(first) == [{"role": "user", "content": "Say a."}]
    assert task.verify(first, "a") == Verdict(1.0, True, 1, 1, "", "a")
    assert task.verify(second, "a") == Verdict(0.0, False, 0, 1, "Not b.", "a")
    whole = [Problem("p", "Say c.", cases=[{"prompt": "no row"}])]
    given = resd.Task(lambda split: whole, judged, prompt=lambda problem: f"Please: {problem.statement}", noun="letter")
    assert given.problems("test") == whole
    assert given.name == "judged"
    assert given.prompt(whole[0]) == [{"role": "user", "content": "Please: Say c."}]
    assert given.verify(whole[0], "x").feedback == "The letter is wrong."
    asked = resd.Task({"train": [{"n": 2}]}, judged, prompt=lambda row: [{"role": "system", "content": f"{row['n']}"}])
    assert asked.prompt(asked.problems("train")[0]) == [{"role": "system", "content": "2"}]


def judged(problem: Problem, said: str) -> float:
    return 0.5 if said else 0.0


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["Say a."], "train-1: 'Say a.' is no problem: give dictionaries"),
        ([{"wanted": "a"}], "train-1: prompt must be a text"),
        ([{"id": 1, "prompt": "x"}, {"id": 1, "prompt": "y"}], "the id '1' occurs twice in train"),
        ([], "the task judged has no train problem"),
    ],
)
def test_rows_that_are_no_problems_are_refused(rows: list[Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        resd.Task({"train": rows}, judged).problems("train")


def test_a_judge_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="judge='x' is not a function"):
        resd.Task(ROWS, "x")  # type: ignore[arg-type]
    task = resd.Task(ROWS, lambda row, said: "yes")  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match="judge=task gave 'yes': return True or False"):
        task.verify(task.problems("train")[0], "a")
