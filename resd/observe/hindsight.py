"""Attempts to samples whose teacher knows more than the student did (paper section 3.3).

The same model, with the problem and what is known in hindsight before it, scores every token of the attempt.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from resd import turns
from resd.context.formats import FORMATS
from resd.context.render import Prompts
from resd.context.teacher_prompt import Composed, Parts, TeacherPrompt
from resd.model.chat import Chat
from resd.objectives import weighting
from resd.report.journal import Journal
from resd.settings import ModelSettings, SuccessWeighting, TeacherPromptSettings
from resd.types import Attempt, Sample

Slot = Literal["solution", "demonstration", "hint", "playbook"]


def prompts(model: ModelSettings, chat: Chat, noun: str) -> Prompts:
    """The trainer's own prompts in the style and format of the model."""
    return Prompts(model.prompts, noun, FORMATS[model.output_format](chat.thinking_opened))


class Hindsight:
    """Composes teacher prompts of at most `settings.max_tokens` tokens, chat template included."""

    def __init__(self, chat: Chat, journal: Journal, prompts: Prompts, settings: TeacherPromptSettings) -> None:
        self.chat = chat
        self.journal = journal
        parts = Parts(**settings.model_dump(exclude={"max_tokens"}))
        self.teacher_prompt = TeacherPrompt(prompts, parts, chat.room(settings.max_tokens), chat.count)

    def samples(
        self,
        attempts: Sequence[Attempt],
        solutions: Sequence[str | None],
        weighting: SuccessWeighting,
        playbook: str = "",
    ) -> list[Sample]:
        """One sample an attempt, left in it too. `solutions` are texts that the teacher may read, one an attempt."""
        weights = success_weights(attempts, weighting)
        return [
            self._sample(attempt, self.teacher_prompt.compose(attempt, playbook, solution), weight)
            for attempt, solution, weight in zip(attempts, solutions, weights, strict=True)
        ]

    def told(self, attempts: Sequence[Attempt], texts: Sequence[str], slot: Slot) -> list[Sample]:
        """One sample an attempt, left in it too, whose teacher reads a text that did not come from any attempt."""
        return [
            self._sample(attempt, self.teacher_prompt.compose(attempt, **{slot: text}), 1.0, slot)
            for attempt, text in zip(attempts, texts, strict=True)
        ]

    def spoken(self, attempt: Attempt) -> str:
        """The response without thinking."""
        return turns.spoken(attempt, self.chat.thinking_opened)

    def _sample(self, attempt: Attempt, composed: Composed | None, weight: float, slot: Slot | None = None) -> Sample:
        """The attempt as the learner eats it. It has no teacher without anything privileged to read, or, if a `slot` is
        what it is taught from, without that."""
        sample = attempt.sample = attempt.as_sample(weight=weight)
        self.journal.count("teacher/too_long", composed is None, why=f"problem {attempt.problem.id}")
        truncated = composed is not None and composed.truncated > 0
        self.journal.count("teacher/truncated", truncated, why=f"problem {attempt.problem.id}")
        if composed is not None and (slot in composed.parts if slot else composed.privileged):
            attempt.teacher_prompt = self.chat.render(composed.messages)
            sample.teacher_prompt_ids = self.chat.ids(composed.messages)
        return sample


def success_weights(attempts: Sequence[Attempt], settings: SuccessWeighting) -> list[float]:
    """Sample weights of mean one (paper Eq. 2), or all ones."""
    if not settings.enabled or not attempts:
        return [1.0] * len(attempts)
    return weighting.success_weights(torch.tensor([a.passed for a in attempts]), settings.a, settings.b).tolist()
