"""docs/tasks.md: every file on it is written, every command on it is run, in a copy of the project."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_config import load

from resd import commandline
from resd.word import key_value

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/tasks.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
# What keeps a run short; the page's own settings stay.
# a model of noise writes no lesson
SHORT = "rollout.max_response=12 model.max_prompt=800 evaluation.samples=1 evaluation.before=false on_empty=warn"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, into which the page writes its files."""
    folder = tmp_path_factory.mktemp("project")
    for part in ("resd", "envs", "conf"):
        ignore = shutil.ignore_patterns("__pycache__", "nano", "nltk_data")
        shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=ignore)
    for language, text in BLOCKS:
        if language == "toml":
            install(folder, tomllib.loads(text))
        elif language != "sh":
            header, content = text.split("\n", 1)
            (folder / header.lstrip("#/ ")).write_text(content)
    return folder


def install(folder: Path, project: dict) -> None:
    """What pip leaves of a package with these entry points."""
    info = folder / f"{project['project']['name'].replace('-', '_')}-{project['project']['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['project']['name']}\nVersion: {project['project']['version']}\n")
    lines = [
        line
        for group, points in project["project"]["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))


def commands(program: str) -> list[str]:
    return [
        line for language, text in BLOCKS if language == "sh" for line in text.strip().split("\n") if program in line
    ]


def execute(project: Path, line: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", line], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def train(project: Path, line: str, model: Path, run_dir: Path) -> None:
    assert "update 2/2" in execute(project, f"{line} {SHORT} model.path={model} run_dir={run_dir}")


def test_the_page_has_nothing_that_is_not_run() -> None:
    assert len(BLOCKS) * 2 == len(re.findall(r"^```", PAGE, re.MULTILINE))
    assert {language for language, _ in BLOCKS} == {"json", "python", "yaml", "toml", "sh"}
    assert len(commands("resd.envs.play")) + len(commands("resd.train")) == sum(
        text.count("\n") for language, text in BLOCKS if language == "sh"
    )


def test_twenty_lines_are_enough() -> None:
    task, _ = (text for language, text in BLOCKS if language == "python" and "class" in text)
    code = [line for line in task.splitlines()[1:] if line.strip()]
    assert len(code) <= 20


@pytest.mark.parametrize("line", commands("resd.envs.play"))
def test_the_games_run(project: Path, line: str) -> None:
    assert "attempt 1: failed" in execute(project, line)


YOUR_DATA = PAGE.partition("### Your data")[2].partition("###")[0]


@pytest.mark.parametrize("words", re.findall(r"^\|.*`([^`|]*task\.options\.[^`|]*)` \|$", YOUR_DATA, re.MULTILINE))
def test_an_option_s_example_can_be_typed(words: str) -> None:
    typed = shlex.split(words)
    composed = commandline.composed(["task=local", *typed], "config")
    for key, value in map(key_value, typed):
        assert str(OmegaConf.select(composed, key)) == value


def test_the_first_training_runs(project: Path, tiny_model: Path, tmp_path: Path) -> None:
    train(project, commands("resd.train")[0], tiny_model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("line", commands("resd.train")[1:])
def test_the_other_trainings_run(project: Path, tiny_model: Path, tmp_path: Path, line: str) -> None:
    train(project, line, tiny_model, tmp_path)


def test_every_algorithm_is_described_and_its_commands_are_valid() -> None:
    page = (ROOT / "docs/algorithms.md").read_text()
    lines = re.findall(r"^python -m resd.train (.*)$", page, re.MULTILINE)
    for file in (ROOT / "conf/algorithm").glob("*.yaml"):
        assert re.search(rf"^\|.*`{file.stem}`", page, re.MULTILINE), file.stem
    assert len(lines) == 15
    for line in lines:
        load(*line.split())
    for target in re.findall(r"\]\((?!http)([^)#]+)", page):
        assert (ROOT / "docs" / target).exists(), target


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", PAGE))))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / "docs" / target).exists()
