"""The Countdown task: its options, how an answer is asked for, and what is said of a wrong one.

    python -m resd.envs.play task=countdown

The answer is one expression, between the last pair of answer tags outside thinking. Three cases make a verdict, each of
which wants those before it: the expression can be read, the numbers and operators in it are those that may be used, and
its value is the target. Hence `per_case` says how far answers come, and a target that is simply written down gets one
of three.

Not covered: answers that use a number with a sign in front of it, which another expression always can say; a target
that no expression reaches.
"""

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from random import Random
from typing import Literal, get_args

from resd.envs.answers import tagged
from resd.envs.countdown import propose
from resd.envs.countdown.draw import HIGHEST, Instance, Sizes
from resd.envs.countdown.expression import (
    MAX_CHARS,
    DividesByZero,
    Tree,
    Unreadable,
    evaluate,
    leaves,
    normal,
    parse,
    signs,
)
from resd.envs.options import choice, whole
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

PromptKind = Literal["full", "compact"]
Feedback = Literal["diagnostic", "bit"]
Reward = Literal["sparse", "dense"]

CASES = 3  # readable, from the numbers, and equal to the target
OPERATORS = "+-*/"
MOST = 8  # numbers of an instance
_MISSED = 20_000  # draws in a row that give no new problem, after which none is expected
_SHOWN = 40  # characters of a value

_FULL = """\
{statement}

Write one arithmetic expression whose value is {target}. Use {which} of these numbers {times}, and no other number. \
The operators are {operators}; parentheses are allowed, and a division need not come out even. Do not put a sign in \
front of a number, and do not write an equals sign.

Think first. Then give the expression alone between <answer> and </answer>."""
_COMPACT = "{statement}\n<answer>the expression</answer>"


class Countdown:
    """Implements `resd.task.Task` and `Proposing`. Raises UserError for an option that cannot be used.

    fewest, most: numbers of an instance, 2 to 8; sizes take turns
    largest: a number is from 1 to this
    low, high: of the target
    operators: those of an instance and of an answer, some of `+-*/`
    use_all: whether an answer must use every number; otherwise it uses each at most once
    train, test: problems of each split
    seed: which instances are drawn; no seed moves one to the other split
    feedback: `diagnostic` says what is wrong, `bit` only that something is
    reward: `sparse`: 1 for the target | `dense`: the share of cases
    """

    noun = "expression"

    def __init__(
        self,
        fewest: int = 3,
        most: int = 4,
        largest: int = 99,
        low: int = 10,
        high: int = 99,
        operators: str = OPERATORS,
        use_all: bool = True,
        train: int = 2000,
        test: int = 500,
        seed: int = 0,
        prompt: PromptKind = "full",
        feedback: Feedback = "diagnostic",
        reward: Reward = "sparse",
    ) -> None:
        choice("prompt", prompt, get_args(PromptKind))
        choice("feedback", feedback, get_args(Feedback))
        choice("reward", reward, get_args(Reward))
        whole("fewest", fewest, 2, MOST)
        whole("most", most, fewest, MOST)
        whole("largest", largest, 1, 999)
        whole("low", low, 1, HIGHEST)
        whole("high", high, low, HIGHEST)
        whole("train", train, 1, 100_000)
        whole("test", test, 1, 100_000)
        whole("seed", seed, 0, 10**6)
        if not isinstance(operators, str) or not operators or set(operators) - set(OPERATORS):
            raise UserError(f"operators={operators!r:.40} has no or other signs: write some of {OPERATORS}")
        if not isinstance(use_all, bool):
            raise UserError(f"use_all={use_all!r:.40} is no yes or no: write true or false")
        self.operators = "".join(sign for sign in OPERATORS if sign in operators)
        self.sizes = Sizes(largest, low, high, self.operators)
        self.counts = range(fewest, most + 1)
        self.levels = len(self.counts)
        self.wanted: dict[Split, int] = {"train": train, "test": test}
        self.use_all, self.seed, self.prompt_kind, self.feedback, self.reward = use_all, seed, prompt, feedback, reward

    def problems(self, split: Split) -> list[Problem]:
        """As many as wanted, no two alike. Raises UserError where the sizes do not give so many."""
        return list(self._drawn(split))

    def _drawn(self, split: Split) -> Iterator[Problem]:
        random, wanted, missed = Random(f"countdown/{self.seed}/{split}"), self.wanted[split], 0
        found: set[tuple[int, ...]] = set()
        while len(found) < wanted:
            drawn = self.sizes.draw(self.counts[len(found) % len(self.counts)], random)
            if drawn is not None and drawn.split == split and drawn.key not in found:
                yield self._problem(f"countdown-{split}-{len(found)}", drawn)
                found.add(drawn.key)
                missed = 0
            elif (missed := missed + 1) == _MISSED:
                fewer = f"write {split}={len(found)}, or widen them" if found else "widen them"
                raise UserError(
                    f"{split}={wanted} problems cannot be drawn: {len(found)} were found of numbers up to "
                    f"{self.sizes.largest} and targets from {self.sizes.low} to {self.sizes.high}; {fewer}"
                )

    def _problem(self, id: str, instance: Instance) -> Problem:
        shown = ", ".join(map(str, instance.numbers))
        statement = f"Make {instance.target} from the numbers {shown}."
        told = f"<answer>{instance.expression}</answer>" if instance.expression else ""
        family = f"{len(instance.numbers)} numbers"
        return Problem(id, statement, family, [instance] * CASES, told)

    def prompt(self, problem: Problem) -> Messages:
        """The numbers and the target, with the rules unless it is `compact`."""
        text = _FULL if self.prompt_kind == "full" else _COMPACT
        which, times = ("every one", "exactly once") if self.use_all else ("any", "at most once each")
        asked = text.format(
            statement=problem.statement,
            target=problem.cases[0].target,
            which=which,
            times=times,
            operators=" ".join(self.operators),
        )
        return [{"role": "user", "content": asked}]

    def propose_prompt(self, seed: int, level: int) -> Messages:
        """Asks for a problem; a level is one more number."""
        compact = self.prompt_kind == "compact"
        return [{"role": "user", "content": propose.asked(self.sizes, self.counts[level], self.use_all, compact, seed)}]

    def proposed(self, response: str, id: str) -> Problem:
        """See `Proposing`. It need not have a solution, which is for the solvers to find out."""
        return self._problem(id, propose.read(response, self.sizes, self.counts))

    def held_out(self, problem: Problem) -> bool:
        """Whether its numbers and target are on the side of the tests."""
        return bool(problem.cases[0].split == "test")

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Judges one response, whatever it is, in bounded time."""
        answer = tagged(response)
        if answer is None:
            cut = "The response was cut off at its maximum length; be briefer."
            asked = "No answer was found: give the expression between <answer> and </answer>."
            return self._failed(0, [cut if truncated else asked], None, "truncated" if truncated else "no_answer", "")
        try:
            tree = parse(answer)
        except Unreadable as mistake:
            return self._failed(0, [str(mistake)], answer, mistake.kind, "")
        complaints, error = list(self._misused(tree, problem.cases[0])), None
        cases, target = CASES - 1 - bool(complaints), problem.cases[0].target
        try:
            value = evaluate(tree)
            if value != target:
                complaints.append(f"The value is {_short(value)} instead of {target}.")
        except DividesByZero as mistake:
            complaints.append(f"The expression divides by zero at offset {mistake.offset}.")
            error = "division_by_zero"
        if complaints:
            return self._failed(cases, complaints, answer, error, normal(tree))
        return Verdict(1.0, True, CASES, CASES, answer=answer, ballot=normal(tree))

    def self_test(self) -> None:
        """Raises UserError unless solutions pass, and neither the target itself, nor what cannot be read, nor less."""
        for problem in [*islice(self._drawn("train"), 5), *islice(self._drawn("test"), 5)]:
            instance = problem.cases[0]
            solution = instance.expression
            if not self.verify(problem, f"<think>{instance.target}</think>{problem.privileged}").passed:
                raise UserError(f"the judge of countdown fails {solution!r}, which is {instance.target}")
            for wrong in (
                *(
                    "",
                    solution,
                    f"<answer>{instance.target}</answer>",
                    f"<answer>{solution} = {instance.target}</answer>",
                ),
                *(f"<answer>{solution} + 1</answer>", f"<answer>({solution}) / 0</answer>"),
                *(f"<answer>{solution} + {n} - {n}</answer>" for n in instance.numbers[:1]),
            ):
                if self.verify(problem, wrong).passed:
                    raise UserError(f"the judge of countdown passes {wrong!r:.80} for {problem.statement!r}")

    def _failed(self, cases: int, complaints: list[str], answer: str | None, error: str | None, ballot: str) -> Verdict:
        feedback = "The answer is wrong." if self.feedback == "bit" else "\n".join(complaints)
        reward = cases / CASES if self.reward == "dense" else 0.0
        told = answer and answer[:MAX_CHARS]
        return Verdict(reward, False, cases, CASES, feedback, told, error, ballot=ballot)

    def _misused(self, tree: Tree, instance: Instance) -> Iterator[str]:
        """What an expression uses and must not, and the other way round."""
        used, given = Counter(leaves(tree)), Counter(instance.numbers)
        for number in sorted(used.keys() | given.keys()):
            times, right = used[number], given[number]
            if not right:
                yield f"{_short(Fraction(number))} is not one of the numbers."
            elif self.use_all and not times:
                yield f"{number} is not used."
            elif times > right or (self.use_all and times < right):
                yield f"{number} is used {_times(times)} instead of {_times(right)}."
        for sign in sorted(set(signs(tree)) - set(self.operators)):
            yield f"The operator {sign} is not allowed."


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _short(value: Fraction) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
