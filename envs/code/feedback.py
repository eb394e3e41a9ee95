"""What a failed program is told, by level.

`bit`: that it is wrong. `error`: how many calls are right, and of the first one that is not what came out, or what was
raised and where. `diagnostic`: of a call that the statement shows also what is right. What hidden calls should give is
never told.
"""

from collections.abc import Sequence
from typing import Any, Literal

from resd.envs.code.grade import Result

FeedbackKind = Literal["diagnostic", "error", "bit"]
WRONG = "The program is wrong."
_SHOWN = 200  # characters of a value
_DETAIL = 600  # of what a program says that fails
_KINDS = {
    "syntax": "The program cannot be read",
    "exception": "raised an exception",
    "memory": "ran out of memory",
    "timeout": "ran out of time",
    "killed": "ended the process",
    "bad_value": "returned something that is no answer",
    "too_long": "The program is too long",
}


def failed(function: str, results: Sequence[Result], kind: FeedbackKind) -> str:
    """Of a program that fails at least one call."""
    if kind == "bit":
        return WRONG
    wrong = next(result for result in results if not result.passed)
    if wrong.outcome.error in ("syntax", "too_long"):
        return f"{_KINDS[wrong.outcome.error]}:\n{wrong.outcome.detail[:_DETAIL]}"
    right = sum(result.passed for result in results)
    called = f"{function}({', '.join(map(shown, wrong.case.arguments))})"
    return f"{right} of {len(results)} calls are right. {called} {_told(wrong, kind)}"


def _told(result: Result, kind: FeedbackKind) -> str:
    outcome, case = result.outcome, result.case
    wanted = f" {shown(case.expected)} is right." if kind == "diagnostic" and case.shown else ""
    if outcome.error:
        return f"{_KINDS[outcome.error]}:\n{outcome.detail[:_DETAIL]}{wanted and chr(10) + wanted.strip()}"
    return f"returned {shown(outcome.value)}, which is wrong.{wanted}"


def shown(value: Any) -> str:
    """A value as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
