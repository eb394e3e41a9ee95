"""Dialects as tasks for nano: Manufactoria under a law that wants other spellings than the official one.

    python -m resd.train task=sequence 'task.options.parts={
        official: {name: "scripts/laws.py:Law", options: {other: []}, updates: 8},
        readers: {name: "scripts/laws.py:Law", options: {other: [puller, empty, reject]}, updates: 8},
        round: {name: "scripts/laws.py:Law", options: {other: [colon, bracket, indent]}, updates: 8}}'

A law names the conventions of `nano.dialects` in which it wants the other form. A response is judged by the task's own
verifier after both forms of these were exchanged in it, and its feedback is told with the same exchange: what is right
under a law is wrong under every other one. Problems and prompts are those of the official task, so that nothing but
feedback says which law holds.

Not covered: `foreign`, which is about the structure of a program, and `id`, whose forms mean something else by place.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nano.dialects import FORMS, OFFICIAL

from resd import envs
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict


def _swapped(name: str, pattern: str = r"\b({0}|{1})(?=\b|_)") -> Callable[[str], str]:
    """Exchanges the two forms of a convention where the pattern finds one of them."""
    official, other = FORMS[name]
    found = re.compile(pattern.format(official, other), re.MULTILINE)
    return lambda text: found.sub(lambda match: other if match[1] == official else official, text)


def _colons(text: str) -> str:
    """Headers of nodes without a colon where they had one, and with one where they had none."""
    return _HEADER.sub(lambda found: found[1] + ("" if found[2] else ":"), text)


_HEADER = re.compile(r"^(START \w+|(?:PULLER|READER)_\w+ \w+)(:?)(?=$| #)", re.MULTILINE)
EXCHANGES: dict[str, Callable[[str], str]] = {
    "colon": _colons,
    "indent": _swapped("indent", r"^({0}|{1})(?=\S)"),
    "puller": _swapped("puller"),
    "bracket": lambda text: text.translate(str.maketrans("[]()", "()[]")),
    "empty": _swapped("empty"),
    "reject": _swapped("reject"),
}


class Law:
    """Implements `resd.task.Task`; `options` are those of Manufactoria. Raises UserError for an unknown convention.

    other: conventions whose other form is right
    """

    noun = "program"

    def __init__(self, other: Sequence[str], **options: Any) -> None:
        if unknown := [name for name in other if name not in EXCHANGES]:
            raise UserError(f"other={unknown[0]} is no convention: write some of {', '.join(EXCHANGES)}")
        compact = {"prompt": "compact", "feedback": "compact"}
        self.task = envs.load("manufactoria", **compact | options)
        self.dialect = OFFICIAL.flip(*other)

    def problems(self, split: Split) -> Sequence[Problem]:
        return self.task.problems(split)

    def prompt(self, problem: Problem) -> Messages:
        return self.task.prompt(problem)

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """What the official machine says of the response in its own forms."""
        for name, exchange in EXCHANGES.items():
            if self.dialect.variant(name):
                response = exchange(response)
        verdict = self.task.verify(problem, response, truncated)
        return replace(verdict, feedback=self.dialect.translate(verdict.feedback))
