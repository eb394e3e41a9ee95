"""One JSON object per answer, enforced while decoding where an engine can.

Of several objects the last that fits is meant; an echo of our own example beats no answer before or after it. Slips are
mended (`loose_json`) and counted.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from resd.context.loose_json import MAX_CHARS, Found, LooseJson
from resd.context.parts import (
    ID_INSIDE,
    MAX_CHANGES,
    MAX_ENTRY_CHARS,
    MAX_OPERATIONS,
    MAX_RULES,
    MAX_TAGS,
    SCHEMAS,
    SUMMARY,
    AddPart,
    ChangePart,
    ChangesRead,
    Operation,
    OperationsRead,
    Role,
    RulePart,
    RulesRead,
    TagPart,
    Tags,
    TagsRead,
    valid_items,
)
from resd.context.playbook import SECTIONS
from resd.thinking import CLOSE, OPEN, strip_thinking
from resd.types import Reflection

_FIELDS = {
    "mistake": "what went wrong",
    "cause": "the decision that led to it",
    "remedy": "what to do instead on this problem",
    "lesson": "the rule that also helps on other problems",
}
_EXAMPLE_ENTRY = "the lesson"
_EXAMPLE_RULE = "the rule"
_EXAMPLE_ID = "id of a playbook entry"
_EXAMPLES = {*_FIELDS.values(), _EXAMPLE_ENTRY, _EXAMPLE_RULE, _EXAMPLE_ID}
_CHANGES = f"""Answer with one JSON object and nothing else:
{{"reason": "one or two sentences",
"changes": [{{"type": "add, update, merge or delete", "ids": ["id of an entry"], "text": "{_EXAMPLE_RULE}"}}]}}
add: a new text, no ids. update: one id and its new text. merge: the ids of several and one text for them. \
delete: ids, an empty text. At most {MAX_CHANGES} changes, each text at most {MAX_ENTRY_CHARS} characters; the list \
may be empty."""
_JSON_INSTRUCTIONS: Mapping[Role, str] = {
    "reflect": f"""Answer with one JSON object and nothing else:
{{{", ".join(f'"{name}": "{example}"' for name, example in _FIELDS.items())},
"tags": [{{"id": "{_EXAMPLE_ID}", "tag": "helpful, harmful or neutral"}}]}}
Tag only entries that mattered here; the list may be empty.""",
    "tag": f"""Answer with one JSON object and nothing else:
{{"reason": "one or two sentences", "tags": [{{"id": "{_EXAMPLE_ID}", "tag": "helpful, harmful or neutral"}}]}}
Tag only entries that mattered here; the list may be empty.""",
    "curate": f"""Answer with one JSON object and nothing else:
{{"reason": "one or two sentences",
"operations": [{{"type": "add", "section": "a section", "text": "{_EXAMPLE_ENTRY}"}}]}}
Sections: {", ".join(SECTIONS)}. At most {MAX_OPERATIONS} operations, each text at most {MAX_ENTRY_CHARS} characters; \
the list may be empty.""",
    "summarise": SUMMARY,
    "compare": f"""Answer with one JSON object and nothing else:
{{"reason": "one or two sentences", "rules": ["{_EXAMPLE_RULE}"]}}
Each rule at most {MAX_ENTRY_CHARS} characters; the list may be empty.""",
    "decide": _CHANGES,
    "consolidate": _CHANGES,
}
_RAW_JSON = re.compile(r"(?:```\w*\s*)?[{\[]")


class JsonFormat:
    """One JSON object per output, alone, fenced, or somewhere in the text."""

    name = "json"

    def __init__(self, thinking_opened: bool = False) -> None:
        self.thinking_opened = thinking_opened

    def by_line(self, role: Role) -> bool:
        return False

    def schema(self, role: Role) -> dict[str, Any] | None:
        if role not in SCHEMAS:
            return None
        schema = SCHEMAS[role].model_json_schema()
        for part in (schema, *schema.get("$defs", {}).values()):  # what may be missing while reading must be written
            part["required"] = list(part["properties"])
        return schema

    def instructions(self, role: Role) -> str:
        return _JSON_INSTRUCTIONS[role]

    def reminder(self, role: Role) -> str:
        if role not in SCHEMAS:
            return SUMMARY
        keys = [f'"{key}"' for key in SCHEMAS[role].model_fields]
        return f"Answer with one JSON object that has the keys {', '.join(keys[:-1])} and {keys[-1]}, and nothing else."

    def parse_reflection(self, text: str) -> Reflection:
        """The object's fields as prose. Text without any trace of JSON is still a reflection, only without tags."""
        text = self._spoken(text, _FIELDS)
        objects = LooseJson(text, _FIELDS).objects
        found = _last(objects, "lesson", str) or next(filter(_prose, reversed(objects)), None)
        if found is None:
            return Reflection("" if objects or _RAW_JSON.match(text) else text, {}, 1)
        prose = _prose(found)
        listed = found.value.get("tags", [])
        tags = _read_tags([] if listed is None and not found.closed else listed)
        return Reflection(prose, tags.tags, tags.invalid + (not prose), int(found.repaired or tags.repaired > 0))

    def parse_tags(self, text: str) -> TagsRead:
        found = _last(LooseJson(self._spoken(text, ["tags"]), ["tags"]).objects, "tags", list)
        if found is None:
            return TagsRead({}, 1)
        tags = _read_tags(found.value["tags"])
        return tags._replace(repaired=int(found.repaired or tags.repaired > 0))

    def parse_operations(self, text: str) -> OperationsRead:
        found = _last(LooseJson(self._spoken(text, ["operations"]), ["operations"]).objects, "operations", list)
        if found is None:
            return OperationsRead([], 1)
        items = found.value["operations"]
        adds, invalid = valid_items(items, AddPart, MAX_OPERATIONS)
        own = [add for add in adds if add.text.strip(" .") != _EXAMPLE_ENTRY]
        operations = [Operation(add.type, add.section, add.text) for add in own]
        mended = found.repaired or any("type" not in add.model_fields_set for add in own)
        return OperationsRead(operations, invalid + len(adds) - len(own), int(mended))

    def parse_rules(self, text: str) -> RulesRead:
        found = _last(LooseJson(self._spoken(text, ["rules"]), ["rules"]).objects, "rules", list)
        if found is None:
            return RulesRead(None, 1)
        items = [{"text": rule} for rule in found.value["rules"]]
        parts, invalid = valid_items(items, RulePart, MAX_RULES)
        own = [part.text for part in parts if part.text.strip(" .") != _EXAMPLE_RULE]
        return RulesRead(own, invalid + len(parts) - len(own), int(found.repaired))

    def parse_changes(self, text: str) -> ChangesRead:
        found = _last(LooseJson(self._spoken(text, ["changes"]), ["changes"]).objects, "changes", list)
        if found is None:
            return ChangesRead(None, 1)
        parts, invalid = valid_items(found.value["changes"], ChangePart, MAX_CHANGES)
        own = [part.change for part in parts if part.text.strip(" .") != _EXAMPLE_RULE]
        listed = (isinstance(item.get("ids"), list) for item in found.value["changes"] if isinstance(item, dict))
        mended = found.repaired or not all(listed)
        return ChangesRead(own, invalid + len(parts) - len(own), int(mended))

    def _spoken(self, text: str, wanted: Collection[str]) -> str:
        """The text without thinking. A think tag that a whole object merely mentions is no thinking."""
        text = text[-MAX_CHARS:]
        said = text.rpartition(CLOSE)[2]
        if said != text and OPEN not in said and any(found.closed for found in LooseJson(said, wanted).objects):
            return said.strip()
        if OPEN in text or CLOSE in text:
            end, pieces = 0, []
            for found in sorted(LooseJson(text, wanted).objects, key=lambda found: found.start):
                if found.start >= end:
                    mentioned = text[found.start : found.end].replace(OPEN, _MENTIONED[0]).replace(CLOSE, _MENTIONED[1])
                    pieces += [text[end : found.start], mentioned]
                    end = found.end
            text = strip_thinking("".join([*pieces, text[end:]]), self.thinking_opened)
            return text.replace(_MENTIONED[0], OPEN).replace(_MENTIONED[1], CLOSE)
        return strip_thinking(text, self.thinking_opened)


_MENTIONED = ("<\0think>", "</\0think>")


def _last(objects: Sequence[Found], key: str, kind: type) -> Found | None:
    """The last object whose `key` has the right type; rather a whole one, rather one that echoes no example of ours."""
    fitting = [
        found for found in objects if isinstance(value := found.value.get(key), kind) and (value or found.closed)
    ]
    return max(reversed(fitting), key=lambda found: (not _echoes(found.value[key]), found.closed), default=None)


def _echoes(value: Any) -> bool:
    """Whether nothing stands in a text, or in the items of a list, but what an example has in their place."""
    match value:
        case str():
            return value.strip(" .") in _EXAMPLES or not value.strip()
        case dict():
            return any(isinstance(text, str) and text.strip(" .") in _EXAMPLES for text in value.values())
        case list():
            return bool(value) and all(map(_echoes, value))
    return False


def _prose(found: Found) -> str:
    """What a reflection says, a line a field; the example of the instructions says nothing."""
    said = {name: text for name in _FIELDS if isinstance(text := found.value.get(name), str)}
    lines = [(name, text.strip()) for name, text in said.items() if text.strip() and text.strip() != _FIELDS[name]]
    return "\n".join(f"{name.capitalize()}: {text}" for name, text in lines)


def _read_tags(items: Any) -> TagsRead:
    parts, invalid = valid_items(items, TagPart, MAX_TAGS)
    tags: Tags = {}
    mended = 0
    for part in parts:
        ids = ID_INSIDE.findall(part.id)
        tags |= dict.fromkeys(ids, part.tag)
        mended += ids not in ([], [part.id])
        invalid += not ids
    return TagsRead(tags, invalid, mended)
