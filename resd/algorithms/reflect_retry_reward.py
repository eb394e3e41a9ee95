"""Reflect, Retry, Reward: learning to reflect on one's own failures (Bensal et al., arXiv 2505.24726).

A failed attempt gets `group` reflections and each of these one retry, which reads the problem, the attempt and that
reflection. The reward of the retry, against the other retries of the same failure, is the advantage of the reflection's
tokens; attempt and retry are its context and are not trained. A reflection that says nothing earns 0 without a retry;
one whose retry does not fit or has no verdict is left out. `feedback=false` is the paper's setting, in which a
reflection knows only that the attempt failed.

The student reads a `library` of rules, if there is one, in attempts, retries and evaluations; reflections do not.
Controls: `reward=random` gives rewards by lot, `plain_retry=true` asks for a retry without a reflection as well.

Differs from the paper: failures are those of the current student instead of a set made once; what a retry reads is the
prompt of a teacher and not one conversation. Not covered: reflections under a schema, which would change their
probabilities, or by an author, who is not trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from resd import seeds
from resd.algorithms import base
from resd.algorithms.grpo import by_group, compared, mixed_share
from resd.context.library import given, told
from resd.context.playbook import Playbook
from resd.context.reflect import Reflector, count_invalid
from resd.settings import (
    AlgorithmSettings,
    Asked,
    PolicyGradientSettings,
    Positive,
    SamplingSettings,
    TeacherPromptSettings,
)
from resd.thinking import cut_in_thinking
from resd.types import Attempt, Messages, Observation, Problem, Sample, Verdict

if TYPE_CHECKING:
    from resd.observe.run import Run

SAYS_NOTHING = Verdict(0.0, False, 0, 1, "There is nothing to retry with.", error="no_reflection")


class Settings(AlgorithmSettings):
    """Reflections on failures, rewarded by the retries that read them."""

    name: Literal["reflect_retry_reward"]
    group: Positive
    """reflections on each failure, which are compared with each other"""
    failures: Positive | None
    """most failures of an update that are reflected on; null: all"""
    feedback: bool
    """whether a reflection reads what the verifier said of the attempt; a retry does not"""
    reward: Literal["retry", "random"]
    """of a reflection: that of its retry; random, a control: 0 or 1 by lot"""
    normalise_std: bool
    """divide advantages by the group's standard deviation"""
    plain_retry: bool
    """a control: whether each failure is also retried without a reflection, and reported"""
    successes: bool
    """whether first attempts that passed are trained too, with their reward as the advantage"""
    library: str | None
    """rules in sight of attempts and retries: a playbook.jsonl, or a text file of one a line; null: none"""
    writing: SamplingSettings
    retrying: SamplingSettings
    kl: Annotated[float, Field(ge=0)]
    """weight of the divergence from the teacher, which is the model as it was at first; 0: there is no teacher"""
    policy_gradient: PolicyGradientSettings

    _group = compared("group", "reflections on one failure")

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nothing is held in memory for a teacher that nobody asks."""
        return values if values.get("kl") else {**values, "objective": None, "teacher": None}

    @model_validator(mode="after")
    def _held(self) -> "Settings":
        if self.kl and (self.teacher is None or self.objective is None):
            raise ValueError("algorithm.kl needs algorithm.teacher and algorithm.objective: leave them, or kl, out")
        return self

    @property
    def rollouts(self) -> int:
        return 1

    def asks(self, problems: int) -> list[Asked]:
        failed = min(problems, self.failures or problems)
        retries = failed * (self.group + self.plain_retry)
        return [
            Asked("rollout", problems),
            Asked("reflect", failed * self.group, self.writing, "failed", "attempt", "text"),
            Asked("retry", retries, self.retrying, "failed", "attempt"),
        ]

    def trains(self, problems: int) -> list[Asked]:
        _, reflections, _ = self.asks(problems)
        passed = [Asked("rollout", problems - reflections.count // self.group, of="passed")]
        return [reflections, *(passed if self.successes else ())]

    def check(self, problems: Sequence[Problem]) -> str:
        given(self.library)
        return super().check(problems)


class Algorithm(base.Algorithm[Settings]):
    papers = ("2505.24726",)

    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.library = given(settings.library)
        writer = run.writer(settings.writing, student=True)
        self.reflector = Reflector(writer, run.prompts, writer.budget)
        parts: dict[str, Any] = dict.fromkeys(TeacherPromptSettings.model_fields, False)
        parts |= {"playbook": True, "previous_trial": True, "reflection": True}
        self.hindsight = run.hindsight(TeacherPromptSettings(**{**parts, "max_tokens": settings.retrying.max_prompt}))

    def prompt(self, problem: Problem) -> Messages:
        return told(self.run.task.prompt, self.library, "template", self.run.prompts)(problem)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        attempts = self.run.rollout(problems, prompt=self.prompt)
        failed = [attempt for attempt in attempts if not attempt.passed][: self.settings.failures]
        reflections = self.reflect(failed)
        retries = self.retry([reflection for reflection in reflections if says(reflection)])
        plain = self.retry(failed) if self.settings.plain_retry else []

        rewarded = self.reward(reflections, retries)
        advantages = by_group(rewarded, self.settings.normalise_std)
        samples = [self._sample(r, advantages[r.id]) for r in rewarded if r.id in advantages]
        if self.settings.successes:
            samples += [self._sample(a, a.verdict.reward) for a in attempts if a.passed and a.verdict]

        self.run.journal.count("retry/nothing_failed", bool(attempts) and not failed)
        metrics = {"retry/failures": len(failed)} | success("retry/plain", plain)
        if rewarded:
            distinct = {reflection.reflection.text for reflection in reflections if reflection.reflection}
            metrics |= success("retry/passed", rewarded)
            metrics |= {"retry/mixed": mixed_share(rewarded), "reflect/distinct": len(distinct)}
        return Observation([*attempts, *reflections, *retries, *plain], samples, metrics)

    def reflect(self, failed: Sequence[Attempt]) -> list[Attempt]:
        """`group` reflections on each failure, in order, less those whose prompt does not fit."""
        run, drafts = self.run, []
        for attempt in failed:
            question = self.reflector.question(self._as_asked(attempt), Playbook())
            run.journal.count("reflect/truncated", question.truncated)
            for member in range(self.settings.group):
                id = f"{attempt.id}/reflect/{member}"
                draft = run.speech.draft(attempt.problem, question.messages, id, attempt)
                drafts.append(replace(draft, member=member))
        said = run.speak(drafts, self.settings.writing, "reflect")
        for reflection in said:
            reflection.reflection = run.prompts.reflection(reflection.response)
        cut = sum(cut_in_thinking(reflection.response, run.speech.chat.thinking_opened) for reflection in said)
        run.journal.count("reflect/thinking_cut", cut, f"max_response={self.settings.writing.max_response} tokens")
        silent = [reflection.response for reflection in said if not says(reflection)]
        why = f"{silent[0][:80]!r}" if silent else ""
        run.journal.count("reflect/invalid", count_invalid([each.reflection for each in said]), why)
        return said

    def retry(self, before: Sequence[Attempt], times: int = 1) -> list[Attempt]:
        """The retries that got a verdict, `times` after each: after a reflection, with its text in sight whole, or
        after a failed attempt, without any."""
        run, rules, drafts = self.run, self.library.render(self.run.prompts.style), []
        for attempt in before:
            text = attempt.reflection.text.strip() if attempt.reflection else ""
            failed = replace(self._as_asked(attempt.parent or attempt), reflection=attempt.reflection)
            composed = self.hindsight.teacher_prompt.compose(failed, rules)
            fits = composed is not None and any(text in message["content"] for message in composed.messages)
            run.journal.count("retry/too_long", not fits, f"max_prompt={self.settings.retrying.max_prompt}")
            if composed is not None and fits:
                run.journal.count("retry/truncated", composed.truncated > 0)
                ids = [f"{attempt.id}/retry/{number}" for number in range(times)]
                drafts += [run.speech.draft(attempt.problem, composed.messages, id, attempt) for id in ids]
        return run.judge(run.speak(drafts, self.settings.retrying, "retry", to_task=True))

    def reward(self, reflections: Sequence[Attempt], retries: Sequence[Attempt]) -> list[Attempt]:
        """The reflections that can be rewarded: each has the verdict on its retry."""
        verdicts = {retry.parent.id: retry.verdict for retry in retries if retry.parent}
        for reflection in reflections:
            verdict = verdicts.get(reflection.id) if says(reflection) else SAYS_NOTHING
            if verdict is not None and self.settings.reward == "random":
                verdict = replace(verdict, reward=float(seeds.derive(self.run.seed, "reward", reflection.id) % 2))
            reflection.verdict = verdict
        return [reflection for reflection in reflections if reflection.verdict is not None]

    def _as_asked(self, attempt: Attempt) -> Attempt:
        """The attempt at the problem as the task states it, and as its reflections may know it."""
        verdict = attempt.verdict
        if verdict is not None and not self.settings.feedback:
            verdict = replace(verdict, feedback="")
        return replace(attempt, prompt=self.run.task.prompt(attempt.problem), verdict=verdict)

    def _sample(self, attempt: Attempt, advantage: float) -> Sample:
        sample = attempt.sample = attempt.as_sample(advantage=advantage)
        if self.settings.kl:
            sample.teacher_prompt_ids, sample.pull = attempt.prompt_ids, self.settings.kl
            attempt.teacher_prompt = attempt.prompt_text
        return sample


def says(reflection: Attempt) -> bool:
    """Whether there is anything in it to retry with."""
    return reflection.reflection is not None and bool(reflection.reflection.text)


def success(name: str, attempts: Sequence[Attempt]) -> dict[str, float]:
    """The share that passed, if there are any."""
    return {name: sum(attempt.passed for attempt in attempts) / len(attempts)} if attempts else {}
