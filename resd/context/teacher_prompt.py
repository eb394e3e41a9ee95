"""The self-teacher's prompt: the problem plus what is known in hindsight (paper section 3.3).

Each part can be switched off. RESD uses all of them; SDPO and SDPO+ss have feedback and solution alone, and differ in
the solutions they are given. A demonstration and a hint are there for who gives them (OPSD). A prompt over its budget
is shortened part by part (`shorten`), which leaves the problem and the closing directive whole. Only the last user
message is rewritten; earlier turns stay as they are and are not shortened.
"""

from collections.abc import Callable
from dataclasses import dataclass

from resd.context.render import Prompts, split_problem
from resd.context.shorten import ALL_OR_NOTHING, BEGINNING, BOTH_ENDS, END, ENTRIES, Budget
from resd.turns import spoken
from resd.types import Attempt, Messages


@dataclass(frozen=True, slots=True)
class Parts:
    """What the teacher may see besides the problem. Feedback gives way to a solution unless told otherwise."""

    playbook: bool = True
    previous_trial: bool = True
    feedback: bool = True
    reflection: bool = True
    solution: bool = True
    feedback_with_solution: bool = False


@dataclass(frozen=True, slots=True)
class Composed:
    """A teacher's messages. `parts`: names of what they hold besides the problem. `truncated`: how many parts were
    shortened or dropped."""

    messages: Messages
    parts: frozenset[str]
    truncated: int

    @property
    def privileged(self) -> bool:
        """Whether there is anything about this attempt or problem to distil: the playbook alone does not count."""
        return bool(self.parts - {"playbook", "previous_trial"})


# In order of loss: a long previous trial costs most and is implied by the response that the teacher scores; its answer
# stands at its end. Half a solution would mislead.
_LOSS = {
    "previous_trial": END,
    "playbook": ENTRIES,
    "feedback": BEGINNING,
    "reflection": BEGINNING,
    "solution": ALL_OR_NOTHING,
    "demonstration": ALL_OR_NOTHING,
    "hint": ALL_OR_NOTHING,
}
_LOSS_OF_TURNS = {**_LOSS, "previous_trial": BOTH_ENDS}


class TeacherPrompt:
    """Composes one attempt's teacher prompt within `budget` tokens, as `count` counts the messages' texts.

    Leave room outside the budget for what the chat template adds.
    """

    def __init__(self, prompts: Prompts, parts: Parts, budget: int, count: Callable[[str], int]) -> None:
        self.prompts, self.parts, self.budget = prompts, parts, Budget(budget, count)

    def compose(
        self,
        attempt: Attempt,
        playbook: str = "",
        solution: str | None = None,
        demonstration: str = "",
        hint: str = "",
    ) -> Composed | None:
        """The prompt; the task's own one if there is nothing to add; None if even the problem does not fit.

        `playbook` is `Playbook.render`'s text, `solution` the text of a success without thinking.
        """
        index, problem = split_problem(attempt.prompt)
        others = sum(self.budget.count(m["content"]) for i, m in enumerate(attempt.prompt) if i != index)

        def render(slots: dict[str, str]) -> str:
            return self.prompts.teacher(problem, **slots) if any(slots.values()) else problem

        told = self._fill(attempt, playbook, solution) | {"demonstration": demonstration.strip(), "hint": hint.strip()}
        loss = _LOSS_OF_TURNS if len(attempt.turns) > 1 else _LOSS
        slots, truncated = self.budget.fit(told, loss, render, others)
        text = render(slots)
        if others + self.budget.count(text) > self.budget.tokens:
            return None
        messages = list(attempt.prompt)
        messages[index] = {**messages[index], "content": text}
        return Composed(messages, frozenset(name for name, text in slots.items() if text), truncated)

    def _fill(self, attempt: Attempt, playbook: str, solution: str | None) -> dict[str, str]:
        """The text of each part; empty if it is switched off or there is none."""
        parts = self.parts
        solution = (solution or "") if parts.solution else ""
        said = spoken(attempt, self.prompts.format.thinking_opened)
        feedback = attempt.verdict.feedback if attempt.verdict else ""
        filled = {
            "playbook": playbook if parts.playbook else "",
            "previous_trial": said if parts.previous_trial else "",
            "feedback": feedback if parts.feedback and (parts.feedback_with_solution or not solution) else "",
            "reflection": attempt.reflection.text if parts.reflection and attempt.reflection else "",
            "solution": solution,
        }
        return {name: text.strip() for name, text in filled.items()}
