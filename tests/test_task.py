"""What a task gives: problems and prompts of a user's own are checked before anything else sees them."""

import re
from pathlib import Path
from typing import Any

import pytest

from resd import envs
from resd.settings import TaskSettings
from resd.task import problems_of
from resd.train import load_task
from resd.types import Problem, UserError, Verdict

ONE = Problem("one", "Say one.")
ASKED = [{"role": "user", "content": "Say one."}]


class Own:
    """A task that gives what it was told to give."""

    noun = "word"

    def __init__(self, given: Any, asked: Any = ASKED) -> None:
        self.given, self.asked = given, asked

    def problems(self, split: str) -> Any:
        return self.given

    def prompt(self, problem: Problem) -> Any:
        return self.asked

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        return Verdict(1.0, True, 1, 1)


def test_problems_may_be_given_one_by_one() -> None:
    two = Problem("two", "Say two.")
    assert problems_of(Own(each for each in (ONE, two)), "train") == [ONE, two]
    assert problems_of(Own({"one": ONE, "two": two}.values()), "test") == [ONE, two]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("one", "'one': let it give a list of resd.types.Problem"),
        ({"one": ONE}, "{'one': Problem("),
        (None, "None: let it give a list"),
        (ONE, "Problem(id='one'"),
        ([{"id": "one"}], "{'id': 'one'} as a problem: let it give resd.types.Problem(id, statement)"),
        (["one"], "'one' as a problem"),
        ([Problem(1, "Say one.")], "Problem(id=1, statement='Say one.'"),  # type: ignore[arg-type]
        ([Problem("one", None)], ": id and statement must be texts"),  # type: ignore[arg-type]
        ([ONE, ONE], "two problems with the id 'one': every problem needs its own"),
        ([], "no problem: let it give one or more"),
    ],
)
def test_what_are_no_problems_is_one_sentence(given: Any, says: str) -> None:
    with pytest.raises(UserError, match=rf"^Own\.problems\('test'\) gave .*{re.escape(says)}") as caught:
        load_task(TaskSettings(name="own"), "test", own=Own(given))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "asked",
    [
        "Say one.",
        None,
        [],
        ASKED[0],
        ["Say one."],
        [{"content": "Say one."}],
        [*ASKED, {"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "text", "text": "Say one."}]}],
        iter(ASKED),
    ],
)
def test_what_is_no_prompt_is_one_sentence(asked: Any) -> None:
    with pytest.raises(UserError, match=r"^Own\.prompt gave .* for the problem 'one': let it give a list of messages"):
        problems_of(Own([ONE], asked), "train")


def test_what_is_no_task_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "no_task.py").write_text("def make():\n    return {'noun': 'word'}\n")
    with pytest.raises(UserError, match=r"^task 'no_task:make': .* is no task \(it has no noun, problems, prompt, ver"):
        envs.load("no_task:make")
