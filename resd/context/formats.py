"""How a model writes reflections, tags and playbook operations: as JSON, or as lines for a model too small for JSON.

Both formats read any text without raising: each bad part is counted and skipped, and the good ones survive. JSON can
also be enforced while decoding (`schema`); its bounds hold for unguided output too.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from resd.context.playbook import SECTIONS, one_line
from resd.thinking import strip_thinking
from resd.types import Reflection, Tag

Role = Literal["reflect", "tag", "curate"]
Tags = dict[str, Tag]

MIN_ENTRY_WORDS = 2
MAX_ENTRY_CHARS = 600
MAX_STRING_CHARS = 1500
MAX_OPERATIONS = 8
MAX_TAGS = 64
_ID = re.compile(r"[a-z]{2,5}-[0-9]{5,9}")
_MAX_OBJECT_STARTS = 1000


@dataclass(frozen=True, slots=True)
class Operation:
    """One change to the playbook. Only `add` exists; `parents` are the ids an entry was made from."""

    kind: Literal["add"]
    section: str
    text: str
    parents: tuple[str, ...] = ()


class Format(Protocol):
    """One way of writing. `thinking_opened`: the chat template ends in a start-of-think tag (see `strip_thinking`)."""

    name: str
    thinking_opened: bool

    def schema(self, role: Role) -> dict[str, Any] | None:
        """A JSON schema for guided decoding, or None if any text may be written."""

    def instructions(self, role: Role) -> str:
        """What tells a model how to write."""

    def parse_reflection(self, text: str) -> Reflection:
        """A reflection with an empty text if nothing is usable; then `invalid` is at least 1."""

    def parse_tags(self, text: str) -> tuple[Tags, int]:
        """Tags by entry id (the last one wins), and how many parts were not usable."""

    def parse_operations(self, text: str) -> tuple[list[Operation], int]:
        """Operations in order, and how many parts were not usable."""


def _entry_id(text: Any) -> Any:
    return text.strip(" []()`'\".,;").lower() if isinstance(text, str) else text


def _one_line(text: Any) -> Any:
    return one_line(text) if isinstance(text, str) else text


def _lower(text: Any) -> Any:
    return text.strip().lower() if isinstance(text, str) else text


def _lesson(text: str) -> str:
    """An entry of a single word, or of punctuation, teaches nothing."""
    if len(re.findall(r"\w+", text)) < MIN_ENTRY_WORDS:
        raise ValueError("too few words")
    return text


class _Part(BaseModel):
    """Extra keys are forbidden while decoding and ignored while reading."""

    model_config = ConfigDict(strict=True, extra="ignore", json_schema_extra={"additionalProperties": False})


class _Tag(_Part):
    id: Annotated[str, BeforeValidator(_entry_id), Field(max_length=16)]
    tag: Annotated[Tag, BeforeValidator(_lower)]


class _Add(_Part):
    type: Annotated[Literal["add"], BeforeValidator(_lower)]
    section: Annotated[str, Field(json_schema_extra={"enum": list(SECTIONS)})]
    text: Annotated[
        str, BeforeValidator(_one_line), Field(min_length=1, max_length=MAX_ENTRY_CHARS), AfterValidator(_lesson)
    ]


_String = Annotated[str, Field(max_length=MAX_STRING_CHARS)]


class _Reflect(_Part):
    mistake: _String
    cause: _String
    remedy: _String
    lesson: _String
    tags: Annotated[list[_Tag], Field(max_length=MAX_TAGS)]


class _TagEntries(_Part):
    reason: _String
    tags: Annotated[list[_Tag], Field(max_length=MAX_TAGS)]


class _Curate(_Part):
    reason: _String
    operations: Annotated[list[_Add], Field(max_length=MAX_OPERATIONS)]


_SCHEMAS: Mapping[Role, type[_Part]] = {"reflect": _Reflect, "tag": _TagEntries, "curate": _Curate}
_JSON_INSTRUCTIONS: Mapping[Role, str] = {
    "reflect": """Answer with one JSON object and nothing else:
{"mistake": "what went wrong", "cause": "the decision that led to it", "remedy": "what to do instead on this problem",
"lesson": "the rule that also helps on other problems",
"tags": [{"id": "id of a playbook entry", "tag": "helpful, harmful or neutral"}]}
Tag only entries that mattered here; the list may be empty.""",
    "tag": """Answer with one JSON object and nothing else:
{"reason": "one or two sentences", "tags": [{"id": "id of a playbook entry", "tag": "helpful, harmful or neutral"}]}
Tag only entries that mattered here; the list may be empty.""",
    "curate": f"""Answer with one JSON object and nothing else:
{{"reason": "one or two sentences", "operations": [{{"type": "add", "section": "a section", "text": "the lesson"}}]}}
Sections: {", ".join(SECTIONS)}. At most {MAX_OPERATIONS} operations, each text at most {MAX_ENTRY_CHARS} characters; \
the list may be empty.""",
}
_PartT = TypeVar("_PartT", bound=_Part)


class JsonFormat:
    """One JSON object per output, alone, fenced, or somewhere in the text."""

    name = "json"

    def __init__(self, thinking_opened: bool = False) -> None:
        self.thinking_opened = thinking_opened

    def schema(self, role: Role) -> dict[str, Any] | None:
        return _SCHEMAS[role].model_json_schema()

    def instructions(self, role: Role) -> str:
        return _JSON_INSTRUCTIONS[role]

    def parse_reflection(self, text: str) -> Reflection:
        """Text that holds no such object is still a reflection, only without tags."""
        text = strip_thinking(text, self.thinking_opened)
        found = _first_object(text, "lesson")
        if not text or found is None:
            return Reflection(text, {}, 1)
        tags, invalid = _read_tags(found.get("tags", []))
        return Reflection(text, tags, invalid)

    def parse_tags(self, text: str) -> tuple[Tags, int]:
        found = _first_object(strip_thinking(text, self.thinking_opened), "tags")
        return _read_tags(found["tags"]) if found else ({}, 1)

    def parse_operations(self, text: str) -> tuple[list[Operation], int]:
        found = _first_object(strip_thinking(text, self.thinking_opened), "operations")
        if found is None:
            return [], 1
        adds, invalid = _valid_items(found["operations"], _Add, MAX_OPERATIONS)
        return [Operation(add.type, add.section, add.text) for add in adds], invalid


def _first_object(text: str, key: str) -> dict[str, Any] | None:
    """The first JSON object in `text` that has `key`, whatever stands around it.

    Each opening brace is tried, up to a bound that keeps hostile text from taking quadratic time.
    """
    decoder = json.JSONDecoder()
    for _, start in zip(range(_MAX_OBJECT_STARTS), re.finditer(r"\{", text), strict=False):
        try:
            found, _ = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        if key in found:
            return found
    return None


def _valid_items(items: Any, kind: type[_PartT], limit: int) -> tuple[list[_PartT], int]:
    """The well-formed items among the first `limit`, and how many others there are; a value that is no list is one."""
    if not isinstance(items, list):
        return [], 1
    valid = []
    for item in items[:limit]:
        try:
            valid.append(kind.model_validate(item))
        except ValidationError:
            continue
    return valid, len(items) - len(valid)


def _read_tags(items: Any) -> tuple[Tags, int]:
    parts, invalid = _valid_items(items, _Tag, MAX_TAGS)
    good = [part for part in parts if _ID.fullmatch(part.id)]
    return {part.id: part.tag for part in good}, invalid + len(parts) - len(good)


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

    def parse_reflection(self, text: str) -> Reflection:
        """The text is the output without markers and tag lines, one lesson per line. No lesson counts as one fault."""
        tags, others, invalid = self._split_tags(text)
        lessons = [_LESSON.fullmatch(line) for line in others]
        kept = [lesson[1].strip() if lesson else line for lesson, line in zip(lessons, others, strict=True)]
        found = any(lesson and lesson[1].strip() for lesson in lessons)
        return Reflection("\n".join(line for line in kept if line), tags, invalid + (not found))

    def parse_tags(self, text: str) -> tuple[Tags, int]:
        tags, others, invalid = self._split_tags(text)
        return tags, invalid + len(others)

    def parse_operations(self, text: str) -> tuple[list[Operation], int]:
        operations: list[Operation] = []
        read = invalid = 0
        for line in self._lines(text):
            read += 1
            found = _ADD.fullmatch(line)
            try:
                add = _Add(type="add", section=found[1].strip(), text=found[2]) if found else None
            except ValidationError:
                add = None
            if add and len(operations) < MAX_OPERATIONS:
                operations.append(Operation(add.type, add.section, add.text))
            elif _NONE.fullmatch(line) is None:
                invalid += 1
        return operations, invalid if read else 1

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
            ids = [_entry_id(word) for word in re.split(r"[\s,]+", found[2]) if word and not _NONE.fullmatch(word)]
            good = [id for id in ids if _ID.fullmatch(id)]
            invalid += len(ids) - len(good)
            tags |= {id: _tag_named(found[1]) for id in good}
        return tags, others, invalid


def _tag_named(word: str) -> Tag:
    tags: Mapping[str, Tag] = {tag: tag for tag in get_args(Tag)}
    return tags[word.lower()]


FORMATS: Mapping[str, Callable[[bool], Format]] = {"json": JsonFormat, "lines": LinesFormat}
