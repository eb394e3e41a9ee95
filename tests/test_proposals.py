"""Problems of Countdown that somebody proposes: what is read, refused, and held out."""

import re

import pytest
from test_countdown import TASK, verdict

from resd import envs
from resd.task import Proposing


@pytest.mark.parametrize(
    "said",
    [
        "<problem>Make 24 from the numbers 8, 3, 6.</problem>",
        "make 24 from 8 3 and 6",
        "Make  24 from numbers 3,6,\n and 8",
        "Make 024 from the numbers 6, 8, 03",
        "<problem>Make 1 from the numbers 2, 3, 4.</problem> Better: <problem>Make 24 from 6, 3, 8</problem>",
    ],
)
def test_a_proposal_is_a_problem_however_it_is_written(said: str) -> None:
    response = f"So {said}" if "<problem>" in said else f"<think>Hm</think><problem>{said}</problem>"
    problem = TASK.proposed(response, "mine")
    assert (problem.id, problem.statement) == ("mine", "Make 24 from the numbers 3, 6, 8.")
    assert (problem.family, problem.privileged) == ("3 numbers", "")
    assert "Make 24 from the numbers 3, 6, 8." in TASK.prompt(problem)[0]["content"]
    assert verdict("8 * 6 / (3 - 1)", problem).cases_passed == 1
    assert verdict("(6 - 3) * 8", problem).passed


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Make 24 from the numbers 3, 6.", "2 numbers instead of 3 to 4"),
        ("Make 24 from the numbers 1, 2, 3, 4, 5.", "5 numbers instead of 3 to 4"),
        ("Make 24 from the numbers 0, 3, 8.", "a number is not from 1 to 99"),
        ("Make 24 from the numbers 3, 8, 100.", "a number is not from 1 to 99"),
        ("Make 9 from the numbers 1, 3, 5.", "the target is not from 10 to 99"),
        ("Make 100 from the numbers 1, 3, 5.", "the target is not from 10 to 99"),
        ("Make 24 from the numbers 1, 24, 5.", "the target is one of the numbers"),
        ("Make 24 from the numbers 1, 2.5, 5.", "is not of the form"),
        ("Make -24 from the numbers 1, 2, 5.", "is not of the form"),
        ("Make TARGET from the numbers A, B, C.", "is not of the form"),
        ("Make 24 from the numbers 1, 2, ٣.", "is not of the form"),
        (f"Make 24 from the numbers {'1 ' * 5000}", "is not of the form"),
        (f"Make {'9' * 5000} from the numbers 1, 2, 3.", "is not of the form"),
        ("", "is not of the form"),
    ],
)
def test_what_is_no_problem_of_this_kind_is_refused(said: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TASK.proposed(f"<problem>{said}</problem>", "mine")
    with pytest.raises(ValueError, match="no problem between"):
        TASK.proposed(f"{said}<think><problem>Make 24 from the numbers 3, 6, 8.</problem></think>", "mine")


def test_a_test_problem_is_held_out_whoever_states_it() -> None:
    for split in ("train", "test"):
        for problem in TASK.problems(split)[:50]:
            mine = TASK.proposed(f"<problem>{problem.statement}</problem>", "mine")
            assert TASK.held_out(mine) == (split == "test")
            assert mine.cases[0].key == problem.cases[0].key


@pytest.mark.parametrize("prompt", ["full", "compact"])
def test_a_level_is_a_number_more(prompt: str) -> None:
    task = envs.load("countdown", fewest=2, most=4, largest=30, operators="+-", prompt=prompt)
    assert isinstance(task, Proposing)
    asked = [task.propose_prompt(0, level)[0]["content"] for level in range(task.levels)]
    assert [re.findall(r"\b([234]) (?:whole )?numbers", text) for text in asked] == [["2"], ["3"], ["4"]]
    for text in asked:
        assert all(part in text for part in ("30", "10", "99", "<problem>", "</problem>"))
        assert prompt == "compact" or "operators + - and" in text


@pytest.mark.parametrize("sizes", [{}, {"low": 10, "high": 10, "largest": 11, "train": 1, "test": 1}])
def test_the_form_is_shown_by_an_example_that_could_be_said(sizes: dict[str, int]) -> None:
    """With other numbers for every seed, also where nearly none is left to be the target."""
    task = envs.load("countdown", **sizes)
    asked = [task.propose_prompt(seed, seed % task.levels)[0]["content"] for seed in range(60)]
    shown = [task.proposed(text, "mine").statement for text in asked]
    assert len(set(shown)) > 50
