"""`python -m resd.envs.play`: a person in the place of the policy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resd.envs.manufactoria import solution
from resd.envs.manufactoria.families.sets import split_problems
from resd.envs.manufactoria.problems import split_problems as has_problems

HERE = Path(__file__).parent


def played(typed: str, *arguments: str, status: int = 0, path: Path = HERE) -> str:
    """What is shown to someone who types this; `path` is where Python looks for modules besides the project."""
    done = subprocess.run(
        [sys.executable, "-m", "resd.envs.play", *arguments],
        input=typed,
        errors="surrogateescape",
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{HERE.parent}", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == status, done.stderr
    assert bool(done.stderr) == bool(status)
    return done.stdout if status == 0 else done.stderr


def test_wrong_then_right() -> None:
    problem = has_problems("test")[0]
    accept_all = "```\nSTART start:\n    NEXT end\n\nEND end\n```"
    right = f"```manufactoria\n{solution(problem)}\n```"
    shown = played(f"hm\n.\n{accept_all}\n.\n{right}\n.\nnever read\n", "task=manufactoria")
    assert shown.startswith(f"{problem.id} ({problem.family})")
    parts = shown.split("--- attempt ")
    assert parts[0].count(problem.statement) == 1
    assert "--- user" in parts[0]
    assert "your program, then a line with a single dot" in parts[0]
    assert parts[1].startswith(f"1: failed (no_answer), 0 of {len(problem.cases)} cases, reward 0.00\nNo program")
    assert parts[2].startswith("2: failed, ")
    assert "tests pass" in parts[2]
    assert parts[3] == f"3: passed, {len(problem.cases)} of {len(problem.cases)} cases, reward 1.00\n"


def test_the_end_of_the_input_ends_an_answer_and_the_game() -> None:
    assert played("first line\nsecond", "task=verifier_tasks:Echo").count("--- attempt 1: failed, 0 of 1") == 1
    assert "--- attempt" not in played("", "task=verifier_tasks:Echo")
    assert "--- attempt" not in played("\n.\n", "task=verifier_tasks:Echo")


def test_problem_split_and_options() -> None:
    (*_, last) = split_problems("ends", "train")
    options = ("task=manufactoria", "task.options.family=ends", "prompt=compact", "feedback=official", "split=train")
    by_number = played("x\n", *options, "problem=107")
    assert last.statement in by_number
    assert by_number == played("x\n", *options, f"problem={last.id}")
    assert "You program a factory" not in by_number
    assert "You program a factory" in played("", "task=manufactoria", "prompt=full")


def test_options_are_read_as_in_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"split": "test", "prompt": "Say one, then two.", "answer": "one\\ntwo"}\n')
    (tmp_path / "same.py").write_text("def same(row, response): return response == row['answer']\n")
    options = ("task=local", f"source={tmp_path / 'rows.jsonl'}", "verifier=same:same", "noun=word")
    shown = played("two\n.\none\ntwo\n.\n", *options, path=tmp_path)
    assert "your word, then" in shown
    assert "attempt 1: failed, 0 of 1 cases, reward 0.00\nThe word is wrong." in shown
    assert "attempt 2: passed" in shown


def test_a_broken_verifier_loses_an_attempt_and_not_the_game() -> None:
    shown = played("crash", "task=verifier_tasks:Echo")
    assert "--- attempt 1 is lost: the verifier raised RuntimeError: a broken verifier" in shown


ODD = """
import sys
from resd.types import Problem, Verdict


class Odd:
    noun = "answer"

    def problems(self, split):
        yield Problem("odd", "Say \\ud83d.")

    def prompt(self, problem):
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem, response, truncated=False):
        if response == "exit":
            sys.exit(3)
        return (True, "right") if response == "pair" else Verdict(0.0, False, 0, 1, f"not \\ud83d, {response}")


def of_text(text: str, other: str | None = None):
    return Odd()
"""


def test_what_a_verifier_says_is_read_as_in_a_run(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    shown = played("exit\n.\npair\n.\n\udcff\n.\n", "task=odd:Odd", path=tmp_path)
    assert "attempt 1 is lost: the verifier raised SystemExit: 3\n" in shown
    assert "attempt 2 is lost: returned a tuple, not a Verdict\n" in shown
    assert "attempt 3: failed, 0 of 1 cases, reward 0.00\nnot \N{REPLACEMENT CHARACTER}, " in shown


@pytest.mark.parametrize("word", ["text=[a, b]", "text={a: b}", "other=[]"])
def test_no_text_where_one_is_meant(tmp_path: Path, word: str) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    shown = played("", "task=odd:of_text", "text=a", word, path=tmp_path, status=2)
    assert shown.startswith(f"error: {word[:6]}")
    assert shown.endswith(" is no text: write one, in quotes if need be\n")


def test_help() -> None:
    assert "python -m resd.envs.play task=manufactoria" in played("", "--help")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "task has no value: write task=package.module:callable, or one of "),
        (("manufactoria",), "'manufactoria' is no setting: write key=value"),
        (("task=factory",), "no task named 'factory'"),
        (("task=custom",), "no task named 'custom': write the name of a file in envs/"),
        (("task=manufactoria", "problem=133"), "problem=133 does not exist: write a number from 1 to 132, or an id"),
        (("task=manufactoria", "split=dev"), "split=dev does not exist: write train or test"),
        (("task=manufactoria", "colour=red"), "it takes source, family, prompt"),
        (("task=manufactoria", "feedback=none"), "feedback='none' is unknown: write one of"),
        (("task=local",), "missing a required argument: 'source'; it takes source, verifier, noun"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], message: str) -> None:
    shown = played("", *arguments, status=2)
    assert shown.startswith("error: ")
    assert message in shown
    assert shown.count("\n") == 1
