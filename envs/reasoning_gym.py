"""Reasoning Gym: about a hundred kinds of generated puzzles with verifiers, through the package `reasoning-gym`.

    python -m resd.train task=reasoning_gym task.options.datasets=[leg_counting,spell_backward]

A problem is an entry of one of the package's data sets, asked for with the answer between tags and judged by the data
set's own `score_answer`: 0 to 1, with partial credit in some; a response passes with 1. Entries of train and test have
seeds that never meet, and a question of the test split is left out of the training split, since small data sets repeat
themselves.

The package says how good an answer is, not why, so the feedback is poor: the answer and its score, and with
`feedback=gold` the right answer. Some of its verifiers evaluate as a formula what the model wrote: they run in a worker
process with a deadline, which is no sandbox. Not covered: its curricula, and `composite`, which mixes others (give a
list of data sets instead).
"""

import difflib
import json
import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, get_args

from resd.envs.answers import tagged
from resd.envs.options import choice
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

PromptKind = Literal["full", "compact"]
FeedbackKind = Literal["score", "gold"]
Datasets = str | Sequence[str] | Mapping[str, Mapping[str, Any] | None]

# Their questions follow the order of sets of texts, which differs between processes.
HASH_DEPENDENT = {"codeio", "isomorphic_strings", "polynomial_multiplication", "ransom_note"}

_SEEDS = 1_000_000  # of one split; entry number i of a data set is drawn with the data set's seed + i
_NONSENSE = "zzz )("
_FULL = "{question}\n\nThink first. Then give the answer alone between <answer> and </answer>."
_COMPACT = "{question}\n<answer>the answer</answer>"


class ReasoningGym:
    """Implements `resd.task.Task`. Raises UserError when the package is missing or refuses an option.

    datasets: a name, a list of names, or a mapping of names to their settings, as in `{leg_counting: {max_animals: 4}}`
    train, test: entries of each data set
    seed: which entries are drawn
    feedback: `score`, or `gold`, which gives the right answer away
    """

    noun = "answer"

    def __init__(
        self,
        datasets: Datasets = "leg_counting",
        train: int = 640,
        test: int = 100,
        seed: int = 0,
        prompt: PromptKind = "full",
        feedback: FeedbackKind = "score",
    ) -> None:
        choice("prompt", prompt, get_args(PromptKind))
        choice("feedback", feedback, get_args(FeedbackKind))
        for option, number, least, most in (
            ("train", train, 1, _SEEDS),
            ("test", test, 1, _SEEDS),
            ("seed", seed, 0, 999),
        ):
            if not least <= number <= most:
                raise UserError(f"{option}={number} is out of range: write a number from {least} to {most}")
        self.settings = _settings(datasets)
        self.sizes: dict[Split, int] = {"train": train, "test": test}
        self.seed, self.prompt_kind, self.feedback = seed, prompt, feedback
        for name in self.settings:
            _dataset(name, self.settings[name])

    def problems(self, split: Split) -> list[Problem]:
        """The entries of one split, data set after data set, each question once. `cases` is the entry."""
        seen = {problem.statement for problem in self._entries("test")} if split == "train" else set()
        problems = []
        for problem in self._entries(split):
            if problem.statement not in seen:
                seen.add(problem.statement)
                problems.append(problem)
        if not problems:
            raise UserError(f"datasets={', '.join(self.settings)}: every training question is in test too; lower test")
        return problems

    def prompt(self, problem: Problem) -> Messages:
        """The question, and where to put the answer."""
        asked = _FULL if self.prompt_kind == "full" else _COMPACT
        return [{"role": "user", "content": asked.format(question=problem.statement)}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """The score of the last answer outside thinking. One that the verifier cannot read scores 0."""
        answer = tagged(response)
        if answer is None:
            error = "truncated" if truncated else "no_answer"
            return Verdict(0.0, False, 0, 1, "Give the answer between <answer> and </answer>.", error=error)
        score = self._score(problem, answer)
        passed = score >= 1
        if passed:
            return Verdict(1.0, True, 1, 1, answer=answer)
        text = f"The answer {answer!r:.200} scores {score:g} of 1."
        gold = problem.cases[0]["answer"]
        if self.feedback == "gold" and gold is not None:
            text += f" A right answer is {gold!r}."
        return Verdict(score, False, 0, 1, text, answer)

    def self_test(self) -> None:
        """Raises UserError unless every data set takes its own answer, if it tells one, and refuses nonsense."""
        for name in self.settings:
            problem = next(problem for problem in self._entries("test") if problem.family == name)
            gold = problem.cases[0]["answer"]
            if gold is not None and self._score(problem, gold) < 1:
                raise UserError(f"the judge of {name} refuses its own answer {gold!r:.80}: choose other datasets")
            if self._score(problem, _NONSENSE) >= 1:
                raise UserError(f"the judge of {name} passes {_NONSENSE!r}: choose other datasets")

    def _score(self, problem: Problem, answer: str) -> float:
        judge = _dataset(problem.family, self.settings[problem.family])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                score = float(judge.score_answer(answer, problem.cases[0]))
        except Exception:  # the package's verifiers raise anything when an answer has another form
            return 0.0
        return min(max(score, 0.0), 1.0)

    def _entries(self, split: Split) -> Iterator[Problem]:
        first = _SEEDS * (2 * self.seed + (split == "test"))
        for name, settings in self.settings.items():
            dataset = _dataset(name, settings, self.sizes[split], first)
            for index in range(self.sizes[split]):
                with _repeatable(f"{name}/{first + index}"):
                    entry = dataset[index]
                gold = entry["answer"]
                told = "" if gold is None else f"<answer>{gold}</answer>"
                yield Problem(f"{name}-{split}-{index}", entry["question"], name, [entry], told)


load = ReasoningGym


def _settings(datasets: Datasets) -> dict[str, str]:
    """The settings of every data set by name, as JSON."""
    if isinstance(datasets, str):
        datasets = [datasets]
    named = datasets if isinstance(datasets, Mapping) else dict.fromkeys(datasets)
    if not named:
        raise UserError("datasets is empty: write at least one name, such as leg_counting")
    return {name: json.dumps(settings or {}) for name, settings in named.items()}


@cache
def _dataset(name: str, settings: str, size: int = 1, seed: int = 0) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UserError("task=reasoning_gym needs its package: run pip install 'reasoning-gym<0.2'") from None
    if name not in DATASETS:
        near = ", ".join(difflib.get_close_matches(name, DATASETS, n=3, cutoff=0.4)) or "leg_counting"
        raise UserError(f"datasets: {name!r} is none of the {len(DATASETS)} there are; write another, such as {near}")
    if name in HASH_DEPENDENT and not os.environ.get("PYTHONHASHSEED", "random").isdigit():
        raise UserError(f"datasets: {name} asks something else in every process: set PYTHONHASHSEED=0 first")
    try:
        with _repeatable(f"{name}/{seed}"):
            return reasoning_gym.create_dataset(name, size=size, seed=seed, **json.loads(settings))
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"datasets: {name} does not take these settings: {error}") from None


@contextmanager
def _repeatable(seed: str) -> Iterator[None]:
    """Seeds Python's own generator meanwhile, from which a few data sets draw instead of from one of theirs."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
