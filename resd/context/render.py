"""Prompts from plain strings, one method per role, in one of two styles.

`full` is for real models and tells them everything; `compact` is for a model of a few million parameters that was
pretrained on exactly these texts. What many prompts of one step share (instructions, playbook) comes first, so that an
engine's prefix cache serves it. Optional parts are left out, heading included, when they are empty.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from resd.context.formats import Format, JsonFormat, LinesFormat, Role
from resd.context.playbook import Style
from resd.types import Messages, Question, UserError


@cache
def _environment(style: Style) -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "prompts" / style),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class Prompts:
    """The texts of one user message each. `noun` is what a response contains ("program"); see `task.Task.noun`."""

    def __init__(self, style: Style, noun: str, format: Format | None = None) -> None:
        self.style, self.noun = style, noun
        self.format = format or (LinesFormat() if style == "compact" else JsonFormat())
        if style == "compact" and self.format.name != "lines":
            raise UserError(
                "compact prompts ask for lines, not JSON: write model.output_format=lines or model.prompts=full"
            )

    def teacher(
        self,
        problem: str,
        *,
        playbook: str = "",
        previous_trial: str = "",
        feedback: str = "",
        reflection: str = "",
        solution: str = "",
    ) -> str:
        """The problem with everything known about it (paper section 3.3)."""
        slots = {
            "playbook": playbook,
            "problem": problem,
            "previous_trial": previous_trial,
            "feedback": feedback,
            "reflection": reflection,
            "solution": solution,
        }
        return self._render("teacher", slots)

    def reflect(self, problem: str, response: str, feedback: str, playbook: str = "") -> str:
        """Asks why a response failed and which entries helped or misled."""
        slots = {"playbook": playbook, "problem": problem, "response": response, "feedback": feedback}
        return self._render("reflect", slots)

    def tag(self, problem: str, response: str, playbook: str) -> str:
        """Asks which entries a successful response bears out."""
        return self._render("tag", {"playbook": playbook, "problem": problem, "response": response})

    def curate(self, reflection: str, playbook: str = "", statistics: str = "") -> str:
        """Asks for entries to add. The curator sees neither the response nor its feedback."""
        return self._render("curate", {"playbook": playbook, "statistics": statistics, "reflection": reflection})

    def question(self, role: Role, key: str, text: str) -> Question:
        """A rendered prompt as one user message, with what the format enforces."""
        return Question(role, key, [{"role": "user", "content": text}], self.format.schema(role))

    def _render(self, role: Role | Literal["teacher"], slots: Mapping[str, str]) -> str:
        instructions = "" if role == "teacher" else self.format.instructions(role)
        filled = {name: text.strip() for name, text in slots.items()}
        template = _environment(self.style).get_template(f"{role}.j2")
        return template.render(filled, noun=self.noun, instructions=instructions)


def split_problem(messages: Messages) -> tuple[int, str]:
    """Index and text of the last user message, which is the problem; the others stay as they are."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index]["role"] == "user":
            return index, messages[index]["content"]
    raise UserError("a task's prompt needs a message of the role user that holds the problem")
