"""What reflections, tags and changes of a playbook or a library consist of, and what a format of writing them is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from resd.context.playbook import SECTIONS, one_line
from resd.types import Reflection, Tag

Stage = Literal["summarise", "compare", "decide", "consolidate"]
Role = Literal["reflect", "tag", "curate"] | Stage
ROLES: tuple[Role, ...] = get_args(get_args(Role)[0])
STAGES: tuple[Stage, ...] = get_args(Stage)
Tags = dict[str, Tag]

MIN_ENTRY_WORDS = 2
MAX_ENTRY_CHARS = 600
MAX_STRING_CHARS = 1500
MAX_OPERATIONS = 8
MAX_TAGS = 64
MAX_RULES = 8
MAX_CHANGES = 32
SUMMARY = "Answer in at most five sentences of plain text."
ID = re.compile(r"[a-z]{2,5}-[0-9]{5,9}")
ID_INSIDE = re.compile(rf"(?<![\w-]){ID.pattern}(?![\w-])")


@dataclass(frozen=True, slots=True)
class Operation:
    """One change to the playbook. Only `add` exists; `parents` are the ids an entry was made from."""

    kind: Literal["add"]
    section: str
    text: str
    parents: tuple[str, ...] = ()


class TagsRead(NamedTuple):
    """Tags by entry id (the last one wins), how many parts were not usable, and whether slips were mended."""

    tags: Tags
    invalid: int = 0
    repaired: int = 0


class OperationsRead(NamedTuple):
    """Operations in order, how many parts were not usable, and whether slips were mended."""

    operations: list[Operation]
    invalid: int = 0
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A text in the place of entries: of none (it is added), of one, of several (they are merged). No text: deleted."""

    text: str
    replaces: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        if not self.text:
            return "delete"
        return ("add", "update", "merge")[min(len(self.replaces), 2)]

    def __str__(self) -> str:
        return " ".join([self.kind, *self.replaces]) + (f": {self.text}" if self.text else "")


class RulesRead(NamedTuple):
    """Rules in order, None if nothing could be read; unusable parts; whether slips were mended."""

    rules: list[str] | None
    invalid: int = 0
    repaired: int = 0


class ChangesRead(NamedTuple):
    """Changes in order, None if nothing could be read; unusable parts; whether slips were mended."""

    changes: list[Change] | None
    invalid: int = 0
    repaired: int = 0


class Format(Protocol):
    """One way of writing. `thinking_opened`: the chat template ends in a start-of-think tag (see `strip_thinking`)."""

    name: str
    thinking_opened: bool

    def schema(self, role: Role) -> dict[str, Any] | None:
        """A JSON schema for guided decoding, or None if any text may be written."""

    def by_line(self, role: Role) -> bool:
        """Whether each line is a statement of its own."""

    def instructions(self, role: Role) -> str:
        """What tells a model how to write."""

    def reminder(self, role: Role) -> str:
        """The form once more, in one sentence at the end of a long prompt."""

    def parse_reflection(self, text: str) -> Reflection:
        """A reflection with an empty text if nothing is usable; then `invalid` is at least 1."""

    def parse_tags(self, text: str) -> TagsRead: ...

    def parse_operations(self, text: str) -> OperationsRead: ...

    def parse_rules(self, text: str) -> RulesRead: ...

    def parse_changes(self, text: str) -> ChangesRead: ...


def entry_id(text: Any) -> Any:
    return text.strip(" []()<>*`'\".,;").lower() if isinstance(text, str) else text


def _one_line(text: Any) -> Any:
    return one_line(text) if isinstance(text, str) else text


def _lower(text: Any) -> Any:
    return text.strip().lower() if isinstance(text, str) else text


def _lesson(text: str) -> str:
    """An entry of a single word, or of punctuation, teaches nothing."""
    if len(re.findall(r"\w+", text)) < MIN_ENTRY_WORDS:
        raise ValueError("too few words")
    return text


class Part(BaseModel):
    """Extra keys are forbidden while decoding and ignored while reading."""

    model_config = ConfigDict(strict=True, extra="ignore", json_schema_extra={"additionalProperties": False})


class TagPart(Part):
    id: Annotated[str, BeforeValidator(entry_id), Field(json_schema_extra={"maxLength": 16})]
    tag: Annotated[Tag, BeforeValidator(_lower)]


_Entry = Annotated[
    str, BeforeValidator(_one_line), Field(min_length=1, max_length=MAX_ENTRY_CHARS), AfterValidator(_lesson)
]


class AddPart(Part):
    type: Annotated[Literal["add"], BeforeValidator(_lower)] = "add"
    section: Annotated[str, Field(json_schema_extra={"enum": list(SECTIONS)})]
    text: _Entry


class RulePart(Part):
    text: _Entry


_REPLACED = {"add": (0, 0), "update": (1, 1), "merge": (2, MAX_TAGS), "delete": (1, MAX_TAGS)}  # fewest and most


class ChangePart(Part):
    """`text` is empty where entries are deleted, `ids` where one is added."""

    type: Annotated[Literal["add", "update", "merge", "delete"], BeforeValidator(_lower)]
    ids: Annotated[list[Annotated[str, BeforeValidator(entry_id), Field(max_length=16)]], Field(max_length=MAX_TAGS)]
    text: Annotated[str, BeforeValidator(_one_line), Field(max_length=MAX_ENTRY_CHARS)] = ""

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        ids = value.get("ids", value.get("id"))
        listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
        inside = [ID_INSIDE.findall(id.lower()) if isinstance(id, str) else [] for id in listed]
        found = [id for written, ids in zip(listed, inside, strict=True) for id in ids or [written]]
        return {**value, "ids": found, "text": "" if value.get("text") is None else value["text"]}

    @model_validator(mode="after")
    def _whole(self) -> "ChangePart":
        least, most = _REPLACED[self.type]
        replaced = self.change.replaces
        if not least <= len(replaced) <= most or not all(map(ID.fullmatch, replaced)):
            raise ValueError("not the entries that such a change replaces")
        if self.type != "delete":
            _lesson(self.text)
        return self

    @property
    def change(self) -> Change:
        text = "" if self.type == "delete" else self.text
        return Change(text, () if self.type == "add" else tuple(dict.fromkeys(self.ids)))


_String = Annotated[str, Field(max_length=MAX_STRING_CHARS)]


class _Reflect(Part):
    mistake: _String
    cause: _String
    remedy: _String
    lesson: _String
    tags: Annotated[list[TagPart], Field(max_length=MAX_TAGS)]


class _TagEntries(Part):
    reason: _String
    tags: Annotated[list[TagPart], Field(max_length=MAX_TAGS)]


class _Curate(Part):
    reason: _String
    operations: Annotated[list[AddPart], Field(max_length=MAX_OPERATIONS)]


class _Compare(Part):
    reason: _String
    rules: Annotated[list[_Entry], Field(max_length=MAX_RULES)]


class _Change(Part):
    reason: _String
    changes: Annotated[list[ChangePart], Field(max_length=MAX_CHANGES)]


# A summary has none: any text is one.
SCHEMAS: Mapping[Role, type[Part]] = {
    "reflect": _Reflect,
    "tag": _TagEntries,
    "curate": _Curate,
    "compare": _Compare,
    "decide": _Change,
    "consolidate": _Change,
}
PartT = TypeVar("PartT", bound=Part)


def valid_items(items: Any, kind: type[PartT], limit: int) -> tuple[list[PartT], int]:
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
