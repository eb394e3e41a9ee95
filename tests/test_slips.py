"""What models write instead of what they were asked for, and how much of it is still read."""

import json

import pytest

from resd.context.formats import JsonFormat, LinesFormat
from resd.context.parts import Change, Role

JSON, LINES = JsonFormat(), LinesFormat()
TAGGED = {"tags": [{"id": "err-00001", "tag": "helpful"}]}
WHOLE = json.dumps({"mistake": "m one", "cause": "c two", "remedy": "r three", "lesson": "l four", **TAGGED})
SKETCHES = [
    '{"mistake": "...", "cause": "...", ...}',
    '{"mistake": "…", "tags": [{"id": "err-00001", …}]}',
    '{"mistake": "The program',
]


@pytest.mark.parametrize("sketch", SKETCHES)
def test_a_sketch_inside_thinking_does_not_reach_into_the_answer(sketch: str) -> None:
    thought = f"I need one object like {sketch}. Let me fill that in.\n</think>\n\n{WHOLE}"
    meant = JSON.parse_reflection(WHOLE)
    assert meant.text.startswith("Mistake: m one\n")
    assert JSON.parse_reflection(f"<think>\n{thought}") == meant
    assert JsonFormat(True).parse_reflection(thought) == meant
    if sketch.endswith("}"):
        assert JSON.parse_reflection(f"I answer as in {sketch}:\n{WHOLE}") == meant


@pytest.mark.parametrize("number", ["00001", "-007", "１", "٣", "1e99999", "0" * 40])
def test_a_number_that_is_none_of_json_ends_nothing(number: str) -> None:
    read = JSON.parse_reflection(f'{{"lesson": "count first", "tags": [{{"id": {number}, "tag": "helpful"}}]}}')
    assert (read.text, read.tags, read.invalid) == ("Lesson: count first", {}, 1)


@pytest.mark.parametrize("text", ['Never write "NEXT", "PULL" in a row', 'If the tape says "R", "B" moves; else stop'])
def test_quoted_words_in_a_row_are_one_text(text: str) -> None:
    [read] = JSON.parse_operations(f'{{"operations": [{{"section": "heuristics", "text": "{text}"}}]}}').operations
    assert read.text == text


def test_ids_of_changes_are_read_as_those_of_tags() -> None:
    ids = ['["- err-00001"]', '"err-00001"', '["err-00001 (helpful 0, harmful 2)"]', '["[ERR-00001]"]']
    deletions = ", ".join(f'{{"type": "delete", "ids": {each}, "text": null}}' for each in ids)
    changes = JSON.parse_changes(f'{{"changes": [{deletions}, {{"type": "add", "ids": null, "text": "look twice"}}]}}')
    assert changes.changes == [*[Change("", ("err-00001",))] * 4, Change("look twice", ())]
    lines = "merge err-00001 and <err-00002>: look at both\ndelete **err-00003**"
    assert LINES.parse_changes(lines).changes == [
        Change("look at both", ("err-00001", "err-00002")),
        Change("", ("err-00003",)),
    ]


@pytest.mark.parametrize("role", ["reflect", "curate", "compare", "decide"])
def test_an_echo_of_the_instructions_in_lines_is_no_answer(role: Role) -> None:
    echo = (
        LINES.instructions(role)
        .replace("<ids of playbook entries>", "none")
        .replace("<id> <id>", "err-00001 err-00002")
    )
    echo = echo.replace("<id>", "err-00001").replace("<section>", "heuristics").replace("delete err-00001", "")
    if role == "reflect":
        assert "what went wrong" not in LINES.parse_reflection(echo).text
    assert LINES.parse_operations(echo).operations == []
    assert not LINES.parse_rules(echo).rules
    assert not LINES.parse_changes(echo).changes
