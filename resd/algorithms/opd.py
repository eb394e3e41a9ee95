"""OPD: on-policy distillation from another model (Agarwal et al., arXiv 2306.13649; Lu et al., 2025).

The student answers, the teacher scores every token of the answer after the very same prompt. No verdict enters the
loss. `signal=divergence` moves the student by the objective's divergence; `signal=sampled` by a policy gradient whose
advantage at each token is log q - log p of that token, which is the reverse KL seen through samples.

    python -m resd.train task=manufactoria algorithm=opd algorithm.teacher.path=RUN/best/model
    python -m resd.train task=manufactoria algorithm=opd algorithm.signal=sampled \
        algorithm.teacher.url=http://HOST:PORT/v1

Differs from the published recipe: the advantage has no group-centred reward added. The vocabulary must be the
student's own.
"""

from collections.abc import Sequence
from typing import Literal

from resd.algorithms import base
from resd.settings import AlgorithmSettings, ObjectiveSettings, PolicyGradientSettings, TeacherSettings
from resd.types import Observation, Problem


class Settings(AlgorithmSettings):
    """On-policy distillation from an external teacher."""

    name: Literal["opd"]
    signal: Literal["divergence", "sampled"]
    """a divergence from the teacher, or a policy gradient on the log-ratio of the sampled tokens"""
    teacher: TeacherSettings
    objective: ObjectiveSettings
    policy_gradient: PolicyGradientSettings

    @property
    def compares(self) -> bool:
        return self.signal == "divergence"


class Algorithm(base.Algorithm[Settings]):
    papers = ("2306.13649",)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        attempts = self.run.rollout(problems, self.settings.group, prompt=self.prompt)
        samples = [attempt.as_sample() for attempt in attempts]
        if self.settings.signal == "divergence":
            for sample in samples:
                sample.teacher_prompt_ids = sample.prompt_ids
        else:
            for attempt, sample, said in zip(attempts, samples, self.run.score(samples), strict=True):
                if said is not None:
                    sample.advantage = [q - p for q, p in zip(said.logprobs, attempt.logprobs, strict=True)]
        for attempt, sample in zip(attempts, samples, strict=True):
            attempt.sample, attempt.teacher_prompt = sample, attempt.prompt_text
        return Observation(
            attempts, [s for s in samples if s.teacher_prompt_ids is not None or s.advantage is not None]
        )
