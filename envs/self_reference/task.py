"""The self-reference task: in how many ways can seven statements about themselves be true or false?

    python -m resd.envs.play task=self_reference

The answer is a whole number between the last pair of answer tags outside thinking. A guess that is always the same can
look like understanding, so the puzzles are drawn with answers 1 to 4 equally often, and the score `constant`, beside
the others in every evaluation, is what the commonest answer of the split would get on the same puzzles.

Not covered: other numbers of statements; which statements are true.
"""

from collections import Counter
from itertools import chain, zip_longest
from random import Random
from typing import Literal, get_args

from resd.envs.answers import tagged
from resd.envs.options import choice, whole
from resd.envs.self_reference.puzzle import STATEMENTS, Puzzle, every
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

PromptKind = Literal["full", "compact"]
Feedback = Literal["diagnostic", "gold", "bit"]
Answers = Literal["balanced", "all"]

BALANCED = range(1, 5)

_FULL = """\
Each of these seven statements is either true or false:

{statement}

A way to call each of them true or false is consistent if every statement that is called true holds and every one that \
is called false does not hold. How many consistent ways are there?

Think first. Then give the number alone between <answer> and </answer>."""
_COMPACT = "{statement}\nIn how many consistent ways can these be true or false?\n<answer>the number</answer>"


class SelfReference:
    """Implements `resd.task.Task`. Raises UserError for an option that cannot be used.

    answers: `balanced`: 1 to 4, equally often | `all`: every puzzle there is, 0 to 6 as often as they come
    train, test: most problems of each split; None: all
    seed: their order; no seed moves one to the other split
    feedback: `diagnostic` which statements hold for each number of true ones | `gold` the answer besides | `bit`
    """

    noun = "answer"

    def __init__(
        self,
        answers: Answers = "balanced",
        train: int | None = None,
        test: int | None = None,
        seed: int = 0,
        prompt: PromptKind = "full",
        feedback: Feedback = "diagnostic",
    ) -> None:
        choice("answers", answers, get_args(Answers))
        choice("prompt", prompt, get_args(PromptKind))
        choice("feedback", feedback, get_args(Feedback))
        for option, wanted in (("train", train), ("test", test)):
            if wanted is not None:
                whole(option, wanted, 1, 10_000)
        whole("seed", seed, 0, 10**6)
        self.prompt_kind, self.feedback = prompt, feedback
        limits: dict[Split, int | None] = {"train": train, "test": test}
        self.drawn = {split: self._draw(answers, split, seed)[:limit] for split, limit in limits.items()}
        self.commonest = {
            split: Counter(puzzle.ways for puzzle in drawn).most_common(1)[0][0] for split, drawn in self.drawn.items()
        }

    def problems(self, split: Split) -> list[Problem]:
        return [self._problem(puzzle, split) for puzzle in self.drawn[split]]

    def prompt(self, problem: Problem) -> Messages:
        """The statements and the question, with what consistent means unless it is `compact`."""
        text = _FULL if self.prompt_kind == "full" else _COMPACT
        return [{"role": "user", "content": text.format(statement=problem.statement)}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Judges one response, whatever it is."""
        puzzle: Puzzle = problem.cases[0]
        scores = {"constant": float(self.commonest[puzzle.split] == puzzle.ways)}
        answer = tagged(response)
        if answer is None or not (answer.isascii() and answer.isdigit() and len(answer) <= 3):
            cut = "The response was cut off at its maximum length; be briefer."
            asked = "Give one whole number between <answer> and </answer>."
            error = "parse" if answer is not None else "truncated" if truncated else "no_answer"
            said = cut if error == "truncated" else asked
            return Verdict(0.0, False, 0, 1, said, answer and answer[:40], error, scores)
        if int(answer) == puzzle.ways:
            return Verdict(1.0, True, 1, 1, answer=answer, scores=scores)
        return Verdict(0.0, False, 0, 1, self._told(puzzle, int(answer)), answer, scores=scores)

    def self_test(self) -> None:
        """Raises UserError unless the right number passes, and no other one and nothing else does."""
        for problem in chain(self.problems("train")[:20], self.problems("test")[:20]):
            right = problem.cases[0].ways
            if not self.verify(problem, f"<think>{right + 1}</think><answer> {right} </answer>").passed:
                raise UserError(f"the judge of self_reference fails {right} for {problem.id}")
            others = [number for number in range(STATEMENTS + 2) if number != right]
            for wrong in ("", str(right), f"<answer>{right}.0</answer>", *(f"<answer>{n}</answer>" for n in others)):
                if self.verify(problem, wrong).passed:
                    raise UserError(f"the judge of self_reference passes {wrong!r} for {problem.id}")

    def _draw(self, answers: Answers, split: Split, seed: int) -> list[Puzzle]:
        """Puzzles of a split in an order of their own; balanced ones take turns, so that each beginning is balanced."""
        puzzles = [puzzle for puzzle in every() if puzzle.split == split]
        Random(f"self_reference/{seed}/{split}").shuffle(puzzles)
        if answers == "all":
            return puzzles
        classes = [[puzzle for puzzle in puzzles if puzzle.ways == ways] for ways in BALANCED]
        fewest = min(map(len, classes))
        turns = zip_longest(*(puzzles[:fewest] for puzzles in classes))
        return [puzzle for turn in turns for puzzle in turn]

    def _problem(self, puzzle: Puzzle, split: Split) -> Problem:
        statement = "\n".join(f"{number}. {line}" for number, line in enumerate(puzzle.lines, start=1))
        told = f"{self._holding(puzzle)}\n<answer>{puzzle.ways}</answer>"
        return Problem(f"self-reference-{split}-{puzzle.name}", statement, f"{puzzle.ways} ways", [puzzle], told)

    def _told(self, puzzle: Puzzle, answer: int) -> str:
        if self.feedback == "bit":
            return "The answer is wrong."
        known = f"{answer} is wrong. {self._holding(puzzle)}"
        return f"{known}\nThe right answer is {puzzle.ways}." if self.feedback == "gold" else known

    def _holding(self, puzzle: Puzzle) -> str:
        """What holds for each number of true statements. Whether that many are, the reader has to count."""
        lines = ["What the statements say, if so many of them are true:"]
        for count in range(STATEMENTS + 1):
            holding = puzzle.holding(count)
            lines.append(f"{count}: {', '.join(map(str, holding)) if holding else 'none'} would hold")
        return "\n".join(lines)
