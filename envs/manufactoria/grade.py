"""From a model's response to a verdict: find the program, parse it, run the tests, explain what failed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from resd.envs.manufactoria import feedback as explain
from resd.envs.manufactoria.feedback import Failure, FeedbackKind
from resd.envs.manufactoria.parser import ParseError, parse
from resd.envs.manufactoria.program import Program
from resd.types import Verdict

RewardKind = Literal["sparse", "dense"]
_FENCE = "```"
_PATTERN_MARKS = frozenset(".+*?|()")


def extract(response: str) -> str | None:
    """The content of the last pair of triple backticks in the whole response, or None when there is no pair.

    Pairs are formed from the left, thinking included. A tag `manufactoria` that touches the opening fence is dropped;
    any other tag stays and becomes a first line, which will not parse.
    """
    parts = response.split(_FENCE)
    n_pairs = (len(parts) - 1) // 2
    return parts[2 * n_pairs - 1].removeprefix("manufactoria").strip() if n_pairs else None


def grade(
    response: str,
    cases: Sequence[Mapping[str, Any]],
    truncated: bool = False,
    *,
    reward: RewardKind = "sparse",
    feedback: FeedbackKind = "full",
) -> Verdict:
    """Grades a whole response against records of the dataset's column `ground_truth`.

    `reward` is 1 for a program that passes every case and else 0 (`sparse`) or the share of passed cases (`dense`).
    Without a program (`error` is `no_answer`, or `truncated`), without cases (`no_cases`), or with a program that does
    not parse (`parse`) nothing passes.
    """
    return judge(
        response, lambda program: (run_cases(program, cases), len(cases)), len(cases), truncated, reward, feedback
    )


def judge(
    response: str,
    run: Callable[[Program], tuple[list[Failure], int]],
    n_cases: int,
    truncated: bool,
    reward: RewardKind,
    feedback: FeedbackKind,
) -> Verdict:
    """Grades with any evaluator: `run` gives the failures of a program and the number of cases it was run on.

    `n_cases` is what counts as failed when there is no program to run.
    """
    answer = extract(response)
    if answer is None:
        error = "truncated" if truncated else "no_answer"
        return Verdict(0.0, False, 0, n_cases, explain.no_answer(truncated), error=error)
    if not n_cases:
        return Verdict(0.0, False, 0, 0, "This problem has no tests.", answer, error="no_cases")
    try:
        program = parse(answer)
    except ParseError as mistake:
        return Verdict(0.0, False, 0, n_cases, explain.not_parsed(mistake, feedback), answer, error="parse")
    failures, n_cases = run(program)
    if not failures:
        return Verdict(1.0, True, n_cases, n_cases, answer=answer)
    n_passed = n_cases - len(failures)
    text = explain.failed(program, failures, n_cases, feedback)
    return Verdict(n_passed / n_cases if reward == "dense" else 0.0, False, n_passed, n_cases, text, answer)


def run_cases(program: Program, cases: Iterable[Mapping[str, Any]]) -> list[Failure]:
    """The cases that `program` fails, in order. Fields that a record lacks count as "" and true."""
    failures = []
    for index, case in enumerate(cases):
        tape = case.get("input", "")
        right = accepted = program.accepts(tape)
        if accepted and case.get("check_output", True):
            right = _matches(program.walk(tape).tape, case.get("expected_output", ""))
        if right != case.get("expected_accepted", True):
            failures.append(Failure(index, case, accepted, program.run(tape)))
    return failures


def _matches(tape: str, expected: str) -> bool:
    """Whether a final tape is the expected one, or matches it when it looks like a regular expression.

    The pattern comes from the data, never from a model, so it is trusted not to backtrack for ever.
    """
    if _PATTERN_MARKS.isdisjoint(expected):
        return tape == expected
    try:
        return re.fullmatch(expected, tape) is not None
    except re.error:
        return tape == expected
