"""RESD: reflection-enhanced self-distillation (arXiv 2605.12741, section 3.3, Algorithm 1).

Failures are turned into reflections, reflections into playbook entries that persist across updates; a teacher that
reads both (and a cached solution) supervises every token of the student's own response.

Differs from the paper's text: tagging and curation prompts put the shared playbook first; entries with the same words
are merged; an entry is not "unused" in the update that created it. Differs from the released code: the moving average
moves, is saved, and works with every other part (see docs/design.md).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from resd import seeds
from resd.algorithms import base
from resd.context.concise import Method, Removals, prune, tally, trim
from resd.context.curate import Curator
from resd.context.playbook import Novelty, Playbook
from resd.context.reflect import Reflector, apply_tags, count_invalid
from resd.context.solutions import SolutionBuffer
from resd.settings import (
    AlgorithmSettings,
    Asked,
    ObjectiveSettings,
    Positive,
    SamplingSettings,
    Section,
    SuccessWeighting,
    TeacherPromptSettings,
    TeacherSettings,
)
from resd.types import Attempt, Observation, Problem, Question, UserError

if TYPE_CHECKING:
    from resd.observe.run import Run


class PlaybookSettings(Section):
    """Size and pruning of the playbook (paper Appendix D)."""

    max_entries: Positive
    """how many it may have"""
    concise: Method
    """which entries go first when there are more"""
    frequency: Positive
    """updates between prunings"""
    trim_after_curation: bool
    """whether it is cut to max_entries after each curation too"""
    novelty: Novelty
    """what a lesson must have to be added: a text that is not there yet, or a word"""
    scope: Literal["run", "block", "part"] = "run"
    """task=sequence: one for the whole run, emptied when another part's block begins, or one a part"""


class Settings(AlgorithmSettings):
    """Reflection-enhanced self-distillation; the switches of teacher_prompt are the paper's ablations (Table 3)."""

    name: Literal["resd"]
    objective: ObjectiveSettings
    teacher: TeacherSettings
    teacher_prompt: TeacherPromptSettings
    playbook: PlaybookSettings
    writing: SamplingSettings
    success_weighting: SuccessWeighting
    tag_successes: bool
    """whether a success says which entries helped"""
    distil_self_success: bool
    """whether a success is distilled too, on its own answer"""

    def asks(self, problems: int) -> list[Asked]:
        attempts, written = problems * self.group, self.writing
        tags = [Asked("tag", problems, written, "passed", "attempt", "text")] if self.tag_successes else []
        return [
            Asked("rollout", attempts),
            Asked("reflect", attempts, written, "failed", "attempt", "text"),
            *tags,
            Asked("curate", problems, written, "failed", "attempt", "text"),
        ]

    def check(self, problems: Sequence[Problem]) -> str:
        scope = self.playbook.scope
        if scope != "run" and not all(problem.part for problem in problems):
            raise UserError(
                f"algorithm.playbook.scope={scope} is for a task of parts: write task=sequence, or scope=run"
            )
        return super().check(problems)


class Algorithm(base.Algorithm[Settings]):
    """The context is the playbook and the solution buffer."""

    papers = ("2605.12741",)

    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.playbook = Playbook(settings.playbook.novelty)
        self.part = ""  # of the last update
        self.solutions = SolutionBuffer(run.speech.chat.thinking_opened)
        self.writer = run.writer(settings.writing)
        self.reflector = Reflector(self.writer, run.prompts, self.writer.budget)
        self.curator = Curator(self.writer, run.prompts, self.writer.budget)
        self.hindsight = run.hindsight(settings.teacher_prompt)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        """One pass of the loop of Algorithm 1; comments name its verbs in the paper's order."""
        playbook, step = self.playbook, self.run.step
        self._open(problems[0].part)

        # P <- Concise(P): drop what misleads, what is stale, what exceeds the budget.
        size = len(playbook)
        self._remove(prune(playbook.entries, step=step, **self._pruning("prune")))

        # Sample y ~ student(x), get feedback and reward from the environment. The student does not read P, but what is
        # asked about an attempt does, and may be asked while other attempts are still being written.
        attempts = self.run.rollout(
            problems, self.settings.group, prompt=self.prompt, writer=self.writer, question=self._question
        )
        failed = [a for a in attempts if not a.passed]
        passed = [a for a in attempts if a.passed]

        # (r, tags) <- Reflect(x, y, feedback, P) on failures; successes only tag the entries that helped.
        for attempt, reflection in zip(failed, self.reflector.reflect(failed, playbook), strict=True):
            attempt.reflection = reflection
        judged = self.reflector.tag(passed, playbook) if self.settings.tag_successes else {}
        unknown = apply_tags(playbook, [(a.id, a.reflection.tags) for a in failed if a.reflection], step)
        unknown += apply_tags(playbook, [(attempt, told.tags) for attempt, told in judged.items()], step)

        # P <- Curate(P, r): add the lessons that are not there yet.
        curation = self.curator.curate(failed, playbook, step)
        if self.settings.playbook.trim_after_curation:
            self._remove(trim(playbook.entries, step=step, **self._pruning("trim")))

        # B <- B + (x, y) for successes: the first of each problem in this batch, over those of earlier updates.
        for attempt in reversed(passed):
            self.solutions.put(attempt.problem.id, attempt.response)

        # Teacher(. | x, P, y, feedback, r, B) scores every token of y, with everything that is known after the update
        # of the context. The student moves toward it, then the teacher's weights follow the student (`base.update`).
        text = playbook.render(self.run.prompts.style)
        solutions = [self._solution(attempt) for attempt in attempts]
        samples = self.hindsight.samples(attempts, solutions, self.settings.success_weighting, text)

        count = self.run.journal.count
        count("reflect/invalid", count_invalid([a.reflection for a in failed]), why=_unread(failed))
        count("tag/invalid", sum(told.invalid for told in judged.values()) + unknown)
        count("curate/invalid", curation.invalid)
        count("reflect/repaired", sum(a.reflection.repaired for a in failed if a.reflection))
        count("tag/repaired", sum(told.repaired for told in judged.values()))
        count("curate/repaired", curation.repaired)
        count("curate/duplicates", curation.duplicates)
        count("playbook/added", len(curation.added))
        count("playbook/removed", size + len(curation.added) - len(playbook))
        self.write_playbook(self.playbook)
        kinds = tally(playbook.entries)
        metrics = {
            "playbook/size": len(playbook),
            "playbook/helpful": kinds["helpful"],
            "playbook/harmful": kinds["harmful"],
            "solutions": len(self.solutions),
        }
        return Observation(attempts, samples, metrics)

    def _open(self, part: str) -> None:
        """Where a block of a sequence begins: the playbook goes on, is emptied, or is that of the part."""
        if part != self.part and self.settings.playbook.scope == "block":
            self._remove([(entry.id, "block") for entry in self.playbook.entries])
        if self.settings.playbook.scope == "part":
            self.playbook.turn(part, self.run.step)
        self.part = part

    def _question(self, attempt: Attempt) -> Question | None:
        """What `Reflect` asks about an attempt as soon as it has a verdict; None if that is nothing, or not known yet.

        Only the first success at a problem tags, and of a later sibling nobody can tell yet whether it is that.
        """
        silent = not self.settings.tag_successes or not len(self.playbook) or attempt.member > 0
        return None if attempt.passed and silent else self.reflector.question(attempt, self.playbook)

    def _solution(self, attempt: Attempt) -> str | None:
        """Its own response if it succeeded, else one that did: a sibling's or, from an earlier update, the buffer's."""
        if not attempt.passed:
            return self.solutions.get(attempt.problem.id)
        return self.hindsight.spoken(attempt) if self.settings.distil_self_success else None

    def _pruning(self, purpose: str) -> dict[str, Any]:
        settings = self.settings.playbook
        shared = {
            "method": settings.concise,
            "budget": settings.max_entries,
            "seed": seeds.derive(self.run.seed, purpose, self.run.step),
        }
        return shared if purpose == "trim" else {**shared, "every": settings.frequency}

    def _remove(self, removals: Removals) -> None:
        for entry_id, reason in removals:
            self.playbook.remove(entry_id, reason, self.run.step)

    def state(self) -> dict[str, Any]:
        return {"playbook": self.playbook.state_dict(), "solutions": self.solutions.state_dict(), "part": self.part}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.restore_playbook(self.playbook, state["playbook"])
        self.solutions.load_state_dict(state["solutions"])
        self.part = state.get("part", "")


def _unread(failed: Sequence[Attempt]) -> str:
    """What one of the unusable reflections looks like."""
    for attempt in failed:
        if attempt.reflection is None:
            return f"attempt {attempt.id} has none"
        if attempt.reflection.invalid:
            return f"attempt {attempt.id}: {attempt.reflection.text[:80]!r}"
    return ""
