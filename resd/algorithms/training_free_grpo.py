"""Training-Free GRPO: a library of rules is learned, the weights stay (arXiv 2510.08191, section 2).

The model answers with the library in sight, `group` times each problem. Where the answers to a problem differ, what the
better ones did is put into words and changes the library (`resd.context.contrast`), in rollouts and evaluations from
the next update on. With `author.path` or `author.url` somebody else finds the words.

    python -m resd.train task=manufactoria algorithm=training_free_grpo inner_updates=1 epochs=3
    python -m resd.evaluate checkpoint=… library=RUN/playbook.jsonl placement=…

Differs from the released code: entries keep their ids, an update or a merge names its parents, a change of an unknown
entry is refused, not an addition; a cap and a floor of what an update must keep; the right answer is not shown to who
compares, only what the verifier said. Not covered: a gate of development problems before a change is taken.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from resd.algorithms import base
from resd.algorithms.grpo import grouped
from resd.context import library
from resd.context.contrast import Contrast
from resd.context.lineage import half_life, rewritten
from resd.context.playbook import Playbook
from resd.context.render import split_problem
from resd.context.revision import revise
from resd.settings import AlgorithmSettings, Fraction, Placement, Positive, SamplingSettings
from resd.types import Attempt, Messages, Observation, Problem, Reflection, UserError

if TYPE_CHECKING:
    from resd.observe.run import Run

PATIENCE = 2  # updates in a row


class Settings(AlgorithmSettings):
    """Training-Free GRPO."""

    name: Literal["training_free_grpo"]
    groups: Literal["mixed", "failed", "all"]
    """whose attempts are compared: those whose rewards differ, those with a failure, or all"""
    rules: Positive
    """how many rules a comparison may state"""
    library: str | None
    """rules to begin with: the playbook.jsonl of a run, or a text file of one a line; null: none"""
    placement: Placement
    """where the rules stand in the student's prompt; template: as a teacher of this project reads them"""
    cap: Positive | None
    """how many rules the library may have; null: any number"""
    floor: Fraction
    """share of the rules that an update must leave as they are"""
    max_churn: Fraction | None
    """the run ends after two updates in a row that change a larger share of the library; null: it does not"""
    writing: SamplingSettings

    @model_validator(mode="after")
    def _differs(self) -> "Settings":
        if self.groups == "mixed" and self.group < 2:
            raise ValueError(
                "algorithm.groups=mixed compares rollouts of one prompt: write algorithm.group=2 or more, "
                "or algorithm.groups=failed"
            )
        return self

    def check(self, problems: Sequence[Problem]) -> str:
        self.begin()
        return super().check(problems)

    def begin(self) -> Playbook:
        """The library at the start. Raises UserError if it cannot be read or is larger than the cap."""
        given = library.given(self.library)
        if self.cap is not None and len(given) > self.cap:
            raise UserError(
                f"algorithm.library has {len(given)} rules, algorithm.cap={self.cap}: raise the cap or shorten the file"
            )
        return given


class Algorithm(base.Algorithm[Settings]):
    """Everything learned is in `library`."""

    learns: ClassVar[bool] = False

    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.library = Playbook()
        for entry in settings.begin().entries:
            self.library.add(entry.section, entry.text, step=0)
        self.events: list[dict[str, Any]] = []
        self.restless = 0
        writer = run.writer(settings.writing)
        self.contrast = Contrast(writer, run.prompts, self._asked, writer.budget)

    def prompt(self, problem: Problem) -> Messages:
        """As the task asks, and the rules besides."""
        return library.told(self.run.task.prompt, self.library, self.settings.placement, self.run.prompts)(problem)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        attempts = self.run.rollout(problems, self.settings.group, prompt=self.prompt)
        groups = {group[0].problem.id: group for group in grouped(attempts) if self._telling(group)}

        # What each attempt did, and what made the difference among those at one problem.
        rules = self.library.render(self.run.prompts.style)
        summaries = self.contrast.summarise(groups)
        for attempt in attempts:
            attempt.reflection = Reflection(summaries[attempt.id], {}) if attempt.id in summaries else None
        lessons = self.contrast.compare(groups, summaries, rules, self.settings.rules)

        # What that changes, each problem by itself against the library as it is; then one list of changes for all.
        decisions = self.contrast.decide(lessons, rules)
        changes = self.contrast.consolidate(decisions.values(), rules, self.settings.cap)
        revision = revise(self.library, changes, self.run.step, cap=self.settings.cap, floor=self.settings.floor)

        count, (faults, mute) = self.run.journal.count, self.contrast.report()
        for name, parts in faults.items():
            count(name, parts)
        for reason in ("unknown", "duplicate", "floor", "cap"):
            count(f"library/refused_{reason}", revision.refused[reason])
        count("playbook/added", len(revision.added))
        count("playbook/removed", len(revision.removed))
        self._write()
        age = half_life(self.events)
        metrics = {
            "playbook/size": len(self.library),
            "library/groups": len(groups),
            "library/churn": revision.churn,
            "library/rewritten": rewritten(self.events),
            **({} if age is None else {"library/half_life": age}),
        }
        return Observation(attempts, [], metrics, stop=self._stop(revision.churn), mute=mute)

    def _telling(self, group: Sequence[Attempt]) -> bool:
        rewards = {attempt.verdict.reward for attempt in group if attempt.verdict}
        return {
            "mixed": len(rewards) > 1,
            "failed": not all(attempt.passed for attempt in group),
            "all": True,
        }[self.settings.groups]

    def _asked(self, problem: Problem) -> str:
        return split_problem(self.run.task.prompt(problem))[1]

    def _stop(self, churn: float) -> str:
        limit = self.settings.max_churn
        self.restless = self.restless + 1 if limit is not None and churn > limit else 0
        if self.restless < PATIENCE:
            return ""
        return f"{PATIENCE} updates in a row changed more than algorithm.max_churn={limit} of the library"

    def _write(self) -> None:
        fresh = self.library.drain_events()
        self.events += fresh
        self.run.write_file("playbook.jsonl", "".join(json.dumps(event) + "\n" for event in fresh), append=True)
        self.run.write_file("playbook.md", self.library.to_markdown())

    def state(self) -> dict[str, Any]:
        return {"playbook": self.library.state_dict(), "events": self.events, "restless": self.restless}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.library.load_state_dict(state["playbook"])
        self.events, self.restless = list(state["events"]), state["restless"]
