"""What the README says works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_families import FAMILIES
from test_train import SMALL, environment, finish

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_task_runs(tiny_model: Path, tmp_path: Path) -> None:
    source = re.search(r"```python\n(# envs/reverse.py.*?)```", README, re.DOTALL)
    assert source is not None
    (tmp_path / "reverse_task.py").write_text(source[1])
    arguments = [
        *(a for a in SMALL if not a.startswith("task")),
        "task=custom",
        "task.name=reverse_task:Reverse",
        "steps=1",
        f"model.path={tiny_model}",
        f"run_dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "resd.train", *arguments],
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "update 1/1" in done.stdout


@pytest.mark.slow
def test_the_sweep_runs_every_job(tiny_model: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, f"model.path={tiny_model}", "steps=1", "evaluation.before=false"]
    finish(
        [
            *(sys.executable, "-m", "resd.train", "--multirun", *arguments),
            "algorithm.objective.divergence=reverse_kl,jsd",
            f"run_dir={tmp_path}/${{algorithm.objective.divergence}}",
        ]
    )
    assert sorted(path.parent.name for path in tmp_path.glob("*/metrics.jsonl")) == ["jsd", "reverse_kl"]


def test_the_families_are_those_of_the_test() -> None:
    listed = re.search(r"what transformers computes: (.*?)\. ", README)
    assert listed is not None
    assert [word.split(" (")[0] for word in listed[1].split(", ")] == list(FAMILIES)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", README))))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in README
    assert "make test" in (ROOT / ".ci" / "run").read_text()
