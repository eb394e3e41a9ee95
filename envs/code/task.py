"""The task of small Python functions: its options, how one is asked for, and how a program is judged.

    python -m resd.envs.play task=code

A problem is a function of the bank (`lists`, `integers`, `strings`): a statement, the first line of its definition, and
calls of which some are shown with their results. The answer is the last code block of the response, which may hold as
many functions as it likes and is run whole. A case is a call; the expected values are those of our reference.

Not covered: how fast or how well a program is written, beyond the time for a call; what it does to its arguments.
"""

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Literal, get_args

from resd.envs import sandbox
from resd.envs.code import integers, lists, strings
from resd.envs.code.family import Function
from resd.envs.code.feedback import WRONG, FeedbackKind, failed, shown
from resd.envs.code.grade import MAX_CHARS, Case, extract, run
from resd.envs.options import choice, whole
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

PromptKind = Literal["full", "compact"]
Reward = Literal["sparse", "dense"]
HeldOut = Literal["test", "validation"]

BANK = {"lists": lists.family, "integers": integers.family, "strings": strings.family}
_TIME = 20.0  # seconds of a call in the self-test, in which nothing hangs

_FULL = """\
Write a Python function.

{statement}

Some calls, and what they return:
{examples}

Use nothing but Python's standard library. Think first. Then give the whole program in one block:

```python
{signature}
    ...
```"""
_COMPACT = "{statement}\n{examples}\n```python\n{signature}"


class Code:
    """Implements `resd.task.Task`. Raises UserError for an option that cannot be used.

    about: `lists`, `integers` or `strings`, or `all` of them
    examples: calls that the statement shows, 1 to 5
    hidden: calls that it does not, 4 to 10
    held_out: which functions the split for testing has: those for `test`, or those for `validation`, for choosing
        settings; neither has a twin in training
    seed: which arguments are drawn; the functions are always the same
    feedback: `diagnostic`, `error` or `bit` (`feedback`)
    reward: `sparse`: 1 if all calls are right | `dense`: the share of calls
    seconds: what one call may take
    allow_unsafe: run programs even where the machine has nothing to hold them
    """

    noun = "program"

    def __init__(
        self,
        about: str = "all",
        examples: int = 3,
        hidden: int = 10,
        held_out: HeldOut = "test",
        seed: int = 0,
        prompt: PromptKind = "full",
        feedback: FeedbackKind = "diagnostic",
        reward: Reward = "sparse",
        seconds: float = 1.0,
        allow_unsafe: bool = False,
    ) -> None:
        choice("about", about, ("all", *BANK))
        choice("held_out", held_out, get_args(HeldOut))
        choice("prompt", prompt, get_args(PromptKind))
        choice("feedback", feedback, get_args(FeedbackKind))
        choice("reward", reward, get_args(Reward))
        whole("examples", examples, 1, 5)
        whole("hidden", hidden, 4, 10)
        whole("seed", seed, 0, 10**6)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 60:
            raise UserError(f"seconds={seconds!r:.40} is no time for a call: write a number above 0, at most 60")
        self.about, self.examples, self.hidden, self.held_out = about, examples, hidden, held_out
        self.seed, self.prompt_kind, self.feedback, self.reward = seed, prompt, feedback, reward
        self.seconds, self.allow_unsafe = seconds, allow_unsafe

    def problems(self, split: Split) -> list[Problem]:
        """The functions of one split, kinds in turn; `cases` are the calls, those that are shown in front."""
        found = [self._problem(split, kind, function) for kind, function in self._functions(split)]
        return [found[number] for number in _spread(len(found))]

    def _functions(self, split: Split) -> Iterator[tuple[str, Function]]:
        part = self.held_out if split == "test" else "train"
        for kind, families in BANK.items():
            if self.about in ("all", kind):
                yield from ((kind, each) for family in families if family.part == part for each in family.functions)

    def _problem(self, split: Split, kind: str, function: Function) -> Problem:
        random = Random(f"code/{self.seed}/{function.label}")
        drawn = function.tests(self.examples + self.hidden, self.examples, random)
        cases = [Case(each, function(*each), number < self.examples) for number, each in enumerate(drawn)]
        return Problem(
            f"code-{split}-{function.label}",
            f"{function.signature}\n{function.statement}",
            kind,
            cases,
            f"```python\n{function.source}\n```",
        )

    def prompt(self, problem: Problem) -> Messages:
        """What the function returns, with its examples and the first line of its definition."""
        signature, _, statement = problem.statement.partition("\n")
        calls = [f"{_name(problem)}({', '.join(map(shown, case.arguments))})" for case in problem.cases if case.shown]
        values = [shown(case.expected) for case in problem.cases if case.shown]
        examples = "\n".join(f"{call} == {value}" for call, value in zip(calls, values, strict=True))
        text = _FULL if self.prompt_kind == "full" else _COMPACT
        return [
            {
                "role": "user",
                "content": text.format(statement=statement, examples=examples, signature=signature),
            }
        ]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Judges one response: some milliseconds, and for a program that hangs little more than `seconds`."""
        return self._judge(problem, response, truncated, self.seconds)

    def _judge(self, problem: Problem, response: str, truncated: bool, seconds: float) -> Verdict:
        program, total = extract(response), len(problem.cases)
        if not program or not program.strip():
            cut = "The response was cut off at its maximum length; be briefer."
            asked = "No program was found: put it between a line ```python and a line ```."
            told = WRONG if self.feedback == "bit" else cut if truncated else asked
            return Verdict(0.0, False, 0, total, told, None, "truncated" if truncated else "no_answer", _scores([], []))
        if len(program) > MAX_CHARS:
            told = WRONG if self.feedback == "bit" else f"The program has more than {MAX_CHARS} characters."
            return Verdict(0.0, False, 0, total, told, program[:MAX_CHARS], "too_long", _scores([], []))
        results = run(program, _name(problem), problem.cases, seconds, self.allow_unsafe)
        right = [result.passed for result in results]
        scores = _scores(
            [result.passed for result in results if result.case.shown],
            [result.passed for result in results if not result.case.shown],
        )
        if all(right):
            return Verdict(1.0, True, total, total, answer=program, scores=scores)
        reward = sum(right) / total if self.reward == "dense" else 0.0
        error = next((result.outcome.error for result in results if result.outcome.error), None)
        told = failed(_name(problem), results, self.feedback)
        return Verdict(reward, False, sum(right), total, told, program, error, scores)

    def self_test(self) -> str:
        """Says which layers hold programs. Raises UserError if a right answer fails here, or a wrong one passes."""
        for split in get_args(Split):
            for kind, function in islice(self._functions(split), 3):
                problem = self._problem(split, kind, function)
                for name, program, passed in known_answers(problem):
                    said = self._judge(problem, f"```python\n{program}\n```", False, max(self.seconds, _TIME))
                    if said.passed != passed and not (self.allow_unsafe and name == "reads a file"):
                        says = "passes" if said.passed else f"fails: {said.feedback}"
                        raise UserError(
                            f"the judge of code does not work: for {problem.id} a program that {name} {says}"
                        )
        return f"programs are held by {', '.join(sandbox.layers())}"


def known_answers(problem: Problem) -> list[tuple[str, str, bool]]:
    """Programs with a known verdict: what each does, its text, and whether it is right."""
    right, name = problem.privileged.removeprefix("```python\n").removesuffix("\n```"), _name(problem)
    known = {repr(case.arguments): case.expected for case in problem.cases if case.shown}
    equal = "class Equal:\n    def __eq__(self, other): return True\n    __ne__ = __bool__ = lambda *_: False"
    return [
        ("is ours", right, True),
        ("uses several functions", f"{right}\nkept = {name}\ndef {name}(*given):\n    return kept(*given)", True),
        ("prints", f"{right}\nprint(1)", True),
        ("gives nothing", f"def {name}(*given): pass", False),
        ("knows the examples", f"def {name}(*given): return {known}.get(repr(given))", False),
        ("is equal to everything", f"{equal}\ndef {name}(*given): return Equal()", False),
        ("ends its process", f"import os\ndef {name}(*given): os._exit(0)", False),
        ("reads a file", f"{right}\nopen('/etc/passwd').read()", False),
        ("has another name", right.replace(f"def {name}(", "def other("), False),
        ("is cut off", right[: len(right) // 2].rstrip() + "(", False),
    ]


def _name(problem: Problem) -> str:
    """The function's, out of the first line of its definition."""
    return problem.statement.partition("(")[0].removeprefix("def ")


def _scores(shown: list[bool], hidden: list[bool]) -> dict[str, float]:
    """The share of calls that are right, among those that the statement shows and among the others."""
    return {name: sum(each) / max(1, len(each)) for name, each in (("examples", shown), ("hidden", hidden))}


def _spread(count: int) -> list[int]:
    """The numbers below `count` in an order that mixes families and kinds, the same for ever."""
    order = list(range(count))
    Random(count).shuffle(order)
    return order
