"""A task made of functions, for a script or a notebook: `resd.Task(problems, judge)`.

    def problems(split):
        return [{"prompt": f"Write {word!r} backwards.", "answer": word[::-1]} for word in WORDS[split]]

    def judge(row, response):
        return response.strip() == row["answer"], f"The answer is not {row['answer']}."

    resd.train(resd.Task(problems, judge))

The rows and what a judging function may return are those of `task=local` (`resd.envs.local`), which reads them from a
file. Judging happens in other processes: functions and classes that cannot be imported there, those of a notebook or a
script above all, are sent as they are, with the values that their global names have at the start of the run.
Not covered: functions that must keep state, or use what cannot leave its process, such as an open file.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from resd.task import Split, scalar, share
from resd.types import Messages, Problem, UserError, Verdict

Row = Mapping[str, Any]
Problems = Callable[[Split], Iterable[Row | Problem]] | Mapping[Split, Iterable[Row | Problem]]
RETURN = "return True or False, a reward from 0 to 1, a pair of either and a feedback, or a Verdict"
Judged = bool | float | tuple[bool | float, str] | Verdict


class Task:
    """Implements `resd.task.Task`.

    problems: a function of "train" or "test" that gives rows or problems, or a dictionary of both
    judge: a function of such a row or problem and a response, as in `resd.envs.local`
    prompt: a function of the same that gives a text or chat messages; by default a row's `prompt`, or the statement
    noun: what the trainer's prompts call a response ("answer", "program", …)
    name: what a run calls the task; by default that of the function that judges
    """

    def __init__(
        self,
        problems: Problems,
        judge: Callable[[Any, str], Judged],
        prompt: Callable[[Any], str | Messages] | None = None,
        *,
        noun: str = "answer",
        name: str | None = None,
    ) -> None:
        for role, function in {"judge": judge, "prompt": prompt}.items():
            if function is not None and not callable(function):
                raise UserError(f"{role}={function!r:.80} is not a function: give one")
        self.given, self.judge, self.asked, self.noun = problems, judge, prompt, noun
        own = getattr(judge, "__name__", "")
        self.name = name or (own if own.isidentifier() else "task")

    def problems(self, split: Split) -> list[Problem]:
        """The problems of one split, at least one. Raises UserError for rows that cannot be used."""
        given = self.given.get(split, ()) if isinstance(self.given, Mapping) else self.given(split)
        problems: dict[str, Problem] = {}
        for number, row in enumerate(given, 1):
            problem = row if isinstance(row, Problem) else self._problem(row, f"{split}-{number}")
            if problem.id in problems:
                raise UserError(f"the id {problem.id!r} occurs twice in {split}; every problem needs its own")
            problems[problem.id] = problem
        if not problems:
            raise UserError(f"the task {self.name} has no {split} problem: let `problems` give some for {split!r}")
        return list(problems.values())

    def _problem(self, row: Any, name: str) -> Problem:
        if not isinstance(row, Mapping):
            raise UserError(f"{name}: {row!r:.40} is no problem: give dictionaries, or resd.Problem")
        row = dict(row)
        if self.asked is not None:
            row["prompt"] = self.asked(row)
        return from_row(row, name, name, kind=FromRow)

    def prompt(self, problem: Problem) -> Messages:
        """What `prompt` gives, or the row's own, as one message of the user if it is a text."""
        asked: str | Messages = problem.statement
        if isinstance(problem, FromRow):
            asked = problem.cases[0]["prompt"]
        elif self.asked is not None:
            asked = self.asked(problem)
        return [{"role": "user", "content": asked}] if isinstance(asked, str) else asked

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """What `judge` says. Raises what it raises, and UserError when it gives something else than it should."""
        row = problem.cases[0] if isinstance(problem, FromRow) else problem
        wrong = f"The {self.noun} is wrong."
        return verdict(self.judge(row, response), response, wrong, f"judge={self.name}")


class FromRow(Problem):
    """A problem that was a row, its only case."""

    __slots__ = ()


def verdict(given: Any, response: str, wrong: str, judge: str) -> Verdict:
    """A judging function's answer as a verdict on `response`; `wrong` is the feedback where it has none.

    Raises UserError, which names `judge`, if it is no verdict.
    """
    if isinstance(given, Verdict):
        return given
    reward, feedback = given if isinstance(given, tuple) and len(given) == 2 else (given, "")
    reward = share(reward)
    if reward is None or not isinstance(feedback, str):
        raise UserError(f"{judge} gave {given!r:.80}: {RETURN}")
    passed = reward == 1
    return Verdict(reward, passed, int(passed), 1, "" if passed else feedback or wrong, response)


def from_row(
    row: dict[str, Any],
    place: str,
    default_id: str,
    privileged: str | None = None,
    *,
    cases: int = 1,
    advice: str = "",
    kind: type[Problem] = Problem,
) -> Problem:
    """The problem that a row describes, with the row as every case.

    Raises UserError, which names `place`, if it describes none; `advice` is for a row without a prompt.
    """
    match row.get("prompt"):
        case str(asked) if asked.strip():
            statement = asked
        case [*messages] if messages and all(map(_is_message, messages)):
            asked = [{key: said for key, said in message.items() if said is not None} for message in messages]
            row, statement = {**row, "prompt": asked}, messages[-1]["content"]
        case asked:
            raise UserError(
                f"{place}: prompt must be a text, or a list of messages with role and content, all texts, "
                f"not {asked!r:.40}{advice}"
            )
    told = text(row, privileged, place) if privileged else ""
    return kind(text(row, "id", place) or default_id, statement, text(row, "family", place), [row] * cases, told)


def text(row: dict[str, Any], key: str, place: str) -> str:
    """A text or a number, as a text; "" where it is left out, which spreadsheets write as null or NaN."""
    match scalar(row.get(key)):
        case None:
            return ""
        case float(value) if math.isnan(value):
            return ""
        case str(value) | int(value) | float(value) if not isinstance(value, bool):
            return str(value)
        case other:
            raise UserError(f"{place}: {key} must be a text or a number, not {other!r:.40}")


def _is_message(message: Any) -> bool:
    """One of texts; what is null, as columns of files write it, is left out."""
    return (
        isinstance(message, dict)
        and all(isinstance(message.get(key), str) for key in ("role", "content"))
        and all(said is None or isinstance(said, str) for said in message.values())
    )
