"""What a setting names: a module where Python finds it, or a file wherever it lies."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resd import envs
from resd.named import named
from resd.types import UserError
from resd.verify import Verifier, examine


@pytest.fixture(autouse=True)
def forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_module_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named("verifier", "json:dumps") is json.dumps
    (tmp_path / "of_a_file.py").write_text("def check(row, response):\n    return 0.25\n")
    assert named("verifier", f"{tmp_path / 'of_a_file.py'}:check")({}, "") == 0.25
    monkeypatch.chdir(tmp_path)
    assert named("verifier", "of_a_file.py:check")({}, "") == 0.25


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "nowhere.py:check",
            r"cannot be imported \(there is no file .*nowhere\.py\): write package\.module:f",
        ),
        ("mistake.py:check", r"cannot be imported \(NameError: name 'undefined_name' is not defined\)"),
        ("grammar.py:check", r"cannot be imported \(.*grammar\.py, line 1: invalid syntax\): mend that line"),
        (
            "script.py:check",
            r"cannot be imported \(it exits with status 3\): put what a script does behind if",
        ),
        ("json.py:check", r"cannot be imported \(Python has another module json, rename the file\)"),
        ("right.py:other", r"cannot be imported \(.*no attribute 'other'\)"),
        ("right.py", r"cannot be imported"),
    ],
)
def test_what_cannot_be_imported(path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "mistake": "undefined_name",
        "grammar": "def check(:",
        "script": "import sys\ncheck = print\nsys.exit(3)",
        "json": "check = print",
        "right": "check = print",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^verifier='{path}' {said}"):
        named("verifier", path)


def test_an_import_neither_moves_the_run_nor_reads_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "moves.py").write_text("import os\nos.chdir('/')\ncheck = print\n")
    (tmp_path / "moves_and_fails.py").write_text("import os\nos.chdir('/')\nraise ValueError\n")
    parse = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--x', required=%s)\n"
    (tmp_path / "parses.py").write_text(f"{parse % False}check = parser.parse_args()\n")
    (tmp_path / "wants.py").write_text(f"{parse % True}check = parser.parse_args()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words := ["train.py", "task=local"])
    assert named("verifier", "moves.py:check") is print
    with pytest.raises(UserError, match="moves_and_fails"):
        named("verifier", "moves_and_fails.py:check")
    assert named("verifier", "parses.py:check").x is None
    with pytest.raises(UserError, match=r"^verifier='wants.py:check' cannot be imported \(it exits with status 2\)"):
        named("verifier", "wants.py:check")
    assert (Path.cwd(), sys.argv) == (tmp_path, words)


TASK = """
from resd.types import Problem, Verdict


class Same:
    noun = "answer"

    def problems(self, split):
        return [Problem(split, split)]

    def prompt(self, problem):
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem, response, truncated=False):
        return Verdict(float(response == problem.id), response == problem.id, 0, 0)
"""


def test_a_task_of_a_file_reaches_its_worker(tmp_path: Path) -> None:
    (tmp_path / "task_of_a_file.py").write_text(TASK)
    task = envs.load(f"{tmp_path}/task_of_a_file.py:Same")
    problem = task.problems("train")[0]
    verifier = Verifier(task, 1, 60.0)
    try:
        (said,) = (said for _, said in verifier.verify([(problem, "train", False)]))
    finally:
        verifier.close()
    assert said.reward == 1  # type: ignore[union-attr]


def test_a_task_whose_file_parses_words_reaches_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parsing_task.py").write_text(f"import argparse\nargparse.ArgumentParser().parse_args()\n{TASK}")
    monkeypatch.setattr(sys, "argv", ["train.py", "task=custom"])
    task = envs.load(f"{tmp_path}/parsing_task.py:Same")
    assert examine(task, task.problems("train"), 60.0) is None


def test_a_file_beside_the_command_is_found(tmp_path: Path) -> None:
    (tmp_path / "task_of_a_file.py").write_text(TASK)
    line = [sys.executable, "-m", "resd.envs.play", "task=task_of_a_file.py:Same"]
    done = subprocess.run(line, cwd=tmp_path, input="test\n", capture_output=True, text=True)
    assert "attempt 1: passed" in done.stdout, done.stderr
