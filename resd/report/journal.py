"""What happens in a run besides its metrics: events that are counted, and losses, which are also said.

A loss costs a sample, a lesson or a step, and never the run. The first of each kind is told on the console with what is
known about it, all of them are counted in the metrics of their update, and the sums are told at the end.
"""

from collections import Counter
from collections.abc import Mapping

from rich.markup import escape

from resd.report.log import Log

# What is written, and which parts of it may be unusable.
_WRITTEN: Mapping[str, tuple[str, str, str]] = {
    "reflect": ("reflection", "reflections", "unusable reflections or parts of them"),
    "tag": ("tags", "tags", "unusable tags"),
    "curate": ("curation", "curations", "unusable changes to the playbook"),
    "summarise": ("summaries", "summaries", "summaries that say nothing"),
    "compare": ("comparison", "comparisons", "unusable comparisons or rules of them"),
    "decide": ("decision", "decisions", "unusable decisions or changes of them"),
    "propose": ("proposal", "proposals", "proposals that cannot be read"),
    "consolidate": ("consolidation", "consolidations", "unusable lists of changes or parts of them"),
}
LOSSES: Mapping[str, str] = {
    "rollout/lost": "prompts beyond rollout.max_prompt, not tried",
    "follow/lost": "attempts whose environment failed, left out",
    "verify/lost": "answers without a verdict, left out",
    "teacher/too_long": "problems that do not fit into the teacher's prompt, left out",
    "teacher/truncated": "teacher prompts shortened to fit",
    "teacher/lost": "samples without an answer from the teacher, left out",
    "retry/too_long": "reflections and failures without a retry, whose prompt does not fit, left out",
    "retry/truncated": "prompts for a retry shortened to fit",
    "repair/too_long": "failures without a repair, whose prompt does not fit",
    "pairs/too_long": "pairs beyond model.max_prompt, not learned",
    "propose/duplicate": "proposals that repeat another, not tried",
    "propose/held_out": "proposals that are test problems, left out",
    "update/not_finite": "optimizer steps skipped for a gradient that is not finite",
    "gate/lost": "changes that no problem kept apart could judge, not made",
    "library/refused_unknown": "changes of rules that are not there, not made",
    "library/refused_cap": "changes beyond algorithm.cap, not made",
    "library/refused_floor": "changes that algorithm.floor forbids, not made",
    **{
        f"{role}/{fault}": meaning
        for role, (one, many, unusable) in _WRITTEN.items()
        for fault, meaning in {
            "too_long": f"prompts for {one} beyond model.max_prompt, not asked",
            "invalid": unusable,
            "truncated": f"prompts for {one} shortened to fit",
            "thinking_cut": f"{many} cut inside their thinking",
            "cut": f"{many} cut off, whose last line does not count",
            "lost": f"{many} that the author did not write",
        }.items()
    },
}


class Journal:
    """Counts events by metric name. `step` is the number of the current update, 0 before the first."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.step = 0
        self.interactions = 0
        self.counts: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

    def count(self, name: str, events: int = 1, why: str = "") -> None:
        """Note events that go into this update's metrics, zero included; `why` tells about one of them."""
        self.counts[name] += events
        kind = _kind(name)
        if events and kind is not None:
            if name not in self.lost:
                reason = f": {escape(why)}" if why else ""
                self.log.say(f"[yellow]lost in update {self.step}[/] {events} x {name} ({kind}){reason}")
            self.lost[name] += events

    @property
    def losses(self) -> dict[str, int]:
        """What this update has lost so far."""
        return {name: events for name, events in self.counts.items() if events and _kind(name) is not None}

    def drain(self) -> dict[str, float]:
        """The counts of this update; the next one begins."""
        counts: dict[str, float] = dict(self.counts)
        self.counts.clear()
        return counts

    def conclude(self) -> None:
        """Tell what was lost since the start of this process."""
        if self.lost:
            sums = "; ".join(f"{events} x {name} ({_kind(name)})" for name, events in sorted(self.lost.items()))
            self.log.say(f"[yellow]lost on the way[/] {sums}")


def _kind(name: str) -> str | None:
    if name in LOSSES:
        return LOSSES[name]
    return "prompts beyond the limit, not asked" if name.endswith("/too_long") else None
