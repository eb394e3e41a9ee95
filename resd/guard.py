"""A run that cannot learn does not end well: it is refused at the start, stopped, or told at the end.

With `on_empty=warn` what would stop a run is only said. A run whose engine samples from other weights than the learner
has is stopped too (`max_mismatch`). Whether it learns the right thing is not covered.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from rich.markup import escape

from resd.context.render import split_problem
from resd.observe.run import APART, Run
from resd.report.journal import Journal
from resd.types import Messages, Observation, Problem, Sample, UserError

PATIENCE = 2  # updates without a usable reflection, or without what else was asked


class Guard:
    """Watches what the updates of a run have to learn from; a run that does not `learn` needs no samples."""

    def __init__(
        self,
        journal: Journal,
        on_empty: Literal["stop", "warn"],
        learns: bool = True,
        max_mismatch: float | None = None,
    ) -> None:
        self.journal = journal
        self.max_mismatch = max_mismatch
        self.on_empty = on_empty
        self.learns = learns
        self.updates = self.steps = self.mute = 0

    def check_prompts(
        self, run: Run, problems: Sequence[Problem], test: Sequence[Problem], prompt: Callable[[Problem], Messages]
    ) -> None:
        """Raises UserError if the chat template cannot render the prompts, or cannot go on where the task answers, or
        if no problem fits `rollout.max_prompt`."""
        prompts = [prompt(problem) for problem in (*problems, *test)]
        for messages in prompts:
            split_problem(messages)
        run.speech.chat.check(prompts)
        run.speech.check_turns(problems, prompt)
        shortest = math.inf
        for problem in problems:
            shortest = min(shortest, len(run.speech.draft(problem, prompt(problem), "").prompt_ids))
            if shortest <= run.sampling.max_prompt:
                return
        raise UserError(
            f"no problem fits into rollout.max_prompt={run.sampling.max_prompt} tokens: the shortest prompt "
            f"has {shortest}, write at least that"
        )

    def check(self, observed: Observation) -> str:
        """Why the run has to stop after this update; empty if it need not."""
        self.updates += 1
        self.steps += math.isfinite(observed.metrics.get("grad_norm", 0.0)) and any(s.speaks for s in observed.samples)
        tries = [attempt for attempt in observed.attempts if attempt.first]
        failed = [attempt for attempt in tries if not attempt.passed]
        asked = self.journal.counts["reflect/invalid"] > 0 and bool(failed)
        unread = asked and not any(a.reflection and a.reflection.text for a in observed.attempts)
        mute = "reflection" if unread else observed.mute
        self.mute += bool(mute)
        losses = ", ".join(f"{events} x {name}" for name, events in self.journal.losses.items())
        step = self.journal.step
        solved = bool(tries) and not failed and not observed.samples
        none_needed = solved or observed.gathers
        if self.learns and losses and not none_needed and not any(_usable(sample) for sample in observed.samples):
            return self._say(f"update {step} has no sample to learn from ({losses})")
        if mute and self.mute == PATIENCE:
            otherwise = "use algorithm=sdpo" if mute == "reflection" else observed.otherwise
            return self._say(
                f"{PATIENCE} updates had no usable {mute}, the last is {step} ({losses}): "
                f"look at attempts/ for what the model wrote, or {otherwise}"
            )
        mismatch = observed.metrics.get("mismatch_kl", 0.0)
        if self.max_mismatch is not None and mismatch > self.max_mismatch:
            return (
                f"engine and learner are {mismatch:.3g} nats a token apart in update {step}, more than "
                f"max_mismatch={self.max_mismatch}: {APART}"
            )
        return ""

    def conclude(self) -> None:
        """Raises UserError if no update of this process has moved the student."""
        if self.learns and self.updates and not self.steps:
            nothing = self._say(f"none of the {self.updates} updates had anything to learn from")
            if nothing:
                raise UserError(nothing)

    def _say(self, text: str) -> str:
        """The text, if it ends the run; else it is only said."""
        if self.on_empty == "stop":
            return f"{text}; on_empty=warn goes on all the same"
        self.journal.log.say(f"[yellow]{escape(text)}[/]")
        return ""


def _usable(sample: Sample) -> bool:
    return sample.demonstrates or sample.teacher_prompt_ids is not None or sample.advantage is not None
