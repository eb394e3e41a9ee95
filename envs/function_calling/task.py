"""The task of function calling: its options, how a request is asked, and how its answer is judged.

    python -m resd.envs.play task=function_calling
    python -m resd.envs.play task=function_calling source=rows.jsonl

The answer is a JSON list of calls, or one call, alone or in a code fence. A case is a call that is wanted
(`resd.envs.function_calling.grade`). Not covered: calls whose results are needed for others, and requests that want no
call.
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal, get_args

from resd.envs.function_calling.calls import MAX_CHARS, Malformed, answer, given
from resd.envs.function_calling.draw import Item, items
from resd.envs.function_calling.grade import grade
from resd.envs.function_calling.rows import Rows, declared, wanted
from resd.envs.options import choice, whole
from resd.envs.rows import distinct
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

PromptKind = Literal["full", "compact"]
Feedback = Literal["diagnostic", "bit"]
Reward = Literal["sparse", "dense"]

MOST_OFFERED, MOST_WANTED = 4, 3

_FULL = """\
Answer a request by calling functions. These functions are there:

{tools}

Reply with a JSON list of the calls that the request asks for, and nothing else, in this form:

[{{"name": "FUNCTION", "arguments": {{"ARGUMENT": VALUE}}}}]

Arguments that have a default may be left out where the default is wanted. Values must have the types of the function, \
and texts must be those of the request.

Request: {query}"""
_COMPACT = "Call functions.\n{tools}\n{query}"


class FunctionCalling:
    """Implements `resd.task.Task`. Raises UserError for an option or a row that cannot be used.

    source: `generated` (drawn here), or what `resd.envs.sets` reads, in the columns of `rows`
    offered, calls: at most so many functions and calls in a generated problem, 1 to 4 and 1 to 3
    train, test: generated problems of each split
    seed: which of them are drawn
    test_share: of a source without splits; None: a fifth
    prompt: `full`, with the functions in JSON | `compact`, with a line for each
    feedback: `diagnostic` says what is wrong and where, `bit` only that something is
    reward: `sparse`: 1 for all calls and no other | `dense`: the share of cases
    """

    noun = "list of calls"

    def __init__(
        self,
        source: str = "generated",
        offered: int = MOST_OFFERED,
        calls: int = MOST_WANTED,
        train: int = 2000,
        test: int = 500,
        seed: int = 0,
        test_share: float | None = None,
        prompt: PromptKind = "full",
        feedback: Feedback = "diagnostic",
        reward: Reward = "sparse",
    ) -> None:
        choice("prompt", prompt, get_args(PromptKind))
        choice("feedback", feedback, get_args(Feedback))
        choice("reward", reward, get_args(Reward))
        whole("offered", offered, 1, MOST_OFFERED)
        whole("calls", calls, 1, MOST_WANTED)
        whole("train", train, 1, 100_000)
        whole("test", test, 1, 100_000)
        whole("seed", seed, 0, 10**6)
        self.rows = None if source == "generated" else Rows(source, test_share)
        self.source, self.offered, self.calls, self.seed = source, offered, calls, seed
        self.sizes: dict[Split, int] = {"train": train, "test": test}
        self.prompt_kind, self.feedback, self.reward = prompt, feedback, reward

    def problems(self, split: Split) -> list[Problem]:
        """The problems of one split; `cases` is the item, once for each call that is wanted."""
        return distinct(self._placed(split))

    def _placed(self, split: Split) -> Iterator[tuple[str, Problem]]:
        """(place, problem), one after another."""
        if self.rows:
            yield from ((place, self._problem(name, item, place)) for place, name, item in self.rows(split))
        else:
            drawn = islice(items(split, self.offered, self.calls, self.seed), self.sizes[split])
            for number, item in enumerate(drawn):
                yield f"{split} {number}", self._problem(f"calls-{split}-{number}", item, f"{split} {number}")

    def _problem(self, name: str, item: Item, place: str) -> Problem:
        n_calls = len(item.calls)
        family = f"{n_calls} call{'s' if n_calls > 1 else ''}"
        if self.prompt_kind == "full":
            statement = _FULL.format(tools="\n".join(map(_written, item.tools)), query=item.query)
        else:
            lines = [each.signature() for each in declared(item.tools, place).values()]
            statement = _COMPACT.format(tools="\n".join(lines), query=item.query)
        return Problem(name, statement, family, [item] * n_calls, _written(item.calls))

    def prompt(self, problem: Problem) -> Messages:
        """One message: the functions, the form of an answer, and the request."""
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Judges one response, whatever it is, in bounded time."""
        item, text = problem.cases[0], answer(response)
        cut = "The response was cut off at its maximum length; be briefer."
        if not text:
            asked = "No answer was found: reply with a JSON list of calls."
            kind = "truncated" if truncated else "no_answer"
            return self._verdict(item, 0, [cut if truncated else asked], None, kind)
        try:
            made = given(text)
        except Malformed as mistake:
            reason, error = (cut, "truncated") if truncated else (f"The answer cannot be read. {mistake}", mistake.kind)
            return self._verdict(item, 0, [reason], text, error)
        return self._verdict(item, *grade(made, wanted(item), declared(item.tools, problem.id)), text)

    def self_test(self) -> None:
        """Raises UserError unless wanted calls pass in any order, and neither fewer, nor more, nor others."""
        for _, problem in [*islice(self._placed("train"), 5), *islice(self._placed("test"), 5)]:
            right = [*problem.cases[0].calls]
            name = right[0]["name"]
            for calls in (right, right[::-1]):
                if not self.verify(problem, f"<think>[]</think>```json\n{json.dumps(calls)}\n```").passed:
                    raise UserError(f"the judge of function_calling fails {calls!r:.200}, which is wanted")
            for wrong in (
                *("", "[]", problem.statement, json.dumps(right)[:-1], f"{problem.privileged} {problem.privileged}"),
                *(json.dumps(calls) for calls in (right[1:], [*right, right[0]], [{"name": name}, *right[1:]])),
                json.dumps([{"name": name, "arguments": {**right[0]["arguments"], "": 0}}, *right[1:]]),
            ):
                if self.verify(problem, wrong).passed:
                    raise UserError(f"the judge of function_calling passes {wrong!r:.200}, which is not wanted")

    def _verdict(
        self, item: Item, passed: int, wrong: list[str], answer: str | None, error: str | None = None
    ) -> Verdict:
        total = len(item.calls)
        feedback = "The answer is wrong." if wrong and self.feedback == "bit" else "\n".join(wrong)
        reward = passed / total if self.reward == "dense" else float(not wrong)
        return Verdict(reward, not wrong, passed, total, feedback, answer and answer[:MAX_CHARS], error)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
