"""The Manufactoria task: its options, and where its problems come from."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from resd.envs.manufactoria.families import RULES, sets
from resd.envs.manufactoria.feedback import FeedbackKind
from resd.envs.manufactoria.goal import FAMILIES
from resd.envs.manufactoria.grade import RewardKind, grade
from resd.envs.manufactoria.problems import rule_of, solution, split_problems
from resd.envs.manufactoria.prompt import PromptKind, ask
from resd.envs.manufactoria.rows import read_file, read_hub
from resd.envs.manufactoria.strict import grade_strictly
from resd.envs.options import choice
from resd.envs.rows import check_source
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

OTHERS = (*sets.SETS, *(rule.family for rule in RULES if rule.family not in sets.SETS))
Evaluator = Literal["suite", "strict"]


class Manufactoria:
    """Implements `resd.task.Task`. Raises UserError for a value of an option that does not exist.

    source: `generated` (drawn here), `hf` (as published), or a path: a folder with `train.jsonl` and `test.jsonl`, or
        one JSONL file that serves both splits; `rows` describes the columns
    family: `has`, another published set (`families.sets`), one family of either, or `all`
    difficulty: one tier of what `family` names (basic, easy, medium, hard); null for those that are published
    evaluator: `suite` runs a problem's test cases, `strict` compares with what it states on thousands of tapes
    seed: draws the test cases of `generated`; which problems are in which split does not depend on it
    """

    noun = "program"

    def __init__(
        self,
        source: str = "generated",
        family: str = "has",
        prompt: PromptKind = "full",
        feedback: FeedbackKind = "full",
        evaluator: Evaluator = "suite",
        reward: RewardKind = "sparse",
        seed: int = 0,
        difficulty: str | None = None,
    ) -> None:
        choice("family", family, ("has", "all", *FAMILIES, *OTHERS))
        choice("prompt", prompt, get_args(PromptKind))
        choice("feedback", feedback, get_args(FeedbackKind))
        choice("evaluator", evaluator, get_args(Evaluator))
        choice("reward", reward, get_args(RewardKind))
        if difficulty is not None:
            choice("difficulty", difficulty, sets.TIERS)
            if source != "generated" or family in ("has", "all", *FAMILIES):
                raise UserError(f"difficulty={difficulty} needs source=generated and one of family={', '.join(OTHERS)}")
        self.source = check_source(source, "generated", "hf")
        self.family, self.prompt_kind, self.feedback = family, prompt, feedback
        self.evaluator, self.reward, self.seed, self.difficulty = evaluator, reward, seed, difficulty

    def problems(self, split: Split) -> list[Problem]:
        """The problems of one split, at least one. Raises UserError for data that cannot be used."""
        has = self.family in ("has", *FAMILIES)
        if self.source == "generated":
            found = split_problems(split, self.seed) if has or self.family == "all" else []
            found += [] if has else sets.split_problems(self.family, split, self.difficulty, self.seed)
        elif self.source == "hf":
            found = read_hub(split, ["has"] if has else sets.published(self.family))
        else:
            found = read_file(Path(self.source), split)
        families = FAMILIES if self.family == "has" else sets.families(self.family)
        chosen = [problem for problem in found if problem.family in families or self.family == "all"]
        if not chosen:
            held = ", ".join(sorted({problem.family for problem in found})) or "nothing"
            raise UserError(f"source={self.source!r} has no {split} problem of family={self.family!r}: it holds {held}")
        if self.evaluator == "strict":
            for problem in chosen:
                rule_of(problem)
        return [replace(problem, privileged=_solved(problem.statement)) for problem in chosen]

    def prompt(self, problem: Problem) -> Messages:
        """One user message that ends with the criteria."""
        return ask(problem, self.prompt_kind)

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Grades one response: about 0.1 ms with a suite, 30 ms for a correct program with `strict`."""
        if self.evaluator == "strict":
            rule = rule_of(problem)
            return grade_strictly(response, rule, truncated, reward=self.reward, feedback=self.feedback)
        return grade(response, problem.cases, truncated, reward=self.reward, feedback=self.feedback)

    def self_test(self) -> None:
        """Raises UserError unless a right program passes and one that accepts no tape does not."""
        problem = self.problems("test")[0] if self.source == "generated" else split_problems("test")[0]
        programs = {solution(problem): True, "START start:\n    NEXT NONE\n\nEND end": False}
        for program, right in programs.items():
            if self.verify(problem, f"```manufactoria\n{program}\n```").passed != right:
                raise UserError(f"the judge of manufactoria {'fails' if right else 'passes'} this program: {program!r}")


@cache
def _solved(statement: str) -> str:
    """A response that is right, for teachers; none where what is stated cannot be read."""
    try:
        return f"```manufactoria\n{solution(Problem('', statement))}\n```"
    except UserError:
        return ""
