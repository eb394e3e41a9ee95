"""The task of invented mathematics: its options, how a question is asked, and what is said of a wrong answer.

    python -m resd.envs.play task=invented_math

The answer stands between the last pair of answer tags outside thinking: a number, a set of numbers, or an expression in
one letter, however it is written (`expression`). Three cases make a verdict, each of which wants those before it: the
answer can be read, it is one value or a set as asked, and it is right.

Not covered: answers that are no rational functions or powers of small numbers, such as roots; proofs.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from random import Random
from typing import Literal, get_args

from resd.envs.answers import tagged
from resd.envs.invented_math.draw import FAMILIES, Form, Item
from resd.envs.invented_math.expression import MAX_CHARS, Unreadable, Value, read
from resd.envs.options import choice, whole
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

PromptKind = Literal["full", "compact"]
Feedback = Literal["diagnostic", "kind", "bit"]
Reward = Literal["sparse", "dense"]
HeldOut = Literal["test", "validation"]

CASES = 3  # readable, of the right form, and right
_ELEMENTS = 20  # of a set
_MISSED = 20_000  # draws in a row that give no new problem, after which none is expected
_PLACES = range(1, 9)  # where two expressions are compared to tell one that differs
_SHOWN = 40  # characters of a value
_WRONG = "The answer is wrong."
_FORMS = {
    "number": "an integer or a fraction such as -7/3",
    "set": "all solutions in braces, integers or fractions, such as {{-1, 5/2}}, or {{}} if there is none",
    "expression": "an expression in {letter} such as 3*{letter}^2 - {letter}/2 + 1 or 5*2^{letter} - 1, in any form",
}

_FULL = """\
{statement}

Think first. Then give the answer alone between <answer> and </answer>: {form}. Write it with numbers, + - * / ^ and \
parentheses."""
_COMPACT = "{statement}\n<answer>{form}</answer>"


class InventedMath:
    """Implements `resd.task.Task`. Raises UserError for an option that cannot be used.

    family: `value`, `equation`, `expression`, `sequence` or `chain` (`draw`), or `all` of them in turn
    depth: operations of a value, 2 to this, at most 5
    held_out: whose rules the split for testing has: those for `test`, or those for `validation`, for choosing settings;
        neither occurs in training
    train, test: problems of each split
    seed: which are drawn; no seed moves a rule to another part
    feedback: `diagnostic` says what is wrong, `kind` whether it is the form or the value, `bit` only that something is
    reward: `sparse`: 1 for the right answer | `dense`: the share of cases
    """

    noun = "answer"

    def __init__(
        self,
        family: str = "all",
        depth: int = 3,
        held_out: HeldOut = "test",
        train: int = 1000,
        test: int = 200,
        seed: int = 0,
        prompt: PromptKind = "full",
        feedback: Feedback = "diagnostic",
        reward: Reward = "sparse",
    ) -> None:
        choice("family", family, ("all", *FAMILIES))
        choice("held_out", held_out, get_args(HeldOut))
        choice("prompt", prompt, get_args(PromptKind))
        choice("feedback", feedback, get_args(Feedback))
        choice("reward", reward, get_args(Reward))
        whole("depth", depth, 2, 5)
        whole("train", train, 1, 100_000)
        whole("test", test, 1, 100_000)
        whole("seed", seed, 0, 10**6)
        self.families = list(FAMILIES) if family == "all" else [family]
        self.depth, self.held_out, self.seed = depth, held_out, seed
        self.wanted: dict[Split, int] = {"train": train, "test": test}
        self.prompt_kind, self.feedback, self.reward = prompt, feedback, reward

    def problems(self, split: Split) -> list[Problem]:
        """As many as wanted, no two alike. Raises UserError where there are not so many."""
        return list(self._drawn(split))

    def _drawn(self, split: Split) -> Iterator[Problem]:
        part = self.held_out if split == "test" else "train"
        random, wanted, missed = Random(f"invented_math/{self.seed}/{part}"), self.wanted[split], 0
        found: set[str] = set()
        while len(found) < wanted:
            family = self.families[len(found) % len(self.families)]
            item = FAMILIES[family](random, self.depth)
            statement = f"{item.rule.words}\n\n{item.question}" if item else ""
            if item and item.rule.part == part and statement not in found:
                yield Problem(
                    f"math-{split}-{len(found)}", statement, family, [item] * CASES, f"<answer>{_told(item)}</answer>"
                )
                found.add(statement)
                missed = 0
            elif (missed := missed + 1) == _MISSED:
                raise UserError(
                    f"{split}={wanted} problems cannot be drawn: {len(found)} were found of family={family}; "
                    f"write {split}={len(found)}, or another family"
                )

    def prompt(self, problem: Problem) -> Messages:
        """The rule and the question, with the form of an answer."""
        item = problem.cases[0]
        text = _FULL if self.prompt_kind == "full" else _COMPACT
        form = _FORMS[item.form] if self.prompt_kind == "full" else _short_form(item)
        asked = text.format(statement=problem.statement, form=form.format(letter=item.letter))
        return [{"role": "user", "content": asked}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Judges one response, whatever it is, in bounded time."""
        item, answer = problem.cases[0], tagged(response)
        if answer is None:
            cut = "The response was cut off at its maximum length; be briefer."
            asked = "No answer was found: give it between <answer> and </answer>."
            kind = "truncated" if truncated else "no_answer"
            return self._failed(0, cut if truncated else asked, cut if truncated else asked, None, kind)
        try:
            values, is_set = parsed(answer, item.letter)
        except Unreadable as mistake:
            return self._failed(0, "The answer cannot be read.", str(mistake), answer, mistake.kind)
        if misshapen := _misshapen(item.form, is_set):
            return self._failed(1, misshapen, misshapen, answer, "form")
        wanted = [read(each, item.letter) for each in item.answers]
        told = _wrong_set(values, wanted) if item.form == "set" else _wrong_value(values[0], wanted[0], item)
        if told:
            kind = "The answer has the right form, and a wrong value."
            return self._failed(2, kind, told, answer, None)
        return Verdict(1.0, True, CASES, CASES, answer=answer)

    def self_test(self) -> None:
        """Raises UserError unless right answers pass however they are written, and neither near nor unreadable ones."""
        for problem in [*islice(self._drawn("train"), 10), *islice(self._drawn("test"), 10)]:
            item = problem.cases[0]
            told, (first, *rest) = _told(item), item.answers or ("0",)
            others = f"{{{', '.join([*rest, f'({first}) * 6 / 6'])}}}" if item.answers else "{}"
            right = [problem.privileged, f"<answer>0</answer><answer>{told}</answer>"]
            right.append(f"<answer>{others if item.form == 'set' else f'1 + ({first}) - 1'}</answer>")
            wrong = [
                "",
                told,
                "<answer></answer>",
                f"<answer>{told} =</answer>",
                f"<think>{problem.privileged}</think>",
            ]
            near = "{" + ", ".join([*item.answers, "20001"]) + "}" if item.form == "set" else f"{first} + 1/999"
            wrong += [f"<answer>{near}</answer>", f"<answer>{told} / 0</answer>", f"<answer>eval({told})</answer>"]
            for response in right:
                if not self.verify(problem, response).passed:
                    raise UserError(f"the judge of invented_math fails {response!r:.80}, which is right")
            for response in wrong:
                if self.verify(problem, response).passed:
                    raise UserError(f"the judge of invented_math passes {response!r:.80} for {problem.statement!r}")

    def _failed(self, cases: int, kind: str, diagnostic: str, answer: str | None, error: str | None) -> Verdict:
        told = {"bit": _WRONG, "kind": kind, "diagnostic": diagnostic}[self.feedback]
        reward = cases / CASES if self.reward == "dense" else 0.0
        return Verdict(reward, False, cases, CASES, told, answer and answer[:MAX_CHARS], error)


def parsed(answer: str, letter: str) -> tuple[list[Value], bool]:
    """The values of an answer, and whether it is a set of them. Raises Unreadable."""
    if len(answer) > MAX_CHARS:
        raise Unreadable("too_long", f"The answer has more than {MAX_CHARS} characters.")
    braces = answer.startswith("{") and answer.endswith("}")
    inside = answer[1:-1] if braces else answer
    parts = inside.split(",") if inside.strip() or not braces else []
    if len(parts) > _ELEMENTS:
        raise Unreadable("too_large", f"The answer has more than {_ELEMENTS} elements.")
    return [read(part, letter) for part in parts], braces or len(parts) > 1


def _misshapen(form: Form, is_set: bool) -> str:
    """What is wrong with the form of an answer, if anything. One number is the set of it."""
    if is_set and form != "set":
        return f"The answer is a set, and one {form} is asked for."
    return ""


def _wrong_set(values: list[Value], wanted: list[Value]) -> str:
    given, right = ({value.number for value in each} for each in (values, wanted))
    told = [f"{_short(number)} is no solution." for number in sorted(given - right, key=_order)]
    if missing := len(right - given):
        told.append(f"{missing} solution{'s are' if missing > 1 else ' is'} missing.")
    return "\n".join(told)


def _wrong_value(value: Value, wanted: Value, item: Item) -> str:
    if value.equals(wanted):
        return ""
    if item.form == "number":
        return f"The value is not {_short(value.number)}. {item.hint}"
    for place in _PLACES:
        if (found := value.at(place)) != (right := wanted.at(place)):
            told = "it has no value" if found is None else f"it is {_short(found)}"
            return f"For {item.letter} = {place} {told} instead of {right}."
    return f"It is not the same for every {item.letter}."


def _told(item: Item) -> str:
    """The right answer as a text."""
    return f"{{{', '.join(item.answers)}}}" if item.form == "set" else item.answers[0]


def _short_form(item: Item) -> str:
    return {"number": "the number", "set": "{{the solutions}}", "expression": "the expression"}[item.form]


def _order(number: Fraction | None) -> Fraction:
    return number or Fraction(0)


def _short(number: Fraction | None) -> str:
    text = str(number)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
