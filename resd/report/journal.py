"""What happens in a run besides its metrics: events that are counted, and losses, which are also said.

A loss costs a sample, a lesson or a step, and never the run. The first of each kind is told on the console with what is
known about it, all of them are counted in the metrics of their update, and the sums are told at the end.
"""

from collections import Counter
from collections.abc import Mapping

from rich.markup import escape

from resd.report.log import Log

LOSSES: Mapping[str, str] = {
    "rollout/lost": "prompts beyond rollout.max_prompt, not tried",
    "verify/lost": "answers without a verdict, left out",
    "teacher/too_long": "problems that do not fit into the teacher's prompt, left out",
    "teacher/truncated": "teacher prompts shortened to fit",
    "teacher/lost": "samples without an answer from the teacher, left out",
    "reflect/too_long": "prompts for reflection beyond model.max_prompt, not asked",
    "tag/too_long": "prompts for tags beyond model.max_prompt, not asked",
    "curate/too_long": "prompts for curation beyond model.max_prompt, not asked",
    "reflect/invalid": "unusable reflections or parts of them",
    "tag/invalid": "unusable tags",
    "curate/invalid": "unusable changes to the playbook",
    "reflect/truncated": "prompts for reflection shortened to fit",
    "tag/truncated": "prompts for tags shortened to fit",
    "curate/truncated": "prompts for curation shortened to fit",
    "reflect/thinking_cut": "reflections cut inside their thinking",
    "tag/thinking_cut": "tags cut inside their thinking",
    "curate/thinking_cut": "curations cut inside their thinking",
    "reflect/lost": "reflections that the author did not write",
    "tag/lost": "tags that the author did not write",
    "curate/lost": "curations that the author did not write",
    "retry/too_long": "reflections and failures without a retry, whose prompt does not fit, left out",
    "retry/truncated": "prompts for a retry shortened to fit",
    "update/not_finite": "optimizer steps skipped for a gradient that is not finite",
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
