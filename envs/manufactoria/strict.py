"""A stricter judge than the test suites: every tape up to length 7, and long random ones, against the predicate.

Seven in ten counting problems, and one in five of the others, have a suite that another problem's exact solution
passes; passing it does not prove a program right. Here the tapes come in rounds, and a program that fails one is
not run on the next, so that a wrong one costs little: `cases_total` counts the tapes it was run on.
"""

from functools import cache, lru_cache
from itertools import product
from random import Random

from envs.manufactoria.feedback import Failure, FeedbackKind
from envs.manufactoria.goal import COLOURS, Goal
from envs.manufactoria.grade import RewardKind, judge
from envs.manufactoria.program import Program
from envs.manufactoria.suite import case
from resd.types import Verdict


def grade_strictly(
    response: str,
    goal: Goal,
    truncated: bool = False,
    *,
    reward: RewardKind = "sparse",
    feedback: FeedbackKind = "full",
) -> Verdict:
    """Like `grade`, with the tapes of `rounds` in place of a test suite."""
    return judge(response, lambda program: _run(program, goal), len(rounds()[0]), truncated, reward, feedback)


@cache
def rounds() -> tuple[tuple[str, ...], ...]:
    """Lengths 0 to 4 with 200 tapes of length 8 to 60, half of them without some colour; then lengths 5, 6 and 7."""
    by_length = [tuple("".join(symbols) for symbols in product(COLOURS, repeat=length)) for length in range(8)]
    random, long = Random("strict"), []
    for number in range(200):
        colours = COLOURS if number % 2 else random.sample(COLOURS, random.randint(1, 3))
        long.append("".join(random.choices(colours, k=random.randint(8, 60))))
    return (sum(by_length[:5], ()) + tuple(long), *by_length[5:])


@lru_cache(maxsize=256)
def _labels(goal: Goal, round_: int) -> list[bool]:
    return [goal.accepts(tape) for tape in rounds()[round_]]


def _run(program: Program, goal: Goal) -> tuple[list[Failure], int]:
    """The failures in the first round that has any, and the number of tapes up to there."""
    n_cases, failures = 0, []
    for round_, tapes in enumerate(rounds()):
        for index, (tape, expected) in enumerate(zip(tapes, _labels(goal, round_), strict=True), n_cases):
            if program.accepts(tape) != expected:
                failures.append(Failure(index, case(tape, expected), not expected, program.run(tape)))
        n_cases += len(tapes)
        if failures:
            break
    return failures, n_cases
