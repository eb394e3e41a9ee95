"""Self-mined pairs: a model is trained on its own repairs (*I let a small model train on its own mistakes*, 2026).

For `mine` updates nothing is learned: each problem is tried `group` times, and a failed attempt beside one that passed
is a pair. Where none passed, `repairs` attempts read a failed one and what was said of it; one that passes makes a pair
too. After that nothing is tried any more: each update learns `portion` pairs by cross entropy on the fixed side, after
problem, broken attempt and feedback; epoch after epoch, so that `steps` says how many. Evaluations show neither.

The student reads a `library` of rules, if there is one, while it mines and in evaluations, and not in what it learns.
`keep_right` mixes in attempts that were right and stay so. `pairs` has the controls (`resd.context.pairs`); `external`
learns the task's own solutions (`Problem.privileged`) as repairs of the same with a line left out.

    python -m resd.train task=manufactoria algorithm=self_mined_pairs algorithm.library=RULES inner_updates=1

With `problems=own` the model proposes the problems that it tries, as many as the batch has, for a task that can read
them (`resd.task.Proposing`) and judges the answers. They begin easy, and the next ones are harder or easier when more
or less than a `band` of the first attempts passed.

Differs from the source: problems are the task's unless they shall be the model's own, and those have no solution that
comes with them; one level for all of them moves, where the source has a problem made harder or easier; pairs are found
before anything is learned, once. Not covered: proposed tests, mining again with what was learned (begin a run from its
checkpoint).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, model_validator

from resd import seeds
from resd.algorithms import base
from resd.algorithms.grpo import grouped, mixed_share
from resd.context.difficulty import Difficulty
from resd.context.library import given, told
from resd.context.pairs import Control, Pair, Pairs, altered, portion
from resd.context.spans import last_block, tokens_in
from resd.settings import AlgorithmSettings, Asked, Fraction, Positive, SamplingSettings, TeacherPromptSettings
from resd.task import Task, follows, proposing
from resd.types import Attempt, Messages, Observation, Problem, Sample, UserError, Verdict

if TYPE_CHECKING:
    from resd.observe.proposals import Proposals
    from resd.observe.run import Run


class Settings(AlgorithmSettings):
    """Cross entropy on a model's own repairs."""

    name: Literal["self_mined_pairs"]
    problems: Literal["task", "own"]
    """what is tried: the task's training problems, or as many that the model proposes"""
    band: tuple[Fraction, Fraction]
    """shares of first attempts that pass, between which problems of its own stay as hard as they are"""
    mine: Positive
    """updates that try problems and learn nothing; later ones learn"""
    repairs: NonNegativeInt
    """attempts to repair a failure at a problem that nothing solved"""
    per_problem: Positive
    """most pairs of a problem"""
    least: Positive
    """pairs without which the run ends before it learns"""
    most: Positive | None
    """pairs that are kept, the first; null: all"""
    portion: Positive
    """pairs an update learns"""
    pairs: Control
    """what is learned: mined, or a control"""
    keep_right: Annotated[float, Field(ge=0)]
    """attempts that were right and stay so, for each pair"""
    feedback: bool
    """whether a repair, and what is learned, reads what the verifier said"""
    part: Literal["response", "block"]
    """tokens of the fixed side that count: all, or the inside of its last code fence"""
    library: str | None
    """rules in sight while mining and in evaluations: a playbook.jsonl, or a text file of one a line; null: none"""
    proposing: SamplingSettings
    repairing: SamplingSettings

    def asks(self, problems: int) -> list[Asked]:
        if self.pairs == "external":
            return []
        own = [Asked("propose", problems, self.proposing, says="text")] if self.problems == "own" else []
        repairs = Asked("repair", problems * self.repairs, self.repairing, "failed", "attempt")
        return [*own, Asked("rollout", problems * self.group), *([repairs] if self.repairs else ())]

    def trains(self, problems: int) -> list[Asked]:
        return [Asked("pairs", self.portion + round(self.keep_right * self.portion), self.repairing, reads="attempt")]

    @model_validator(mode="after")
    def _findable(self) -> "Settings":
        if self.group + self.repairs < 2 and self.pairs != "external":
            raise ValueError("one attempt is no pair: write algorithm.group=2 or more, or algorithm.repairs=1")
        if self.pairs == "external" and self.problems == "own":
            raise ValueError("a model's own problems have no solutions: leave algorithm.pairs=external out")
        if self.band[0] > self.band[1]:
            raise ValueError(f"algorithm.band={list(self.band)} is upside down: write the lower share first")
        return self

    def check_task(self, task: Task) -> None:
        if self.problems == "own":
            proposing(task, "algorithm.problems=own")
        if follows(task):
            raise UserError(
                "algorithm=self_mined_pairs learns whole responses, and this task answers in between: choose another "
                "task or algorithm"
            )

    def check(self, problems: Sequence[Problem]) -> str:
        given(self.library)
        if self.pairs == "external" and not any(problem.privileged.strip() for problem in problems):
            raise UserError("algorithm.pairs=external learns solutions that a task has: this one has none")
        return super().check(problems)


class Algorithm(base.Algorithm[Settings]):
    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.library = given(settings.library)
        self.pairs = Pairs(settings.per_problem, settings.most)
        self.right = Pairs(1, settings.most)
        parts: dict[str, Any] = dict.fromkeys(TeacherPromptSettings.model_fields, False)
        parts |= {"previous_trial": True, "feedback": settings.feedback, "max_tokens": settings.repairing.max_prompt}
        self.hindsight = run.hindsight(TeacherPromptSettings(**parts))
        self.problems = {problem.id: problem for problem in run.task.problems("train")}
        self.proposed: dict[str, str] = {}  # what was said to propose a problem, by the problem's id
        self.difficulty = Difficulty(getattr(run.task, "levels", 1), *settings.band)

    def prompt(self, problem: Problem) -> Messages:
        return told(self.run.task.prompt, self.library, "template", self.run.prompts)(problem)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        mines = self.run.step <= self.settings.mine
        own = self.propose(len(problems)) if mines and self.settings.problems == "own" else None
        attempts = self.tried([*own.problems.values()] if own else problems) if mines else []
        metrics: dict[str, float] = {"pairs/new": self.mine(attempts)}
        metrics |= {"pairs/size": len(self.pairs), "pairs/right": len(self.right)}
        first = [attempt for attempt in attempts if attempt.first]
        if first:
            metrics["pairs/mixed"] = mixed_share(first)
        if own and first:
            metrics["difficulty/level"] = self.difficulty.level
            self.difficulty.note(sum(attempt.passed for attempt in first) / len(first))
        return Observation(
            [*(own.said if own else ()), *attempts],
            [] if mines else self.samples(),
            metrics,
            self._poor(),
            mute="proposal" if own and not own.readable else "",
            otherwise="mine the task's own: algorithm.problems=task",
            gathers=mines,
        )

    def propose(self, count: int) -> "Proposals":
        """So many problems of the model's own, less those that cannot be tried, or have been."""
        own = self.run.propose(self.settings.proposing, count, 1, self.difficulty.level)
        known = {self.problems[id].statement for id in self.proposed}
        repeated = [id for id, problem in own.problems.items() if problem.statement in known]
        self.run.journal.count("propose/duplicate", len(repeated))
        own.problems = {id: problem for id, problem in own.problems.items() if id not in repeated}
        for proposal in own.said:
            if problem := own.problems.get(proposal.id):
                self.problems[problem.id], self.proposed[problem.id] = problem, proposal.response
        return own

    def tried(self, problems: Sequence[Problem]) -> list[Attempt]:
        """Verified attempts at each problem, and at the repair of those that nothing solved."""
        if self.settings.pairs == "external":
            return self.external(problems)
        attempts = self.run.rollout(problems, self.settings.group, prompt=self.prompt)
        unsolved = [group[0] for group in grouped(attempts) if not any(attempt.passed for attempt in group)]
        return [*attempts, *self.repair(unsolved)]

    def repair(self, failed: Sequence[Attempt]) -> list[Attempt]:
        """`repairs` verified answers to each, which read it."""
        drafts = []
        for attempt in failed:
            messages = self._after(attempt)
            for number in range(self.settings.repairs if messages else 0):
                id = f"{attempt.id}/repair/{number}"
                drafts.append(self.run.speech.draft(attempt.problem, messages or [], id, attempt))
        return self.run.judge(self.run.speak(drafts, self.settings.repairing, "repair"))

    def mine(self, attempts: Sequence[Attempt]) -> int:
        """Keeps the pairs among the attempts at each problem; how many are new. One that was cut off fixes nothing."""
        new = 0
        by_problem: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            by_problem.setdefault(attempt.problem.id, []).append(attempt)
        for group in by_problem.values():
            right = [attempt for attempt in group if attempt.passed and not attempt.truncated]
            wrong = [attempt for attempt in group if not attempt.passed]
            if right:
                new += self.pairs.add(_pair(broken, right[i % len(right)]) for i, broken in enumerate(wrong))
                self.right.add([_pair(right[0], right[0])])
        return new

    def samples(self) -> list[Sample]:
        """What this update learns."""
        settings, seed, number = self.settings, self.run.seed, self.run.step - self.settings.mine - 1
        chosen = portion(altered(self.pairs.found, settings.pairs, seed), number, settings.portion, seed)
        chosen += portion(self.right.found, number, round(settings.keep_right * settings.portion), seed)
        samples = [self._sample(pair) for pair in chosen]
        why = f"model.max_prompt={settings.repairing.max_prompt}"
        self.run.journal.count("pairs/too_long", samples.count(None), why)
        return [sample for sample in samples if sample is not None]

    def external(self, problems: Sequence[Problem]) -> list[Attempt]:
        """Verdicts on each problem's own solution, and on the same with a line left out."""
        chat, attempts = self.run.speech.chat, []
        for problem in problems:
            lines = problem.privileged.strip().splitlines()
            gap = random.Random(seeds.derive(self.run.seed, "gap", problem.id)).randrange(max(1, len(lines)))
            for member, said in enumerate([lines[:gap] + lines[gap + 1 :], lines]):
                draft = self.run.speech.draft(problem, self.prompt(problem), f"{self.run.step}/{problem.id}/{member}")
                text = "\n".join(said)
                ids = [*chat.encode(text), chat.eos_ids[0]]
                attempts.append(replace(draft, response=text, response_ids=ids, truncated=False, member=member))
        return self.run.judge(attempts)

    def state(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs.state_dict(),
            "right": self.right.state_dict(),
            "proposed": self.proposed,
            "difficulty": self.difficulty.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.pairs.load_state_dict(state["pairs"])
        self.right.load_state_dict(state["right"])
        if own := state.get("proposed"):  # younger than some checkpoints
            task = proposing(self.run.task, "algorithm.problems=own")
            self.proposed = dict(own)
            self.problems |= {id: task.proposed(said, id) for id, said in own.items()}
            self.difficulty.load_state_dict(state["difficulty"])

    def _poor(self) -> str:
        found, settings = len(self.pairs), self.settings
        if self.run.step < settings.mine or found >= settings.least:
            return ""
        return (
            f"{found} pairs were found in {settings.mine} updates, fewer than algorithm.least={settings.least}: mine "
            "longer, try each problem more often (algorithm.group), or give rules (algorithm.library)"
        )

    def _sample(self, pair: Pair) -> Sample | None:
        chat, problem = self.run.speech.chat, self.problems[pair.problem]
        draft = self.run.speech.draft(problem, self.run.task.prompt(problem), "")
        broken = replace(draft, response=chat.decode(pair.broken), verdict=Verdict(0.0, False, 0, 1, pair.feedback))
        messages = draft.prompt if self.settings.pairs == "correct" else self._after(broken)
        if messages is None:
            return None
        pieces = chat.pieces(pair.fixed)
        mask = tokens_in([last_block("".join(pieces))], pieces) if self.settings.part == "block" else None
        return Sample(chat.ids(messages), pair.fixed, None, mask=mask)

    def _after(self, attempt: Attempt) -> Messages | None:
        """The problem as the task states it, with an attempt and what was said of it; None if that is too long."""
        asked = replace(attempt, prompt=self.run.task.prompt(attempt.problem))
        composed = self.hindsight.teacher_prompt.compose(asked)
        return None if composed is None or composed.truncated else composed.messages


def _pair(broken: Attempt, fixed: Attempt) -> Pair:
    feedback = broken.verdict.feedback if broken.verdict else ""
    return Pair(broken.problem.id, tuple(broken.response_ids), feedback, tuple(fixed.response_ids))
