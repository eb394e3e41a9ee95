"""Training-Free GRPO: a library of rules is learned, the weights stay (arXiv 2510.08191, section 2).

The model answers with the library in sight, `group` times each problem. Where the answers to a problem differ, what the
better ones did is put into words and changes the library (`resd.context.contrast`), in rollouts and evaluations from
the next update on. With `author.path` or `author.url` somebody else finds the words.

    python -m resd.train task=manufactoria algorithm=training_free_grpo inner_updates=1 epochs=3
    python -m resd.evaluate checkpoint=… library=RUN/playbook.jsonl placement=…

Differs from the released code: entries keep their ids, an update or a merge names its parents, a change of an unknown
entry is refused, not an addition; a cap, a floor of what an update must keep, a gate of development problems, and three
rules that end a run (`resd.context.stopping`); the right answer is not shown to who compares, only what the verifier
said.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from resd import seeds
from resd.algorithms import base
from resd.algorithms.grpo import grouped
from resd.context import library
from resd.context.contrast import Contrast
from resd.context.lineage import drift, half_life, rewritten
from resd.context.playbook import Playbook
from resd.context.render import split_problem
from resd.context.revision import Revision, revise
from resd.context.stopping import IN_A_ROW, exhausted, restless
from resd.measure.forgetting import difference
from resd.settings import AlgorithmSettings, Asked, Fraction, Placement, Positive, SamplingSettings
from resd.types import Attempt, Messages, Observation, Problem, Reflection, UserError

if TYPE_CHECKING:
    from resd.observe.run import Run


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
    gate: Positive | None
    """training problems that are kept apart: a library that does worse on them is not taken; null: all are"""
    patience: Positive | None
    """the run ends after so many updates without a larger share of passes; null: it does not"""
    max_churn: Fraction | None
    """the run ends after two updates in a row that change a larger share of the library; null: it does not"""
    max_drift: Fraction | None
    """the run ends when twice in a row a larger share of the library of three updates before is gone; null: never"""
    writing: SamplingSettings

    @model_validator(mode="after")
    def _differs(self) -> "Settings":
        if self.groups == "mixed" and self.group < 2:
            raise ValueError(
                "algorithm.groups=mixed compares rollouts of one prompt: write algorithm.group=2 or more, "
                "or algorithm.groups=failed"
            )
        return self

    def asks(self, problems: int) -> list[Asked]:
        attempts, written = problems * self.group, self.writing
        return [
            Asked("rollout", attempts),
            Asked("summarise", attempts, written, reads="attempt", says="text"),
            Asked("compare", problems, written, reads="attempt", says="text"),
            Asked("decide", problems, written, reads="attempt", says="text"),
            Asked("consolidate", 1, written, reads="batch", says="text"),
            *([Asked("gate", self.gate)] if self.gate else ()),
        ]

    def trains(self, problems: int) -> list[Asked]:
        return []

    def check(self, problems: Sequence[Problem]) -> str:
        self.begin()
        if self.gate is not None and self.gate > len(problems) // 2:
            raise UserError(
                f"algorithm.gate={self.gate} keeps more than half of {len(problems)} training problems apart: lower it"
            )
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
    papers = ("2510.08191",)

    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.library = Playbook()
        for entry in settings.begin().entries:
            self.library.add(entry.section, entry.text, step=0)
        self.events: list[dict[str, Any]] = []
        self.history: dict[str, list[Any]] = {"passed": [], "churn": [], "drift": []}
        self.apart = self._apart()
        self.known: dict[str, float] = {}  # by problem kept apart: the reward with the library as it is
        writer = run.writer(settings.writing)
        self.contrast = Contrast(writer, run.prompts, self._asked, writer.budget)

    def prompt(self, problem: Problem) -> Messages:
        """As the task asks, and the rules besides."""
        return self._told(self.library)(problem)

    def _told(self, rules: Playbook) -> Callable[[Problem], Messages]:
        return library.told(self.run.task.prompt, rules, self.settings.placement, self.run.prompts)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        kept_apart = {problem.id for problem in self.apart}
        problems = [problem for problem in problems if problem.id not in kept_apart]
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
        candidate = deepcopy(self.library)
        revision = revise(candidate, changes, self.run.step, cap=self.settings.cap, floor=self.settings.floor)
        revision, gate = self._gated(candidate, revision)

        count, (faults, mute) = self.run.journal.count, self.contrast.report()
        for name, parts in faults.items():
            count(name, parts)
        for reason in ("unknown", "duplicate", "floor", "cap", "gate"):
            count(f"library/refused_{reason}", revision.refused[reason])
        count("playbook/added", len(revision.added))
        count("playbook/removed", len(revision.removed))
        self.events += self.write_playbook(self.library)
        age, moved = half_life(self.events), drift(self.events, self.run.step)
        metrics = {
            "playbook/size": len(self.library),
            "library/groups": len(groups),
            "library/churn": revision.churn,
            "library/rewritten": rewritten(self.events),
            **({} if age is None else {"library/half_life": age}),
            **({} if moved is None else {"library/drift": moved}),
            **gate,
        }
        seen = {
            "passed": sum(attempt.passed for attempt in attempts) / max(1, len(attempts)),
            "churn": revision.churn,
            "drift": moved,
        }
        for name, value in seen.items():
            self.history[name].append(value)
        return Observation(attempts, [], metrics, stop=self._stop(), mute=mute)

    def _apart(self) -> list[Problem]:
        """Training problems for the gate, by lot."""
        if self.settings.gate is None:
            return []
        drawn = sorted(self.run.task.problems("train"), key=lambda p: seeds.derive(self.run.seed, "gate", p.id))
        return drawn[: self.settings.gate]

    def _gated(self, candidate: Playbook, revision: Revision) -> tuple[Revision, dict[str, float]]:
        """Takes the candidate, or refuses all of it if the problems kept apart get less reward with it, of the same
        seeds, or none of them two verdicts. What was done, and the paired change with its 95 % interval."""
        if not self.apart or not (revision.added or revision.removed):
            self.library = candidate
            return revision, {}
        self.known = self.known or self._rewards(self.library)
        rewards = self._rewards(candidate)
        both = self.known.keys() & rewards.keys()
        why = f"{len(self.known)} of {len(self.apart)} had a verdict before the change and {len(rewards)} after it"
        self.run.journal.count("gate/lost", not both, why)
        names = ("gate/change", "gate/change_low", "gate/change_high")
        change = difference({id: self.known[id] for id in both}, {id: rewards[id] for id in both}) if both else ()
        if change and change[0] >= 0:
            self.library, self.known = candidate, rewards
        else:
            refused = Counter({**revision.refused, "gate": len(revision.added) + len(revision.removed)})
            revision = Revision((), (), refused, 0.0)
        if not both:
            self.known = {}  # asked again at the next change
        return revision, dict(zip(names, change, strict=bool(both)))

    def _rewards(self, rules: Playbook) -> dict[str, float]:
        """What the problems kept apart earn with these rules in sight, by problem."""
        run = self.run
        drafts = run.speech.drafts(self.apart, 1, self._told(rules))
        judged = run.judge(run.speak(drafts, run.sampling, "gate", to_task=True))
        return {attempt.problem.id: attempt.verdict.reward for attempt in judged if attempt.verdict}

    def _telling(self, group: Sequence[Attempt]) -> bool:
        rewards = {attempt.verdict.reward for attempt in group if attempt.verdict}
        return {
            "mixed": len(rewards) > 1,
            "failed": not all(attempt.passed for attempt in group),
            "all": True,
        }[self.settings.groups]

    def _asked(self, problem: Problem) -> str:
        return split_problem(self.run.task.prompt(problem))[1]

    def _stop(self) -> str:
        """Why the run ends, if a rule says so."""
        settings, seen = self.settings, self.history
        if settings.patience is not None and exhausted(seen["passed"], settings.patience):
            return f"no larger share of attempts passed for algorithm.patience={settings.patience} updates"
        if settings.max_churn is not None and restless(seen["churn"], settings.max_churn):
            return (
                f"{IN_A_ROW} updates in a row changed more than algorithm.max_churn={settings.max_churn} of the library"
            )
        if settings.max_drift is not None and restless(seen["drift"], settings.max_drift):
            return f"more than algorithm.max_drift={settings.max_drift} of an earlier library is gone, {IN_A_ROW} times"
        return ""

    def state(self) -> dict[str, Any]:
        return {
            "playbook": self.library.state_dict(),
            "events": self.events,
            "history": self.history,
            "known": self.known,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.restore_playbook(self.library, state["playbook"])
        self.events = list(state["events"])
        self.history = {**self.history, **state.get("history", {})}  # younger than some checkpoints
        self.known = dict(state.get("known", {}))
