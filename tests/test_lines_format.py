"""One statement a line: what is read, what is counted, and what is no part of a line."""

import pytest

from resd.context.lines_format import LinesFormat
from resd.context.parts import MAX_ENTRY_CHARS, MAX_OPERATIONS, Change, Operation
from resd.types import Reflection

LINES = LinesFormat()


def test_lines_reflection() -> None:
    text = (
        "Lesson: check the end\nThe tape was empty.\nhelpful: err-00001, [str-00002]\nharmful: err-00001\nlesson: go on"
    )
    assert LINES.parse_reflection(text) == Reflection(
        "check the end\nThe tape was empty.\ngo on", {"err-00001": "harmful", "str-00002": "helpful"}, 0
    )


@pytest.mark.parametrize(
    ("text", "kept", "tags", "invalid"),
    [
        ("no marker", "no marker", {}, 1),
        ("", "", {}, 1),
        ("lesson:", "", {}, 1),
        ("lesson: a\nhelpful: none\nneutral:", "a", {}, 0),
        ("lesson: a\nhelpful: x err-00001 err-1", "a", {"err-00001": "helpful"}, 2),
        ("helpful: err-00001", "", {"err-00001": "helpful"}, 1),
    ],
)
def test_lines_reflection_counts_what_it_cannot_use(text: str, kept: str, tags: dict, invalid: int) -> None:
    assert LINES.parse_reflection(text) == Reflection(kept, tags, invalid)


def test_lines_tags() -> None:
    text = "helpful: err-00001 err-00002\n\nneutral: err-00003\nsomething else\nhelpful err-00004"
    expected = {"err-00001": "helpful", "err-00002": "helpful", "err-00003": "neutral"}
    assert LINES.parse_tags(text) == (expected, 2, 0)


@pytest.mark.parametrize(
    ("text", "operations", "invalid"),
    [
        ("add err: mind the end", [("err", "mind the end")], 0),
        ("ADD common mistakes: a: b\nadd heu:c d", [("common mistakes", "a: b"), ("heu", "c d")], 0),
        ("none", [], 0),
        ("None.", [], 0),
        ("add err mind\nadd: do x\nadd err:\nadd err: .\nadd err: y\nadd err: do y", [("err", "do y")], 5),
        ("drop err: x", [], 1),
        (f"add err: {'x ' * MAX_ENTRY_CHARS}\nadd err: do y", [("err", "do y")], 1),
        ("\n".join(["add err: do y"] * (MAX_OPERATIONS + 2)), [("err", "do y")] * MAX_OPERATIONS, 2),
        ("", [], 1),
        ("<think>add err: x", [], 1),
    ],
)
def test_lines_operations(text: str, operations: list[tuple[str, str]], invalid: int) -> None:
    read, counted, _ = LINES.parse_operations(text)
    assert ([(operation.section, operation.text) for operation in read], counted) == (operations, invalid)


@pytest.mark.parametrize("bullet", ["", "- ", "* ", "• ", "3. ", "12) ", "> ", "### "])
@pytest.mark.parametrize("mark", ["", "**", "__", "*", "`"])
def test_marks_of_lists_and_of_bold_type_are_no_part_of_a_line(bullet: str, mark: str) -> None:
    for line in (f"lesson{mark}: mind the end", f"lesson:{mark} mind the end", f"lesson: mind the end{mark}"):
        assert LINES.parse_reflection(f"{bullet}{mark}{line}") == Reflection("mind the end", {}, 0)
    start = f"{bullet}{mark}"
    assert LINES.parse_tags(f"```\n{start}helpful:{mark} err-00001\n```") == ({"err-00001": "helpful"}, 0, 0)
    assert LINES.parse_operations(f"{start}add err{mark}: go *on") == ([Operation("add", "err", "go *on")], 0, 0)
    assert LINES.parse_operations(f"{start}none{mark}") == ([], 0, 0)
    assert LINES.parse_rules(f"{start}rule:{mark} go on").rules == ["go on"]
    assert LINES.parse_changes(f"{start}delete{mark} err-00001").changes == [Change("", ("err-00001",))]


@pytest.mark.parametrize("line", ["- a tape is no lesson", "3. Rules of thumb fail", "*x* + 1", "`x` is `None`"])
def test_prose_keeps_its_marks(line: str) -> None:
    assert LINES.parse_reflection(f"{line}\nlesson: go on").text == f"{line}\ngo on"
