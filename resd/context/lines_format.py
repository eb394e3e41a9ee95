"""One statement per line, for a model too small for JSON. Marks of a list or of bold type are no part of a line."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from resd.context.parts import (
    ID,
    MAX_CHANGES,
    MAX_OPERATIONS,
    MAX_RULES,
    SUMMARY,
    AddPart,
    Change,
    ChangePart,
    ChangesRead,
    Operation,
    OperationsRead,
    PartT,
    Role,
    RulePart,
    RulesRead,
    Tags,
    TagsRead,
    entry_id,
)
from resd.context.playbook import SECTIONS
from resd.thinking import strip_thinking
from resd.types import Reflection, Tag

_TAG_LINES = """helpful: <ids of playbook entries>
harmful: <ids of playbook entries>
neutral: <ids of playbook entries>"""
_CHANGE_LINES = f"""Answer with one line per change, or with the single word none:
add: <rule>
update <id>: <new text of the rule>
merge <id> <id>: <one rule that says what these say>
delete <id>
At most {MAX_CHANGES} lines."""
_LINES_INSTRUCTIONS: Mapping[Role, str] = {
    "reflect": f"""Answer in lines of these kinds, leaving out those that do not apply:
lesson: <what went wrong, why, and the rule that helps next time>
{_TAG_LINES}""",
    "tag": f"""Answer in lines of these kinds, leaving out those that do not apply:
{_TAG_LINES}""",
    "curate": f"""Answer with one line per new entry, or with the single word none:
add <section>: <lesson>
Sections: {", ".join(SECTIONS)}. At most {MAX_OPERATIONS} lines.""",
    "summarise": SUMMARY,
    "compare": """Answer with one line per rule, or with the single word none:
rule: <rule>""",
    "decide": _CHANGE_LINES,
    "consolidate": _CHANGE_LINES,
}
# What stands in them for the writer's own words, which a small model may repeat.
_PLACEHOLDERS = {found for text in _LINES_INSTRUCTIONS.values() for found in re.findall(r"(?<=: )<[^<>\n]+>", text)}
_LESSON = re.compile(r"lesson\s*:\s*(.*)", re.IGNORECASE)
_TAG_LINE = re.compile(rf"({'|'.join(get_args(Tag))})\s*:\s*(.*)", re.IGNORECASE)
ItemT = TypeVar("ItemT")
_MARKUP = re.compile(
    r"(?:[-*+•>#]+\s+|\d{1,3}[.)]\s+)?(\*{1,2}|_{1,2}|`)?"
    rf"(?=(?:lesson|{'|'.join(get_args(Tag))}|add|rule|update|merge|delete|none)(?![A-Za-z]))",
    re.IGNORECASE,
)
_NONE = re.compile(r"none\.?", re.IGNORECASE)
_ADD = re.compile(r"add\s+([^:]{1,40}):(.*)", re.IGNORECASE)
_RULE = re.compile(r"rule\s*:\s*(.*)", re.IGNORECASE)
_CHANGE = re.compile(r"(add|update|merge|delete)\b([^:]{0,2000})(?::(.*))?", re.IGNORECASE)


class LinesFormat:
    """One statement per line, each readable on its own.

    Reflecting: `lesson: <text>` one or more times, `helpful: <id> <id>`, `harmful: <id>`, `neutral: <id>`.
    Tagging: the same without lessons. Curating: `add <section>: <text>` lines, or the single line `none`. Comparing:
    `rule: <text>`. Deciding: `add: <text>`, `update <id>: <text>`, `merge <id> <id>: <text>`, `delete <id>`.
    """

    name = "lines"

    def __init__(self, thinking_opened: bool = False) -> None:
        self.thinking_opened = thinking_opened

    def schema(self, role: Role) -> dict[str, Any] | None:
        return None

    def by_line(self, role: Role) -> bool:
        return role != "summarise"

    def instructions(self, role: Role) -> str:
        return _LINES_INSTRUCTIONS[role]

    def reminder(self, role: Role) -> str:
        return (
            SUMMARY
            if role == "summarise"
            else "Answer in lines of the kinds described at the beginning, and nothing else."
        )

    def parse_reflection(self, text: str) -> Reflection:
        """The text is the output without markers and tag lines, one lesson per line. No lesson counts as one fault."""
        tags, others, invalid = self._split_tags(text)
        lessons = [_LESSON.fullmatch(line) for line in others]
        kept = [_own(lesson[1]) if lesson else line for lesson, line in zip(lessons, others, strict=True)]
        found = any(lesson and _own(lesson[1]) for lesson in lessons)
        return Reflection("\n".join(line for line in kept if line), tags, invalid + (not found))

    def parse_tags(self, text: str) -> TagsRead:
        tags, others, invalid = self._split_tags(text)
        return TagsRead(tags, invalid + len(others))

    def parse_operations(self, text: str) -> OperationsRead:
        operations, _, invalid = self._items(text, _operation, MAX_OPERATIONS)
        return OperationsRead(operations, invalid)

    def parse_rules(self, text: str) -> RulesRead:
        rules, read, invalid = self._items(text, _rule, MAX_RULES)
        return RulesRead(rules if read else None, invalid)

    def parse_changes(self, text: str) -> ChangesRead:
        changes, read, invalid = self._items(text, _change, MAX_CHANGES)
        return ChangesRead(changes if read else None, invalid)

    def _items(self, text: str, read: Callable[[str], ItemT | None], limit: int) -> tuple[list[ItemT], bool, int]:
        """What lines say, whether that is an answer (none is one), and how many lines say nothing; silence is one."""
        items: list[ItemT] = []
        invalid, answered = 0, False
        for line in self._lines(text):
            item = read(line)
            if item is not None and len(items) < limit:
                items.append(item)
            elif _NONE.fullmatch(line):
                answered = True
            else:
                invalid += 1
        answered = answered or bool(items)
        return items, answered, invalid + (not answered and not invalid)

    def _lines(self, text: str) -> Iterator[str]:
        lines = (line.strip() for line in strip_thinking(text, self.thinking_opened).splitlines())
        return (_unmarked(line) for line in lines if line.strip("`"))

    def _split_tags(self, text: str) -> tuple[Tags, Sequence[str], int]:
        """Tags, the lines that are no tag lines, and the number of ids that are none."""
        tags: Tags = {}
        others, invalid = [], 0
        for line in self._lines(text):
            found = _TAG_LINE.fullmatch(line)
            if not found:
                others.append(line)
                continue
            ids = [entry_id(word) for word in _words(found[2]) if not _NONE.fullmatch(word)]
            good = [id for id in ids if ID.fullmatch(id)]
            invalid += len(ids) - len(good)
            tags |= {id: _tag_named(found[1]) for id in good}
        return tags, others, invalid


def _unmarked(line: str) -> str:
    found = _MARKUP.match(line)
    if not found:
        return line
    return line[found.end() :].replace(found[1], "", 1) if found[1] else line[found.end() :]


def _own(text: str) -> str:
    """What somebody wrote; nothing, if it is what our instructions have in its place."""
    return "" if text.strip() in _PLACEHOLDERS else text.strip()


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", text) if word not in ("", "and", "&", "+")]


def _operation(line: str) -> Operation | None:
    found = _ADD.fullmatch(line)
    add = _valid(AddPart, section=found[1].strip(), text=_own(found[2])) if found else None
    return Operation(add.type, add.section, add.text) if add else None


def _rule(line: str) -> str | None:
    found = _RULE.fullmatch(line)
    rule = _valid(RulePart, text=_own(found[1])) if found else None
    return rule.text if rule else None


def _change(line: str) -> Change | None:
    found = _CHANGE.fullmatch(line)
    if not found:
        return None
    ids = [entry_id(word) for word in _words(found[2])]
    part = _valid(ChangePart, type=found[1], ids=ids, text=_own(found[3] or ""))
    return part.change if part else None


def _valid(kind: type[PartT], **values: Any) -> PartT | None:
    try:
        return kind(**values)
    except ValidationError:
        return None


def _tag_named(word: str) -> Tag:
    tags: Mapping[str, Tag] = {tag: tag for tag in get_args(Tag)}
    return tags[word.lower()]
