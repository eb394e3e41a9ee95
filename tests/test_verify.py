from collections.abc import Iterator

import pytest
from verifier_tasks import Echo

from resd.types import Problem
from resd.verify import Verifier

PROBLEM = Problem("p", "yes")


@pytest.fixture(params=[1, 2])
def verifier(request: pytest.FixtureRequest) -> Iterator[Verifier]:
    verifier = Verifier(Echo(), workers=request.param, timeout=1.0)
    yield verifier
    verifier.close()


def rewards(verifier: Verifier, responses: list[str]) -> list[float | None]:
    verdicts = dict(verifier.verify([(PROBLEM, response, False) for response in responses]))
    assert sorted(verdicts) == list(range(len(responses)))
    return [v.reward if (v := verdicts[i]) else None for i in range(len(responses))]


def test_verdicts_by_index(verifier: Verifier) -> None:
    assert rewards(verifier, ["yes", "no", "yes"] * 5) == [1.0, 0.0, 1.0] * 5
    assert rewards(verifier, []) == []


@pytest.mark.parametrize("bad", ["hang", "crash", "die"])
def test_a_misbehaving_verifier_loses_one_answer(verifier: Verifier, bad: str) -> None:
    assert rewards(verifier, ["yes", bad, "no", "yes"]) == [1.0, None, 0.0, 1.0]
    assert rewards(verifier, ["yes"]) == [1.0]  # and the next batch is judged as ever
