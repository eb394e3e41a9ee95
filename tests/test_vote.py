"""The answer that most samples of a problem give, and what it earns."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_train import metrics, of_kind, run
from torch.distributed.device_mesh import DeviceMesh
from verifier_tasks import Echo

from resd.measure.evaluation import voted
from resd.types import Attempt, Problem, Verdict


def said(problem: str, answers: Sequence[str | None], right: str) -> list[Attempt]:
    verdicts = [Verdict(float(a == right), a == right, int(a == right), 1, answer=a) for a in answers]
    return [Attempt("", Problem(problem, ""), [], "", [], [1], [0.0], "", False, verdict) for verdict in verdicts]


@pytest.mark.parametrize(
    ("answers", "passes"),
    [
        (["7", "7", "8"], True),
        (["7", "8", "8"], False),
        (["7", "8", "8", "7"], True),  # of equal ones the first
        (["8", "7", "7", "8"], False),
        ([None, None, "7"], True),  # what names no answer has no vote
        ([None, None, None], False),
    ],
)
def test_the_commonest_answer_is_judged(answers: list[str | None], passes: bool) -> None:
    attempts = said("a", answers, "7") + said("b", ["1"] * len(answers), "1")
    assert voted(attempts, len(answers)) == {f"eval/per_task/vote@{len(answers)}": 0.5 + passes / 2}


def test_a_lost_verdict_has_no_vote_and_its_problem_counts() -> None:
    attempts = said("a", ["7", "7"], "7") + said("b", ["7", "7"], "7")
    for attempt in attempts[2:]:
        attempt.verdict = None
    assert voted(attempts, 2) == {"eval/per_task/vote@2": 0.5}


def test_without_answers_there_is_no_vote() -> None:
    assert voted(said("a", [None, None], "7"), 2) == voted([], 2) == {}


class Lengths(Echo):
    """Whose answers are how long a response is."""

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        return replace(super().verify(problem, response, truncated), answer=str(len(response) // 4))


@pytest.mark.parametrize("vote", [False, True])
def test_a_run_votes_if_it_is_asked_to(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, vote: bool) -> None:
    settings = ["task.name=test_vote:Lengths", "algorithm=sdpo", f"evaluation.vote={str(vote).lower()}"]
    run(tiny_model, tmp_path, *settings)
    for row in of_kind(metrics(tmp_path), "eval"):
        assert ("eval/per_task/vote@2" in row) == vote
