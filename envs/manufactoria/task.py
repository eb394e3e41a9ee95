"""The Manufactoria task: its options, and where its problems come from."""

from pathlib import Path
from typing import Literal, get_args

from envs.manufactoria.feedback import FeedbackKind
from envs.manufactoria.goal import FAMILIES
from envs.manufactoria.grade import RewardKind, grade
from envs.manufactoria.problems import goal_of, split_problems
from envs.manufactoria.prompt import PromptKind, ask
from envs.manufactoria.rows import read_file, read_hub
from envs.manufactoria.strict import grade_strictly
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

Family = Literal["has", "all", "contains_count", "contains_ordered", "contains_substring"]
Evaluator = Literal["suite", "strict"]


class Manufactoria:
    """Implements `resd.task.Task`. Raises UserError for a value of an option that does not exist.

    source: `generated` (the closed set of 874 problems, drawn here), `hf` (the same as published), or a path: a folder
        with `train.jsonl` and `test.jsonl`, or one JSONL file that serves both splits; `rows` describes the columns
    family: `has` (its three families), one of them, or `all` that a file holds
    evaluator: `suite` runs a problem's test cases, `strict` compares with its predicate on some 22,000 tapes
    seed: draws the test cases of `generated`; which problems are in which split does not depend on it
    """

    noun = "program"

    def __init__(
        self,
        source: str = "generated",
        family: Family = "has",
        prompt: PromptKind = "full",
        feedback: FeedbackKind = "full",
        evaluator: Evaluator = "suite",
        reward: RewardKind = "sparse",
        seed: int = 0,
    ) -> None:
        _check("family", family, get_args(Family))
        _check("prompt", prompt, get_args(PromptKind))
        _check("feedback", feedback, get_args(FeedbackKind))
        _check("evaluator", evaluator, get_args(Evaluator))
        _check("reward", reward, get_args(RewardKind))
        if source not in ("generated", "hf") and not Path(source).exists():
            raise UserError(f"source={source!r} is neither a file nor a folder: write generated, hf, or such a path")
        self.source, self.family, self.prompt_kind, self.feedback = source, family, prompt, feedback
        self.evaluator, self.reward, self.seed = evaluator, reward, seed

    def problems(self, split: Split) -> list[Problem]:
        """The problems of one split, at least one. Raises UserError for data that cannot be used."""
        if self.source == "generated":
            found = split_problems(split, self.seed)
        else:
            found = read_hub(split) if self.source == "hf" else read_file(Path(self.source), split)
        families = FAMILIES if self.family == "has" else (self.family,)
        chosen = [problem for problem in found if problem.family in families or self.family == "all"]
        if not chosen:
            held = ", ".join(sorted({problem.family for problem in found})) or "nothing"
            raise UserError(f"source={self.source!r} has no {split} problem of family={self.family!r}: it holds {held}")
        if self.evaluator == "strict":
            for problem in chosen:
                goal_of(problem)
        return chosen

    def prompt(self, problem: Problem) -> Messages:
        """One user message that ends with the criteria."""
        return ask(problem, self.prompt_kind)

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Grades one response: about 0.1 ms with a suite, 30 ms for a correct program with `strict`."""
        if self.evaluator == "strict":
            goal = goal_of(problem)
            return grade_strictly(response, goal, truncated, reward=self.reward, feedback=self.feedback)
        return grade(response, problem.cases, truncated, reward=self.reward, feedback=self.feedback)


def _check(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{option}={value!r} is unknown: write one of {', '.join(known)}")
