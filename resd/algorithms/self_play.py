"""Asymmetric self-play: a model proposes problems and learns from solving them (SQLM, Chen et al., arXiv 2508.03682).

For each problem of a batch, of which nothing but the number counts, the model is asked `proposals` times for one of its
own, and answers each that can be read `group` times. The answer that most give is held to be right: it earns the
answers that give it 1 and the others 0, each against the answers to the same problem. A proposal earns 1 if some
answers are held to be right and some not, against the proposals to the same prompt. Both are samples of one update.

Nobody asks what is right. The task's verdict is still measured beside the vote: `vote/gap` is what a judge would gain
by choosing among the same answers. With `judge=task` it is the reward too, which says what a verifier is worth.

    python -m resd.train task=countdown algorithm=self_play batch_size=8 inner_updates=1

Differs from the paper: one vote elects nothing, where by its formula the largest party always is a majority; a proposal
that repeats another of its update, or cannot be read, earns 0; what may be a test problem is left out; prompts vary by
the level that they ask for. Not covered: proposed tests, that is to say code.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import model_validator

from resd.algorithms import base
from resd.algorithms.grpo import by_group, compared, grouped
from resd.context.votes import elected
from resd.settings import AlgorithmSettings, Asked, PolicyGradientSettings, Positive, SamplingSettings
from resd.task import Task, proposing
from resd.types import Attempt, Observation, Problem, Verdict


class Settings(AlgorithmSettings):
    """Problems that the model proposes, answers that vote."""

    name: Literal["self_play"]
    group: Positive
    """answers to each proposal, which vote"""
    proposals: Positive
    """proposals to each prompt, which are compared with each other; prompts are as many as the batch has problems"""
    judge: Literal["vote", "task"]
    """which answers are right: those that most of them give, or, to compare, those that the task's verifier passes"""
    normalise_std: bool
    """divide advantages by the group's standard deviation"""
    policy_gradient: PolicyGradientSettings
    proposing: SamplingSettings

    _proposals = compared("proposals", "proposals to one prompt")
    _group = compared("group", "answers to one proposal")

    @model_validator(mode="after")
    def _between(self) -> "Settings":
        if self.judge == "vote" and self.group < 3:
            raise ValueError("two answers agree or do not, and nothing is between: write algorithm.group=3 or more")
        return self

    @property
    def rollouts(self) -> int:
        return self.proposals * (1 + self.group)

    def asks(self, problems: int) -> list[Asked]:
        proposals = problems * self.proposals
        return [
            Asked("propose", proposals, self.proposing, says="text"),
            Asked("rollout", proposals * self.group),
        ]

    def trains(self, problems: int) -> list[Asked]:
        return self.asks(problems)

    def check_task(self, task: Task) -> None:
        proposing(task, "algorithm=self_play")


class Algorithm(base.Algorithm[Settings]):
    papers = ("2508.03682",)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        settings, run = self.settings, self.run
        proposals = run.propose(settings.proposing, len(problems), settings.proposals)
        answers = self.answer(proposals.said, proposals.problems)
        groups = [group for group in grouped(answers) if len(group) > 1]
        rewarded = [answer for group in groups for answer in self.reward(group)]

        judged = [proposal for proposal in proposals.said if proposal.verdict is not None]
        advantages = by_group([*judged, *rewarded], settings.normalise_std)
        attempts = [*proposals.said, *answers]
        for attempt in attempts:
            if attempt.id in advantages:
                attempt.sample = attempt.as_sample(advantage=advantages[attempt.id])

        metrics = _election(groups)
        if judged:
            metrics["propose/between"] = sum(proposal.passed for proposal in judged) / len(judged)
        samples = [attempt.sample for attempt in attempts if attempt.sample]
        mute = "" if proposals.readable else "proposal"
        otherwise = "begin with a model that can propose: model.path=…"
        return Observation(attempts, samples, metrics, mute=mute, otherwise=otherwise)

    def answer(self, said: Sequence[Attempt], problems: dict[str, Problem]) -> list[Attempt]:
        """`group` verified answers to each problem; what they follow from is its proposal."""
        answers = self.run.rollout([*problems.values()], self.settings.group, prompt=self.prompt)
        proposal = {problems[each.id].id: each for each in said if each.id in problems}
        for answer in answers:
            answer.parent = proposal[answer.problem.id]
        return answers

    def reward(self, group: Sequence[Attempt]) -> list[Attempt]:
        """The answers to one proposal with what they earn as the reward; the proposal gets its verdict."""
        vote = self.settings.judge == "vote"
        held = _agreed(group) if vote else [answer for answer in group if answer.passed]
        right = {answer.id for answer in held}
        between = 0 < len(right) < len(group)
        proposal = group[0].parent
        assert proposal is not None
        feedback = "" if between else f"{len(right)} of {len(group)} answers are held to be right."
        proposal.verdict = Verdict(float(between), between, int(between), 1, feedback)
        return [_earning(answer, float(answer.id in right)) if vote else answer for answer in group]


def _agreed(group: Sequence[Attempt]) -> list[Attempt]:
    """Those that gave the elected answer, if they are more than one."""
    winners = elected(group)
    return winners if len(winners) > 1 else []


def _earning(answer: Attempt, reward: float) -> Attempt:
    assert answer.verdict is not None
    return replace(answer, verdict=replace(answer.verdict, reward=reward))


def _election(groups: Sequence[Sequence[Attempt]]) -> dict[str, float]:
    """What a vote among the answers to each proposal is worth, by the verdicts of the task; nothing without any.

    `vote/agreement` is the share of answers that are alike. `vote/right`: of the elections that two or more carry, the
    share that elect what passes. `vote/passed` is the accuracy of choosing by vote, `vote/best` that of a judge who
    chooses among the same answers, and `vote/gap` what is between them, the generation-verification gap.
    """
    if not groups:
        return {}
    count = len(groups)
    carried = [winners for group in groups if (winners := _agreed(group))]
    passed = sum(winners[0].passed for group in groups if (winners := elected(group))) / count
    best = sum(any(answer.passed for answer in group) for group in groups) / count
    agreement = sum(len(_agreed(group)) / len(group) for group in groups) / count
    metrics = {"vote/agreement": agreement, "vote/passed": passed, "vote/best": best, "vote/gap": best - passed}
    if carried:
        metrics["vote/right"] = sum(winners[0].passed for winners in carried) / len(carried)
    return metrics
