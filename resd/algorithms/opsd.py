"""OPSD: self-distillation from text that only the teacher reads (arXiv 2601.18734); SDFT (`sdft.yaml`) in its settings.

A problem may carry a reference solution, a demonstration or a hint (`Problem.privileged`). The student answers without
it; the model itself, having read it, scores every token of the answer, and the student moves toward that. No verdict
enters the loss. The text takes a `slot` of the teacher's prompt, which says what it is. A problem without text is
counted and not tried. The control `privileged=other` gives each problem the text of another one, always the same.

A `library` of rules takes the place of all these texts: what a model can do with it in sight goes into its weights.

    python -m resd.train task=manufactoria algorithm=opsd
    python -m resd.train task=manufactoria algorithm=opsd algorithm.library=RUN/playbook.jsonl

Differs from the paper: the teacher does not write its own explanation of the reference first.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from resd import seeds
from resd.algorithms import base
from resd.context.library import given
from resd.settings import AlgorithmSettings, ObjectiveSettings, Positive, TeacherPromptSettings, TeacherSettings
from resd.types import Observation, Problem, UserError

if TYPE_CHECKING:
    from resd.observe.hindsight import Slot
    from resd.observe.run import Run


class Settings(AlgorithmSettings):
    """Self-distillation from a teacher who reads privileged text."""

    name: Literal["opsd"]
    slot: Literal["solution", "demonstration", "hint"]
    """what the teacher is told the privileged text is"""
    privileged: Literal["own", "other"]
    """the problem's own text; other, a control: that of another problem"""
    library: str | None
    """rules that the teacher reads instead of privileged text: a playbook.jsonl, or a text file of one a line"""
    first: Positive | None
    """tokens of a response that count; null: all"""
    max_tokens: Positive
    """tokens of the teacher's prompt"""
    objective: ObjectiveSettings
    teacher: TeacherSettings

    def check(self, problems: Sequence[Problem]) -> str:
        if self.library is not None:
            given(self.library)
            return ""
        texts = known_texts(problems)
        if not texts:
            raise UserError(
                "none of the training problems has privileged text for the teacher of opsd: choose a task that fills "
                "Problem.privileged (with task=local write task.options.privileged=COLUMN), or write "
                "algorithm.library=FILE"
            )
        if self.privileged == "other" and len(texts) < 2:
            raise UserError("all privileged texts are the same, there is no other: write algorithm.privileged=own")
        untold = sum(not problem.privileged.strip() for problem in problems)
        return f"{untold} of {len(problems)} training problems have no privileged text and are not tried" * (untold > 0)


class Algorithm(base.Algorithm[Settings]):
    papers = ("2601.18734", "2601.19897")

    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        parts: dict[str, Any] = dict.fromkeys(TeacherPromptSettings.model_fields, False)
        parts |= {"solution": True, "playbook": True}
        self.hindsight = run.hindsight(TeacherPromptSettings(**{**parts, "max_tokens": settings.max_tokens}))
        self.rules = given(settings.library).render(run.prompts.style)
        self.others = known_texts(run.task.problems("train")) if settings.privileged == "other" else []

    def observe(self, problems: Sequence[Problem]) -> Observation:
        known = [problem for problem in problems if self.rules or problem.privileged.strip()]
        self.run.journal.count("teacher/untold", len(problems) - len(known))
        attempts = self.run.rollout(known, self.settings.group, prompt=self.prompt)
        slot: Slot = "playbook" if self.rules else self.settings.slot
        samples = self.hindsight.told(attempts, [self._text(attempt.problem) for attempt in attempts], slot)
        if self.settings.first is not None:
            for sample in samples:
                own = sample.mask or [True] * len(sample.response_ids)
                sample.mask = [counts and t < self.settings.first for t, counts in enumerate(own)]
        return Observation(attempts, samples)

    def _text(self, problem: Problem) -> str:
        """What the teacher reads of a problem: the library, its own text, or never that."""
        if self.rules:
            return self.rules
        if self.settings.privileged == "own":
            return problem.privileged
        texts = [text for text in self.others if text != problem.privileged.strip()]
        return texts[seeds.derive(self.run.seed, "other", problem.id) % len(texts)]


def known_texts(problems: Sequence[Problem]) -> list[str]:
    """The different privileged texts, in order."""
    return list(dict.fromkeys(text for problem in problems if (text := problem.privileged.strip())))
