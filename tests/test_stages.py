"""What the four questions of Training-Free GRPO are answered with: rules and changes, in both formats."""

import json

import pytest

from resd.context.formats import JsonFormat, LinesFormat
from resd.context.parts import MAX_CHANGES, MAX_ENTRY_CHARS, MAX_RULES, Change

JSON, LINES = JsonFormat(), LinesFormat()
ADD, UPDATE = Change("be on time"), Change("be early", ("err-00001",))
MERGE, DELETE = Change("be early and brief", ("err-00001", "str-00002")), Change("", ("err-00001",))


@pytest.mark.parametrize(
    ("text", "changes", "invalid"),
    [
        ("add: be on time\nUpdate err-00001: be early", [ADD, UPDATE], 0),
        ("merge [err-00001], str-00002: be early and brief\ndelete err-00001", [MERGE, DELETE], 0),
        ("delete err-00001: for it misleads", [DELETE], 0),
        ("none", [], 0),
        ("add: be on time\nnone", [ADD], 0),
        # What names too few entries, too many, or none that could be one; what says too little; what says nothing.
        ("update: be early\nupdate err-00001 str-00002: be early\nadd: be on time", [ADD], 2),
        ("merge err-00001: be early\nmerge err-00001 err-00001: be early\nadd: be on time", [ADD], 2),
        ("delete\ndelete the first\nadd:\nadd: early\nupdate err-00001:\nadd: be on time", [ADD], 5),
        ("adding: be on time\nI would add: be on time", None, 2),
        ("", None, 1),
        ("<think>add: be on time", None, 1),
        ("<think>add: be late</think>add: be on time", [ADD], 0),
        (f"add: {'x ' * MAX_ENTRY_CHARS}\nadd: be on time", [ADD], 1),
        ("\n".join(["add: be on time"] * (MAX_CHANGES + 1)), [ADD] * MAX_CHANGES, 1),
    ],
)
def test_changes_in_lines(text: str, changes: list[Change] | None, invalid: int) -> None:
    assert LINES.parse_changes(text) == (changes, invalid, 0)


@pytest.mark.parametrize(
    ("items", "changes", "invalid", "repaired"),
    [
        ([{"type": "add", "ids": [], "text": " be  on time"}], [ADD], 0, 0),
        (
            [{"type": "add", "text": "be on time"}, {"type": "UPDATE", "id": "err-00001", "text": "be early"}],
            [ADD, UPDATE], 0, 1,
        ),
        ([{"type": "merge", "ids": ["err-00001", "STR-00002"], "text": "be early and brief"}], [MERGE], 0, 0),
        (
            [{"type": "delete", "ids": ["err-00001"], "text": ""}, {"type": "delete", "ids": ["err-00001"]}],
            [DELETE] * 2, 0, 0,
        ),
        ([{"type": "add", "ids": ["err-00009"], "text": "be on time"}], [ADD], 0, 0),
        ([], [], 0, 0),
        ([{"type": "add", "ids": [], "text": "the rule"}], [], 1, 0),
        ([{"type": "move", "ids": ["err-00001"], "text": "be early"}, 7, "add", None], [], 4, 0),
        (
            [{"type": "update", "ids": "err-00001", "text": "be early"}, {"type": "update", "ids": [1], "text": "new"}],
            [UPDATE], 1, 1,
        ),
        ([{"type": "delete", "ids": []}, {"type": "merge", "ids": ["err-00001"], "text": "be early"}], [], 2, 0),
    ],
)  # fmt: skip
def test_changes_in_json(items: list[object], changes: list[Change], invalid: int, repaired: int) -> None:
    text = json.dumps({"reason": "so", "changes": items})
    assert JSON.parse_changes(text) == (changes, invalid, repaired)
    assert JSON.parse_changes(f"Well: ```json\n{text}\n```") == (changes, invalid, repaired)


def test_rules() -> None:
    assert LINES.parse_rules("rule: be on time\nRULE : be early\nrule: early\nbe brief") == (
        ["be on time", "be early"],
        2,
        0,
    )
    assert LINES.parse_rules("none.") == ([], 0, 0)
    assert LINES.parse_rules("nothing to learn") == (None, 1, 0)
    assert LINES.parse_rules("\n".join(["rule: be early"] * (MAX_RULES + 1))) == (["be early"] * MAX_RULES, 1, 0)
    assert JSON.parse_rules('{"rules": ["be  on time", "the rule", 3, "early"]}') == (["be on time"], 3, 0)
    assert JSON.parse_rules('{"rules": ["the rule.", "the rules."]}') == (["the rules."], 1, 0)
    assert JSON.parse_rules("{rules: ['be on time',]}") == (["be on time"], 0, 1)
    assert JSON.parse_rules('{"rules": [/**/]} {"rules": [/**/ "be on time"]}') == (["be on time"], 0, 1)
    assert JSON.parse_rules('{"rules": []}') == ([], 0, 0)
    for text in ("be on time", '{"rules": "be on time"}', ""):
        assert JSON.parse_rules(text) == (None, 1, 0)
    assert JsonFormat(thinking_opened=True).parse_rules('{"rules": ["be on time"]}') == (None, 1, 0)


def test_a_summary_is_any_text() -> None:
    for form in (JSON, LINES):
        assert form.schema("summarise") is None
        assert "sentences" in form.reminder("summarise")
