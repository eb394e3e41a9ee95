"""The self-teacher's prompt: the problem plus what is known in hindsight (paper section 3.3).

Each part can be switched off. RESD uses all of them; SDPO and SDPO+ss have feedback and solution alone, and differ in
the solutions they are given. A prompt over its budget is shortened part by part and line by line, which leaves the
problem and the closing directive whole. Only the last user message is rewritten; earlier turns stay as they are and are
not shortened.
"""

from collections.abc import Callable
from dataclasses import dataclass

from resd.context.render import Prompts, split_problem
from resd.thinking import strip_thinking
from resd.types import Attempt, Messages

CUT_MARK = "[...]"


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
    """A teacher's messages.

    `privileged`: they hold a solution, feedback or a reflection; a sample without any has nothing to distil, and the
    playbook alone does not count. `truncated`: how many parts were shortened or dropped to fit.
    """

    messages: Messages
    privileged: bool
    truncated: int


def _first_lines(text: str, lines: int) -> str:
    return "\n".join([*text.splitlines()[:lines], CUT_MARK]) if lines else ""


def _last_lines(text: str, lines: int) -> str:
    return "\n".join([CUT_MARK, *text.splitlines()[-lines:]]) if lines else ""


def _first_entries(text: str, lines: int) -> str:
    kept = text.splitlines()[:lines]
    while kept and (not kept[-1] or kept[-1].startswith("#")):  # a heading without entries
        kept.pop()
    return "\n".join(kept)


def _nothing(text: str, lines: int) -> str:
    return ""


# In order of loss: a long previous trial costs most and is implied by the response that the teacher scores; its answer
# stands at its end. Half a solution would mislead.
_SHORTENERS: dict[str, Callable[[str, int], str]] = {
    "previous_trial": _last_lines,
    "playbook": _first_entries,
    "feedback": _first_lines,
    "reflection": _first_lines,
    "solution": _nothing,
}


class TeacherPrompt:
    """Composes one attempt's teacher prompt within `budget` tokens, as `count` counts the messages' texts.

    Leave room outside the budget for what the chat template adds.
    """

    def __init__(self, prompts: Prompts, parts: Parts, budget: int, count: Callable[[str], int]) -> None:
        self.prompts, self.parts, self.budget, self.count = prompts, parts, budget, count

    def compose(self, attempt: Attempt, playbook: str = "", solution: str | None = None) -> Composed | None:
        """The prompt; the task's own one if there is nothing to add; None if even the problem does not fit.

        `playbook` is `Playbook.render`'s text, `solution` the text of a success without thinking.
        """
        index, problem = split_problem(attempt.prompt)
        others = sum(self.count(m["content"]) for i, m in enumerate(attempt.prompt) if i != index)
        slots, truncated = self._fit(problem, self._fill(attempt, playbook, solution), self.budget - others)
        text = self.prompts.teacher(problem, **slots) if any(slots.values()) else problem
        if others + self.count(text) > self.budget:
            return None
        messages = list(attempt.prompt)
        messages[index] = {**messages[index], "content": text}
        privileged = any(slots[name] for name in ("solution", "feedback", "reflection"))
        return Composed(messages, privileged, truncated)

    def _fill(self, attempt: Attempt, playbook: str, solution: str | None) -> dict[str, str]:
        """The text of each part; empty if it is switched off or there is none."""
        parts = self.parts
        solution = (solution or "") if parts.solution else ""
        said = strip_thinking(attempt.response, self.prompts.format.thinking_opened)
        feedback = attempt.verdict.feedback if attempt.verdict else ""
        filled = {
            "playbook": playbook if parts.playbook else "",
            "previous_trial": said if parts.previous_trial else "",
            "feedback": feedback if parts.feedback and (parts.feedback_with_solution or not solution) else "",
            "reflection": attempt.reflection.text if parts.reflection and attempt.reflection else "",
            "solution": solution,
        }
        return {name: text.strip() for name, text in filled.items()}

    def _fit(self, problem: str, slots: dict[str, str], room: int) -> tuple[dict[str, str], int]:
        """The slots shortened until the prompt fits, if it can, and how many were shortened."""

        def fits(name: str, text: str) -> bool:
            return self.count(self.prompts.teacher(problem, **{**slots, name: text})) <= room

        truncated = 0
        for name, shorten in _SHORTENERS.items():
            whole = slots[name]
            if not whole:
                continue
            if fits(name, whole):
                break
            low, high = 0, len(whole.splitlines())  # `low` lines fit, or none do; `high` lines do not
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if fits(name, shorten(whole, middle)) else (low, middle)
            slots = {**slots, name: shorten(whole, low)}
            truncated += 1
        return slots, truncated
