"""A stricter judge than the test suites: every tape up to length 7, and long random ones, against the predicate.

Seven in ten counting problems, and one in five of the others of `has`, have a suite that another problem's exact
solution passes; passing it does not prove a program right. Here the tapes come in rounds, and a program that fails one
is not run on the next, so that a wrong one costs little: `cases_total` counts the tapes it was run on.

Tapes of red and blue alone go up to length 10. Where the output counts, none is longer than 12, since a right program
may walk over the tape once for every colour of it and would run into the limit of visits.
"""

from functools import cache, lru_cache
from itertools import product
from random import Random

from resd.envs.manufactoria.families import Rule
from resd.envs.manufactoria.families.cases import record
from resd.envs.manufactoria.feedback import Failure, FeedbackKind
from resd.envs.manufactoria.goal import COLOURS, Goal
from resd.envs.manufactoria.grade import RewardKind, judge
from resd.envs.manufactoria.program import Program
from resd.types import Verdict


def grade_strictly(
    response: str,
    goal: Goal | Rule,
    truncated: bool = False,
    *,
    reward: RewardKind = "sparse",
    feedback: FeedbackKind = "full",
) -> Verdict:
    """Like `grade`, with the tapes of `rounds` in place of a test suite."""
    return judge(response, lambda program: _run(program, goal), len(_tapes(goal, 0)), truncated, reward, feedback)


@cache
def rounds(colours: str = COLOURS, longest: int = 60) -> tuple[tuple[str, ...], ...]:
    """All short tapes and 200 longer ones, half of them without some colour; then length by length up to 7 (of 10).

    Short is up to 4 colours of four, or 7 of two; longer up to `longest`.
    """
    most, short = (7, 5) if len(colours) > 2 else (10, 8)
    by_length = [tuple("".join(symbols) for symbols in product(colours, repeat=length)) for length in range(most + 1)]
    random, long = Random("strict"), []
    for number in range(200):
        among = colours if number % 2 else random.sample(colours, random.randint(1, len(colours) - 1))
        long.append("".join(random.choices(among, k=random.randint(most + 1, longest))))
    return (sum(by_length[:short], ()) + tuple(long), *by_length[short:])


@lru_cache(maxsize=256)
def _tapes(goal: Goal | Rule, round_: int) -> tuple[str, ...]:
    if isinstance(goal, Goal):
        return rounds()[round_]
    tapes = rounds(goal.colours, goal.longest)[round_]
    return tapes if round_ else tuple(dict.fromkeys((*goal.probes(), *tapes)))


@lru_cache(maxsize=256)
def _expected(goal: Goal | Rule, round_: int) -> list[bool] | list[bool | str]:
    """What must become of the tapes of a round: a verdict, or an output."""
    if isinstance(goal, Goal):
        return [goal.accepts(tape) for tape in _tapes(goal, round_)]
    return [goal.expected(tape) for tape in _tapes(goal, round_)]


def _run(program: Program, goal: Goal | Rule) -> tuple[list[Failure], int]:
    """The failures in the first round that has any, and the number of tapes up to there."""
    n_cases, failures = 0, []
    for round_ in range(4):
        tapes = _tapes(goal, round_)
        for index, (tape, expected) in enumerate(zip(tapes, _expected(goal, round_), strict=True), n_cases):
            accepted = program.accepts(tape)
            right = (
                accepted and program.walk(tape).tape == expected if isinstance(expected, str) else accepted == expected
            )
            if not right:
                failures.append(Failure(index, record(tape, expected), accepted, program.run(tape)))
        n_cases += len(tapes)
        if failures:
            break
    return failures, n_cases
