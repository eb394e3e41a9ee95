"""Elections: who has a vote, who is elected, and that an evaluation holds them too."""

from dataclasses import replace

import pytest
from test_vote import said

from resd import envs
from resd.context.votes import ballot, elected
from resd.measure.evaluation import voted
from resd.types import Attempt, Problem, UserError, Verdict
from resd.verdict import checked


def cast(*ballots: str | None, answer: str | None = "as written") -> list[Attempt]:
    """Attempts with such ballots; a verdict that was lost for each "lost"."""
    attempts = said("a", [answer] * len(ballots), "right")
    for attempt, name in zip(attempts, ballots, strict=True):
        attempt.verdict = None if name == "lost" else Verdict(0.0, False, 0, 1, "no", answer, ballot=name)
    return attempts


@pytest.mark.parametrize(
    ("ballots", "winners"),
    [
        (["a", "b", "b"], [1, 2]),
        (["a", "b"], [0]),  # of equal ones the first
        (["b", "a", "a", "b"], [0, 3]),
        (["", "", "b"], [2]),  # what cannot be read has no vote
        (["lost", "lost", "b"], [2]),
        ([None, "b", None], [0, 2]),  # an answer is its own ballot
        (["", "lost"], []),
        ([], []),
    ],
)
def test_the_commonest_ballot_is_elected(ballots: list[str | None], winners: list[int]) -> None:
    attempts = cast(*ballots)
    assert [each.verdict for each in elected(attempts)] == [attempts[i].verdict for i in winners]


def test_what_names_no_answer_has_no_vote() -> None:
    assert [ballot(attempt) for attempt in cast(None, "", "x", answer=None)] == ["", "", "x"]


def test_an_evaluation_counts_ballots_and_not_texts() -> None:
    attempts = said("a", ["9", "1 + 2", "2 + 1"], "2 + 1")
    assert voted(attempts, 3) == {"eval/per_task/vote@3": 0.0}
    for attempt in attempts[1:]:
        assert attempt.verdict is not None
        attempt.verdict = replace(attempt.verdict, passed=True, ballot="1 + 2")
    assert voted(attempts, 3) == {"eval/per_task/vote@3": 1.0}


@pytest.mark.parametrize("name", [None, "", "x"])
def test_a_ballot_comes_back_from_who_judges(name: str | None) -> None:
    assert checked(Verdict(0.0, False, 0, 1, "no", "as written", ballot=name)).ballot == name
    with pytest.raises(UserError, match="whose ballot is 7, not a text or None"):
        checked(Verdict(0.0, False, 0, 1, "no", ballot=7))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("3 * (5 + 2)", "(2 + 5) * 3", True),
        ("1 - 2 + 3", "3 + 1 - 2", True),
        ("1 - (2 - 3)", "1 + 3 - 2", True),
        ("((1 + 02)) + 3", "3 + (2 + 1)", True),
        ("8 / 2 * 3", "8 * (3 / 2)", True),
        ("8 / (2 / 3)", "8 * 3 / 2", True),
        ("8 / 2 / 3", "8 / (2 * 3)", True),
        ("3 - 2", "2 - 3", False),
        ("1 - (2 + 3)", "1 - 2 + 3", False),
        ("8 / 2", "2 / 8", False),
        ("3 * 5 + 2", "3 * (5 + 2)", False),
        ("3 * 5 + 3 * 2", "3 * (5 + 2)", False),  # other numbers are used
        ("2 + 2", "2 * 2", False),  # equal by chance
    ],
)
def test_expressions_vote_alike_if_order_and_parentheses_alone_differ(one: str, other: str, alike: bool) -> None:
    task = envs.load("countdown")
    problem = task.problems("train")[0]
    first, second = (task.verify(problem, f"<answer>{text}</answer>").ballot for text in (one, other))
    assert first
    assert (first == second) == alike


@pytest.mark.parametrize("response", ["3 + 5", "<answer>3 +</answer>", "<answer></answer>", ""])
def test_an_expression_that_cannot_be_read_has_no_vote(response: str) -> None:
    task = envs.load("countdown")
    verdict = task.verify(task.problems("train")[0], response)
    assert ballot(Attempt("", Problem("", ""), [], "", [], [], [], response, False, verdict)) == ""
