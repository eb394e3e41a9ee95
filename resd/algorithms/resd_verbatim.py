"""A control for RESD: what the environment said is the lesson, word for word; no model reflects, tags or curates.

The playbook then collects feedback. What is lost against RESD is what a reflector adds to it. Without tags only
staleness and the number of entries remove one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from resd.algorithms import resd
from resd.context.curate import Curation, Curator
from resd.context.parts import TagsRead
from resd.context.playbook import UNNAMED, Playbook
from resd.context.reflect import Reflector, first_per_problem
from resd.settings import Asked
from resd.types import Attempt, Question, Reflection

if TYPE_CHECKING:
    from resd.observe.run import Run


class Settings(resd.Settings):
    """Those of RESD; the teacher reads the feedback once, so `teacher_prompt.reflection` is off."""

    name: Literal["resd_verbatim"]  # type: ignore[assignment]

    def asks(self, problems: int) -> list[Asked]:
        return [each for each in super().asks(problems) if each.phase == "rollout"]


class Echo(Reflector):
    """Repeats the feedback, and tags nothing."""

    def reflect(self, attempts: Sequence[Attempt], playbook: Playbook) -> list[Reflection | None]:
        return [Reflection(attempt.verdict.feedback if attempt.verdict else "") for attempt in attempts]

    def tag(self, attempts: Sequence[Attempt], playbook: Playbook) -> dict[str, TagsRead]:
        return {}


class Copyist(Curator):
    """Adds every reflection as it is: the first of each problem, as RESD's curator."""

    def curate(self, attempts: Sequence[Attempt], playbook: Playbook, step: int) -> Curation:
        said = [a for a in first_per_problem(attempts) if a.reflection and a.reflection.text.strip()]
        entries = [playbook.add(UNNAMED, a.reflection.text, step, attempt=a.id) for a in said if a.reflection]
        return Curation(tuple(entry.id for entry in entries if entry), duplicates=entries.count(None))


class Algorithm(resd.Algorithm):
    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.reflector = Echo(self.writer, run.prompts)
        self.curator = Copyist(self.writer, run.prompts)

    def _question(self, attempt: Attempt) -> Question | None:
        return None
