"""One statement per line, for a model too small for JSON."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from resd.context.parts import ID, MAX_OPERATIONS, AddPart, Operation, OperationsRead, Role, Tags, TagsRead, entry_id
from resd.context.playbook import SECTIONS
from resd.thinking import strip_thinking
from resd.types import Reflection, Tag

_TAG_LINES = """helpful: <ids of playbook entries>
harmful: <ids of playbook entries>
neutral: <ids of playbook entries>"""
_LINES_INSTRUCTIONS: Mapping[Role, str] = {
    "reflect": f"""Answer in lines of these kinds, leaving out those that do not apply:
lesson: <what went wrong, why, and the rule that helps next time>
{_TAG_LINES}""",
    "tag": f"""Answer in lines of these kinds, leaving out those that do not apply:
{_TAG_LINES}""",
    "curate": f"""Answer with one line per new entry, or with the single word none:
add <section>: <lesson>
Sections: {", ".join(SECTIONS)}. At most {MAX_OPERATIONS} lines.""",
}
_LESSON = re.compile(r"lesson\s*:\s*(.*)", re.IGNORECASE)
_TAG_LINE = re.compile(rf"({'|'.join(get_args(Tag))})\s*:\s*(.*)", re.IGNORECASE)
_NONE = re.compile(r"none\.?", re.IGNORECASE)
_ADD = re.compile(r"add\s+([^:]{1,40}):(.*)", re.IGNORECASE)


class LinesFormat:
    """One statement per line, each readable on its own.

    Reflecting: `lesson: <text>` one or more times, `helpful: <id> <id>`, `harmful: <id>`, `neutral: <id>`.
    Tagging: the same without lessons. Curating: `add <section>: <text>` lines, or the single line `none`.
    """

    name = "lines"

    def __init__(self, thinking_opened: bool = False) -> None:
        self.thinking_opened = thinking_opened

    def schema(self, role: Role) -> dict[str, Any] | None:
        return None

    def instructions(self, role: Role) -> str:
        return _LINES_INSTRUCTIONS[role]

    def reminder(self, role: Role) -> str:
        return "Answer in lines of the kinds described at the beginning, and nothing else."

    def parse_reflection(self, text: str) -> Reflection:
        """The text is the output without markers and tag lines, one lesson per line. No lesson counts as one fault."""
        tags, others, invalid = self._split_tags(text)
        lessons = [_LESSON.fullmatch(line) for line in others]
        kept = [lesson[1].strip() if lesson else line for lesson, line in zip(lessons, others, strict=True)]
        found = any(lesson and lesson[1].strip() for lesson in lessons)
        return Reflection("\n".join(line for line in kept if line), tags, invalid + (not found))

    def parse_tags(self, text: str) -> TagsRead:
        tags, others, invalid = self._split_tags(text)
        return TagsRead(tags, invalid + len(others))

    def parse_operations(self, text: str) -> OperationsRead:
        operations: list[Operation] = []
        read = invalid = 0
        for line in self._lines(text):
            read += 1
            found = _ADD.fullmatch(line)
            try:
                add = AddPart(type="add", section=found[1].strip(), text=found[2]) if found else None
            except ValidationError:
                add = None
            if add and len(operations) < MAX_OPERATIONS:
                operations.append(Operation(add.type, add.section, add.text))
            elif _NONE.fullmatch(line) is None:
                invalid += 1
        return OperationsRead(operations, invalid if read else 1)

    def _lines(self, text: str) -> Iterator[str]:
        lines = (line.strip() for line in strip_thinking(text, self.thinking_opened).splitlines())
        return (line for line in lines if line)

    def _split_tags(self, text: str) -> tuple[Tags, Sequence[str], int]:
        """Tags, the lines that are no tag lines, and the number of ids that are none."""
        tags: Tags = {}
        others, invalid = [], 0
        for line in self._lines(text):
            found = _TAG_LINE.fullmatch(line)
            if not found:
                others.append(line)
                continue
            ids = [entry_id(word) for word in re.split(r"[\s,]+", found[2]) if word and not _NONE.fullmatch(word)]
            good = [id for id in ids if ID.fullmatch(id)]
            invalid += len(ids) - len(good)
            tags |= {id: _tag_named(found[1]) for id in good}
        return tags, others, invalid


def _tag_named(word: str) -> Tag:
    tags: Mapping[str, Tag] = {tag: tag for tag in get_args(Tag)}
    return tags[word.lower()]
