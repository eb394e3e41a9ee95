"""Text in the place of an advantage: the four questions of Training-Free GRPO (arXiv 2510.08191, section 2).

Each attempt is summarised, the attempts at a problem are compared, what a comparison states is turned into changes of
the library, and the changes of all problems into one list. What cannot be read is counted and changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from resd.context.parts import Change, Stage
from resd.context.render import Prompts
from resd.context.shorten import BEGINNING, END, ENTRIES, Budget, Part, Slots
from resd.thinking import strip_thinking
from resd.turns import spoken
from resd.types import Attempt, Generate, Problem, Question

T = TypeVar("T")
Read = tuple[T | None, int, int]  # an answer, its unusable parts, whether slips were mended
Groups = Mapping[str, Sequence[Attempt]]  # by problem id

_NAMES: Mapping[Stage, str] = {
    "summarise": "summary",
    "compare": "comparison",
    "decide": "decision",
    "consolidate": "consolidation",
}
TRIES = 3  # at the last question, on which all before it hang
# In order of loss.
_LOSS: Mapping[Stage, Mapping[str, Part]] = {
    "summarise": {"response": END, "feedback": BEGINNING},
    "compare": {"playbook": ENTRIES, "attempts": BEGINNING},
    "decide": {"playbook": ENTRIES, "lessons": BEGINNING},
    "consolidate": {"changes": BEGINNING, "playbook": ENTRIES},
}


class Contrast:
    """`asked` is the text of a problem. Unusable and mended parts of answers are counted by metric name."""

    def __init__(
        self, generate: Generate, prompts: Prompts, asked: Callable[[Problem], str], budget: Budget | None = None
    ) -> None:
        self.generate, self.prompts, self.asked, self.budget = generate, prompts, asked, budget
        self.counts: Counter[str] = Counter()
        self.mute = ""

    def summarise(self, groups: Groups) -> dict[str, str]:
        """What each attempt did, by attempt id."""
        opened = self.prompts.format.thinking_opened

        def read(text: str) -> Read[str]:
            summary = strip_thinking(text, opened)
            return summary or None, int(not summary), 0

        slots = {
            attempt.id: {
                "problem": self.asked(attempt.problem),
                "response": spoken(attempt, opened),
                "outcome": _outcome(attempt),
                "feedback": attempt.verdict.feedback if attempt.verdict else "",
            }
            for group in groups.values()
            for attempt in group
        }
        return self._ask("summarise", slots, read)

    def compare(self, groups: Groups, summaries: Mapping[str, str], rules: str, limit: int) -> dict[str, list[str]]:
        """At most `limit` rules that the attempts at a problem teach, by problem id; `rules` are the library's."""
        slots = {
            id: {
                "playbook": rules,
                "problem": self.asked(group[0].problem),
                "attempts": "\n".join(
                    f"Attempt {number}, which {_outcome(attempt)}: {summaries[attempt.id]}"
                    for number, attempt in enumerate(group, 1)
                    if attempt.id in summaries
                ),
                "limit": str(limit),
            }
            for id, group in groups.items()
            if any(attempt.id in summaries for attempt in group)
        }
        read = self._ask("compare", slots, self.prompts.format.parse_rules)
        return {id: stated[:limit] for id, stated in read.items() if stated}

    def decide(self, lessons: Mapping[str, Sequence[str]], rules: str) -> dict[str, list[Change]]:
        """What the rules learned at each problem change in the library as it is, by problem id."""
        slots = {id: {"playbook": rules, "lessons": _lines(stated)} for id, stated in lessons.items()}
        return self._ask("decide", slots, self.prompts.format.parse_changes)

    def consolidate(self, decisions: Iterable[Sequence[Change]], rules: str, cap: int | None) -> list[Change]:
        """One list of all changes; none if it cannot be read after some tries."""
        wanted = Counter(str(change) for changes in decisions for change in changes)
        if not wanted:
            return []
        changes = "\n".join(f"{times} x {change}" for change, times in wanted.most_common())
        slots = {"playbook": rules, "changes": changes, "limit": str(cap or "")}
        for number in range(1, TRIES + 1):
            key = f"all/{number}"
            if key in (settled := self._ask("consolidate", {key: slots}, self.prompts.format.parse_changes)):
                return settled[key]
        return []

    def report(self) -> tuple[Counter[str], str]:
        """What was counted since the last report, and the last question if no answer to it was usable."""
        said = self.counts, self.mute
        self.counts, self.mute = Counter(), ""
        return said

    def _ask(self, role: Stage, slots: Mapping[str, Slots], read: Callable[[str], Read[T]]) -> dict[str, T]:
        """Answers by key, without those that are lost or say nothing."""
        outputs = self.generate([self._question(role, key, each) for key, each in slots.items()])
        answers: dict[str, T] = {}
        for key, output in zip(slots, outputs, strict=True):
            answer, invalid, repaired = (None, 1, 0) if output is None else read(output)
            self.counts.update({f"{role}/invalid": invalid, f"{role}/repaired": repaired})
            if answer is not None:
                answers[key] = answer
        if slots:
            self.mute = "" if answers else _NAMES[role]
        return answers

    def _question(self, role: Stage, key: str, slots: Slots) -> Question:
        def render(shortened: Slots) -> str:
            return self.prompts.stage(role, {**slots, **shortened})

        room, truncated = {name: slots[name] for name in _LOSS[role]}, 0
        if self.budget:
            room, truncated = self.budget.fit(room, _LOSS[role], render)
        return self.prompts.question(role, key, render(room), truncated > 0)


def _outcome(attempt: Attempt) -> str:
    """In words; a graded reward is told where it says more than passed or failed."""
    reward = attempt.verdict.reward if attempt.verdict else 0.0
    word = "passed" if attempt.passed else "failed"
    return word if reward == attempt.passed else f"{word} with a reward of {reward:.2g}"


def _lines(rules: Iterable[str]) -> str:
    return "\n".join(f"- {rule}" for rule in rules)
