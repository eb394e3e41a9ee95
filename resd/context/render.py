"""Prompts from plain strings, one method per role, in one of three styles.

`full` is for real models and tells them everything, each part between tags that its content cannot close; `small` is
for real models of less than a billion parameters, to which the turns of an example say more than instructions;
`compact` is for a model of a few million parameters that was pretrained on exactly these texts; what it was not
pretrained on it is asked as `small` models are. What many prompts of one step share (instructions, playbook) comes
first, so that an engine's prefix cache serves it. Optional parts are left out, with what announces them, when they are
empty.

A style is a folder of templates: `ROLE.j2` is the user's message, `ROLE_turns.j2`, if there is one, earlier turns of an
example, each below a line `== user` or `== assistant`, and below `== begun` how the answer begins: a student that has
learned to begin replies in some way would begin what it writes in that way too. What an example says is no lesson: it
is dropped where a model repeats it. The teacher has no example, for what it reads is what the student learns.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from resd.context.formats import JsonFormat, LinesFormat
from resd.context.parts import ROLES, Format, OperationsRead, Role, Stage
from resd.context.playbook import Style, same_words
from resd.types import Messages, Question, Reflection, UserError

PROMPTS = Path(__file__).parent / "prompts"
TURN = 16  # tokens that a chat template adds to a turn, at most
_TURN = re.compile(r"^== (user|assistant|begun)\n", re.MULTILINE)


@cache
def _environment(style: Style) -> Environment:
    return Environment(
        loader=FileSystemLoader([PROMPTS / style, *([PROMPTS / "small"] if style == "compact" else [])]),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _example(style: Style, role: str) -> Messages:
    path = PROMPTS / style / f"{role}_turns.j2"
    pieces = _TURN.split(path.read_text(encoding="utf-8")) if path.is_file() else [""]
    return [{"role": who, "content": text.strip()} for who, text in zip(pieces[1::2], pieces[2::2], strict=True)]


def turns(style: Style, role: str) -> Messages:
    """The turns of the example that come before a question; none for a style without."""
    return [turn for turn in _example(style, role) if turn["role"] != "begun"]


def begun(style: Style, role: str) -> str:
    """How an answer begins, if the style says so."""
    return "".join(turn["content"] for turn in _example(style, role) if turn["role"] == "begun")


class Prompts:
    """The texts of one user message each. `noun` is what a response contains ("program"); see `task.Task.noun`."""

    def __init__(self, style: Style, noun: str, format: Format | None = None) -> None:
        self.style, self.noun = style, noun
        self.format = format or (JsonFormat() if style == "full" else LinesFormat())
        if style != "full" and self.format.name != "lines":
            raise UserError(
                f"{style} prompts ask for lines, not JSON: write model.output_format=lines or model.prompts=full"
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
        demonstration: str = "",
        hint: str = "",
    ) -> str:
        """The problem with everything known about it (paper section 3.3)."""
        slots = {
            "playbook": playbook,
            "problem": problem,
            "previous_trial": previous_trial,
            "feedback": feedback,
            "reflection": reflection,
            "solution": solution,
            "demonstration": demonstration,
            "hint": hint,
        }
        return self._render("teacher", slots)

    def reflect(self, problem: str, response: str, feedback: str, playbook: str = "", earlier: str = "") -> str:
        """Asks why a response failed and which entries helped or misled. `earlier`: see `earlier_turns`."""
        slots = {"playbook": playbook, "earlier": earlier, "problem": problem, "response": response}
        return self._render("reflect", {**slots, "feedback": feedback})

    def tag(self, problem: str, response: str, playbook: str, earlier: str = "") -> str:
        """Asks which entries a successful response bears out."""
        return self._render("tag", {"playbook": playbook, "earlier": earlier, "problem": problem, "response": response})

    def curate(
        self, reflection: str, playbook: str = "", statistics: str = "", problem: str = "", earlier: str = ""
    ) -> str:
        """Asks for entries to add. The curator sees neither the response nor its feedback."""
        slots = {"playbook": playbook, "statistics": statistics, "earlier": earlier, "problem": problem}
        return self._render("curate", {**slots, "reflection": reflection})

    def stage(self, role: Stage, slots: Mapping[str, str]) -> str:
        """One of the four questions of Training-Free GRPO (`resd.context.contrast`)."""
        return self._render(role, slots)

    def question(self, role: Role, key: str, text: str, truncated: bool = False) -> Question:
        """A rendered prompt as one user message after those of the example, with what the format enforces."""
        messages = [*turns(self.style, role), {"role": "user", "content": text}]
        by_line = self.format.by_line(role)
        return Question(role, key, messages, self.format.schema(role), truncated, begun(self.style, role), by_line)

    def taken(self, role: Role, count: Callable[[str], int]) -> int:
        """Tokens of the example before a question, and of the beginning of the answer."""
        return sum(count(turn["content"]) + TURN for turn in _example(self.style, role))

    def reflection(self, output: str) -> Reflection:
        """What an output says; empty and invalid if it repeats the example."""
        read = self.format.parse_reflection(output)
        return Reflection("", {}, read.invalid + 1) if self._is_example(read.text) else read

    def operations(self, output: str) -> OperationsRead:
        """What an output adds, without what repeats the example."""
        read = self.format.parse_operations(output)
        own = [operation for operation in read.operations if not self._is_example(operation.text)]
        return read._replace(operations=own, invalid=read.invalid + len(read.operations) - len(own))

    def _is_example(self, text: str) -> bool:
        lines = [line for role in ROLES for turn in turns(self.style, role) for line in turn["content"].splitlines()]
        return bool(text) and any(same_words(text, line.partition(": ")[2]) for line in lines)

    def _render(self, role: Role | Literal["teacher"], slots: Mapping[str, str]) -> str:
        instructions = "" if role == "teacher" else self.format.instructions(role)
        reminder = "" if role == "teacher" else self.format.reminder(role)
        filled = {name: text.strip() for name, text in slots.items()}
        everything = "\n".join(filled.values())

        def block(name: str, text: str) -> str:
            tag = _free_tag(name, everything)
            return f"<{tag}>\n{text}\n</{tag}>"

        template = _environment(self.style).get_template(f"{role}.j2")
        return template.render(filled, noun=self.noun, instructions=instructions, reminder=reminder, block=block)


def _free_tag(name: str, text: str) -> str:
    """The name, with a number if the text spells a tag of that name."""
    spelled = {int(number or 1) for number in re.findall(rf"</?\s*{name}(?:_([0-9]{{1,9}}))?\b", text, re.IGNORECASE)}
    number = next(number for number in range(1, len(spelled) + 2) if number not in spelled)
    return name if number == 1 else f"{name}_{number}"


def earlier_turns(messages: Messages, index: int) -> str:
    """The messages around the problem, which is that of `index`, as text: the rules that the problem relies on."""
    others = [message for i, message in enumerate(messages) if i != index]
    return "\n\n".join(f"{message['role']}: {message['content'].strip()}" for message in others)


def split_problem(messages: Messages) -> tuple[int, str]:
    """Index and text of the last user message, which is the problem; the others stay as they are."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index]["role"] == "user":
            return index, messages[index]["content"]
    raise UserError("a task's prompt needs a message of the role user that holds the problem")
