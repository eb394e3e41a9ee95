"""Both output formats: what is read, what is counted, and that no text at all can raise."""

import json
from collections.abc import Callable
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.context.formats import FORMATS, JsonFormat, LinesFormat
from resd.context.loose_json import LooseJson
from resd.context.parts import MAX_ENTRY_CHARS, MAX_OPERATIONS, Change, Format, Operation, TagsRead
from resd.types import Reflection

JSON, LINES = JsonFormat(), LinesFormat()
NAMES = st.text(st.characters(exclude_characters="{"), max_size=5)  # a brace in a key means a new object
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
ROUGHLY_LINES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "lesson:",
                "helpful:",
                "harmful :",
                "Neutral:",
                "add err:",
                "add",
                "none",
                "<think>",
                "</think>",
                "",
                "rule:",
                "add:",
                "update",
                "merge err-00001 err-00002:",
                "delete",
            ]
        ),
        st.sampled_from([" err-00001", " err-00001, str-00002", " x", "", ":", " \ud800", " none", "\x85y"]),
    ).map("".join)
).map("\n".join)
ROUGHLY_JSON = st.one_of(
    JSON_VALUES.map(json.dumps),
    st.lists(
        st.sampled_from([*'{}[]",:\\', "tags", "rules", "changes", "<think>", "</think>", "```json\n", "lesson", "1"])
    ).map("".join),
)


@pytest.mark.parametrize("name", FORMATS)
@given(text=st.one_of(st.text(), ROUGHLY_LINES, ROUGHLY_JSON), opened=st.booleans())
def test_any_text_at_all_is_read(name: str, text: str, opened: bool) -> None:
    form = FORMATS[name](opened)
    reflection = form.parse_reflection(text)
    assert reflection.text or reflection.invalid
    read = form.parse_tags(text)
    for tags, invalid in [(reflection.tags, reflection.invalid), (read.tags, read.invalid)]:
        assert set(tags.values()) <= {"helpful", "harmful", "neutral"}
        assert invalid >= 0
    operations, invalid, repaired = form.parse_operations(text)
    assert invalid >= 0
    assert repaired in (0, 1)
    rules, changes = form.parse_rules(text), form.parse_changes(text)
    for answer, faults in [(rules.rules, rules.invalid), (changes.changes, changes.invalid)]:
        assert answer is not None or faults > 0
    texts = [*(o.text for o in operations), *(rules.rules or []), *(c.text for c in changes.changes or [] if c.text)]
    for said in texts:
        assert 0 < len(said) <= MAX_ENTRY_CHARS
        said.encode("utf-8")
    assert all(change.text or change.replaces for change in changes.changes or [])


LONGEST = "do " + "y" * (MAX_ENTRY_CHARS - 3)
PARTS = st.dictionaries(st.sampled_from(["id", "tag", "type", "section", "text"]), JSON_VALUES)


@given(items=st.one_of(JSON_VALUES, st.lists(st.one_of(PARTS, JSON_VALUES))))
def test_parts_of_any_type_are_counted_and_leave_the_good_ones_alone(items: object) -> None:
    bad = items if isinstance(items, list) else [items]
    tags = json.dumps({"tags": [{"id": "err-00001", "tag": "helpful"}, *bad[:20]]})
    operations = json.dumps({"operations": [{"type": "add", "section": "err", "text": "do x"}, *bad[:5]]})
    assert JSON.parse_tags(tags).tags["err-00001"] == "helpful"
    assert JSON.parse_operations(operations)[0][0] == Operation("add", "err", "do x")


REFLECTION = {
    "mistake": "m",
    "cause": "c",
    "remedy": "r",
    "lesson": "l",
    "tags": [{"id": "err-00001", "tag": "harmful"}],
}


PROSE = "Mistake: m\nCause: c\nRemedy: r\nLesson: l"


@pytest.mark.parametrize(
    "wrap",
    [
        "{}",
        "Here it is:\n```json\n{}\n```\nDone.",
        "{{not json}} and {{}} then {} and {{",
        '{{"reasoning": "an object without the wanted keys"}}\n{}',
        '{{"output": {}}}',
        '<think>{{"lesson": "thought", "tags": []}}</think>{}',
        'thinking {{"tags": 1}} </think> {}',
        '{{"lesson": 3, "tags": "todo"}}\n{}',
        '{}\n{{"lesson": null, "tags": "see above"}}',
        '{{"lesson": "an earlier one", "tags": []}}\n{}',
        'As asked ("{{" and "}}"): {}',
    ],
)
def test_the_last_object_that_fits_is_meant(wrap: str) -> None:
    text = wrap.format(json.dumps(REFLECTION, indent=1))
    assert JSON.parse_reflection(text) == Reflection(PROSE, {"err-00001": "harmful"}, 0, 0)
    assert JSON.parse_tags(text) == ({"err-00001": "harmful"}, 0, 0)


def test_an_echo_of_our_own_example_is_no_answer() -> None:
    echo = JSON.instructions("reflect")
    assert JSON.parse_reflection(echo) == Reflection("", {}, 2)
    assert JSON.parse_reflection(f"{echo}\n{json.dumps(REFLECTION)}") == Reflection(PROSE, {"err-00001": "harmful"})
    echo = JSON.instructions("tag")
    assert JSON.parse_tags(echo) == ({}, 1, 0)
    assert JSON.parse_tags(f"{echo}\n{json.dumps(REFLECTION)}") == ({"err-00001": "harmful"}, 0, 0)
    echo = JSON.instructions("curate")
    assert JSON.parse_operations(echo) == ([], 1, 0)
    answer = json.dumps({"operations": [add()]})
    assert JSON.parse_operations(f"{echo}\n{answer}") == ([Operation("add", "heuristics", "do x")], 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        '{"lesson": "one\ntwo", "tags": []}',
        '{"lesson": "one\ntwo", "tags": [],}',
        "{'lesson': 'one\ntwo', 'tags': []}",
        '{"Lesson": "one\\ntwo", "TAGS": []}',
        '{lesson: "one\\ntwo", tags: []}',
        '{"lesson": "one\\ntwo" // the rule\n, /* no { tags } */ "tags": [] # none\n}',
        '{"lesson": "one\\ntwo"\n"tags": []}',
        '{"lesson": "one\\ntwo", "tags": [], "sure": True, "why": None}',
        '{"lesson": "one\\ntwo", "tags": [',
        '{"lesson": "one\\ntwo", "mistake": "it never',
        'Well: {"lesson": "one\\ntwo", "tags": [], oh no}',
    ],
)
def test_common_slips_are_mended_and_counted(text: str) -> None:
    assert JSON.parse_reflection(text) == Reflection("Lesson: one\ntwo", {}, 0, 1)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"use \\( x \\) and \(y\)", r"use \( x \) and \(y\)"),
        ('he wrote "x" twice', 'he wrote "x" twice'),
        (r"a \"quoted\" word and \_ and it\'s", r"""a "quoted" word and \_ and it's"""),
    ],
)
def test_strings_mean_what_their_writer_meant(written: str, meant: str) -> None:
    assert JSON.parse_reflection(f'{{"lesson": "{written}", "tags": []}}') == Reflection(f"Lesson: {meant}", {}, 0, 1)


KEYS = st.text(st.characters(codec="ascii", exclude_characters="{"), max_size=8)  # a brace in a key means a new object
PLAIN_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, PLAIN_VALUES, max_size=4), st.text(max_size=30), st.sampled_from([None, 1]))
def test_good_json_is_read_as_it_is(others: dict, lesson: str, indent: int | None) -> None:
    others = {key: value for key, value in others.items() if key.strip().lower() not in ("lesson", *REFLECTION)}
    text = json.dumps({**others, "lesson": lesson}, indent=indent)
    reflection = JSON.parse_reflection(text)
    assert reflection.text == (f"Lesson: {lesson.strip()}" if lesson.strip() else "")
    text = json.dumps({**others, "lesson": lesson, "tags": []}, indent=indent, ensure_ascii=False)
    assert JSON.parse_reflection(text).text == reflection.text


def test_a_reflection_that_is_no_json_keeps_its_text_and_is_counted() -> None:
    assert JSON.parse_reflection("It forgot {the end") == Reflection("It forgot {the end", {}, 1)
    assert JSON.parse_reflection("<think>cut {") == Reflection("", {}, 1)


@pytest.mark.parametrize(
    "text",
    ['{"mistake": "it for', '{"mis', "```json\n{", '[{"a": 1}]', '{"error": "x"}', 'Here:\n{"lesson": "it fo', "{}"],
)
def test_raw_json_is_never_shown_as_a_reflection(text: str) -> None:
    assert JSON.parse_reflection(text) == Reflection("", {}, 1)


def test_what_a_cut_answer_said_whole_is_kept() -> None:
    text = json.dumps({**REFLECTION, "operations": [add(), add(text="do y")]})
    assert JSON.parse_reflection(text[: text.index('"remedy"') + 5]) == Reflection("Mistake: m\nCause: c", {}, 0, 1)
    assert JSON.parse_operations(text[: text.index("do y")]) == ([Operation("add", "heuristics", "do x")], 1, 1)


@pytest.mark.parametrize(
    ("before", "opened"),
    [("", False), ("<think>so</think>", False), ("so</think>\n", True), ("a</think>b</think>", True)],
)
@pytest.mark.parametrize("tags", ["<think>", "</think>", "<think>x</think>", "</think><think>"])
def test_a_tag_inside_a_string_is_no_thinking(before: str, opened: bool, tags: str) -> None:
    lesson = f"never write {tags} yourself"
    reflection = JsonFormat(opened).parse_reflection(before + json.dumps({"lesson": lesson, "tags": []}))
    assert reflection == Reflection(f"Lesson: {lesson}", {}, 0, 0)


@pytest.mark.parametrize(("before", "opened"), [("", False), ("so</think>\n", True)])
@pytest.mark.parametrize("tags", ["<think>", "</think>"])
def test_a_tag_inside_any_answer_is_no_thinking(before: str, opened: bool, tags: str) -> None:
    form, rule = JsonFormat(opened), f"never write {tags} yourself"
    read = form.parse_tags(before + json.dumps({"reason": rule, "tags": [{"id": "err-00001", "tag": "helpful"}]}))
    assert read == ({"err-00001": "helpful"}, 0, 0)
    added = form.parse_operations(before + json.dumps({"operations": [add(text=rule)]}))
    assert [operation.text for operation in added.operations] == [rule]
    for answer in ({"rules": [rule]}, {"output": {"rules": [rule]}}):
        assert form.parse_rules(before + json.dumps(answer)) == ([rule], 0, 0)
    changed = form.parse_changes(before + json.dumps({"changes": [{"type": "add", "ids": [], "text": rule}]}))
    assert changed == ([Change(rule)], 0, 0)


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ('<think>maybe {"lesson": "draft", "tags": []}', False),
        ('maybe {"lesson": "draft", "tags": []}', True),
        ('{"lesson": "draft", "tags": []}</think>', False),
    ],
)
def test_a_draft_in_thinking_is_no_answer(text: str, opened: bool) -> None:
    """A format that is not told that the template opens thinking takes the second for an answer."""
    assert JsonFormat(opened).parse_reflection(text) == Reflection("", {}, 1)
    assert JsonFormat(opened).parse_tags(text) == ({}, 1, 0)


@pytest.mark.parametrize(
    ("items", "tags", "invalid"),
    [
        ([{"id": "err-00001", "tag": "helpful"}, {"id": "err-00001", "tag": "Harmful"}], {"err-00001": "harmful"}, 0),
        ([{"id": " [ERR-00001]", "tag": "neutral", "why": "extra"}], {"err-00001": "neutral"}, 0),
        ([{"id": ["err-00001"], "tag": "helpful"}, {"id": {}, "tag": "helpful"}], {}, 2),
        ([{"id": "err-00001", "tag": ["helpful"]}, {"id": "str-00002", "tag": "good"}], {}, 2),
        ([{"id": "- err-00001", "tag": "helpful"}], {"err-00001": "helpful"}, 0),
        ([{"id": "err-00001 (helpful 3, harmful 0): mind", "tag": "neutral"}], {"err-00001": "neutral"}, 0),
        ([{"id": "err-00001, str-00002", "tag": "harmful"}], {"err-00001": "harmful", "str-00002": "harmful"}, 0),
        ([{"ID": "err-00001", "Tag": "helpful"}], {"err-00001": "helpful"}, 0),
        ([{"id": "xerr-00001-2", "tag": "helpful"}, {"id": "err-0000000001", "tag": "helpful"}], {}, 2),
        ([{"id": "rule 7", "tag": "helpful"}, {"id": "err-١٢٣٤٥", "tag": "helpful"}], {}, 2),
        ([None, 3, "err-00001", [], {}], {}, 5),
        ([{"tag": "helpful"}, {"id": "err-00001", "tag": "helpful"}], {"err-00001": "helpful"}, 1),
        ({"err-00001": "helpful"}, {}, 1),
        (None, {}, 1),
    ],
)
def test_json_tags_stand_or_fall_one_by_one(items: object, tags: dict[str, str], invalid: int) -> None:
    assert JSON.parse_tags(json.dumps({"reason": "", "tags": items}))[:2] == (tags, invalid)
    reflection = JSON.parse_reflection(json.dumps({"lesson": "l", "tags": items}))
    assert (reflection.tags, reflection.invalid) == (tags, invalid)


def add(**fields: object) -> dict[str, object]:
    return {"type": "add", "section": "heuristics", "text": "do x", **fields}


RULES = {"rules": ["do not do x"]}
CHANGES = {"changes": [{"type": "delete", "ids": ["err-00001"], "text": ""}]}
ANSWERS = [
    ("reflect", JSON.parse_reflection, REFLECTION),
    ("tag", JSON.parse_tags, {"tags": REFLECTION["tags"]}),
    ("curate", JSON.parse_operations, {"operations": [add()]}),
    ("compare", JSON.parse_rules, RULES),
    ("decide", JSON.parse_changes, CHANGES),
]


@pytest.mark.parametrize(("role", "parse", "answer"), ANSWERS, ids=[role for role, *_ in ANSWERS])
def test_an_echo_after_an_answer_takes_nothing_from_it(role: Any, parse: Callable[[str], Any], answer: dict) -> None:
    written = json.dumps(answer)
    meant = parse(written)
    assert parse(f"{written}\n{JSON.instructions(role)}") == meant
    cut = parse(written[:-1])
    assert cut.repaired == 1
    assert parse(f"{JSON.instructions(role)}\n{written[:-1]}") == cut
    said = "" if role == "reflect" else []
    key = "lesson" if role == "reflect" else next(iter(answer))
    revised = parse(f"{written} No: {json.dumps({key: said})}")  # nothing in a list is an answer, and no text is none
    assert revised == (meant if role == "reflect" else parse(json.dumps({key: said})))


@pytest.mark.parametrize(
    ("items", "texts", "invalid"),
    [
        ([add(), add(type="ADD", text=" two\nlines ")], ["do x", "two lines"], 0),
        ([add(type="delete"), add(type=None), add()], ["do x"], 2),
        ([{"section": "err", "text": "do x"}, {"Section": "err", "Text": "do y"}], ["do x", "do y"], 0),
        ([add(section=["a"]), add(section=None), add()], ["do x"], 2),
        ([add(text=["a"]), add(text={}), add(text=None), add(text=3), add()], ["do x"], 4),
        ([add(text=""), add(text=" \n "), add(text="\ud800"), add(text="x"), add(text="x."), add()], ["do x"], 5),
        ([add(text="x " * MAX_ENTRY_CHARS), add(text=LONGEST)], [LONGEST], 1),
        ([add(text=f"do {i}") for i in range(MAX_OPERATIONS + 3)], [f"do {i}" for i in range(MAX_OPERATIONS)], 3),
        ([], [], 0),
        ("add x", [], 1),
    ],
)
def test_json_operations_stand_or_fall_one_by_one(items: object, texts: list[str], invalid: int) -> None:
    operations, counted, _ = JSON.parse_operations(json.dumps({"reason": "", "operations": items}))
    assert ([operation.text for operation in operations], counted) == (texts, invalid)


def test_one_mended_tag_is_enough() -> None:
    tags = '{"tags": [{"id": "see err-00001", "tag": "helpful"}, {"id": "err-00002", "tag": "harmful"}]}'
    assert JSON.parse_tags(tags) == TagsRead({"err-00001": "helpful", "err-00002": "harmful"}, 0, 1)


def test_an_object_is_read_as_deep_as_an_answer_goes() -> None:
    text = '{"tags": [{"id": ["err-00001", ["deeper"]]}]}'
    assert LooseJson(text, ["tags"]).objects[-1].value == {"tags": [{"id": ["err-00001", None]}]}


def test_an_output_without_the_wanted_object_counts_once() -> None:
    for text in ["", "none", "[1]", '{"tags": []}', '{"operations": [', "1" * 5000, "{" * 2000, '{"a":' * 2000]:
        assert JSON.parse_operations(text) == ([], 1, 0)


HOSTILE = [
    '{"a":', "{", '{"', "{'", '{"a": "', '[{"":[', '{"":1}', "{/*", "{//", "{a:", '{"\\"', "{ ", "\"'{", "{'a\":\"b'",
    '"\n', '" ,', '{"lesson":', '{"lesson":"', '{"lesson":[{', '{"lesson":1,"lesson":', '{"lesson":"x"},', "<think>",
    '{"lesson":"</think>',
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_length(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        start = process_time()
        JSON.parse_reflection(text)
        JSON.parse_operations(text)
        JSON.parse_changes(text)
        return process_time() - start

    assert seconds(200_000) < 40 * seconds(20_000) + 0.5  # quadratic: a hundred times
    assert (
        JSON.parse_operations(piece * (1_000_000 // len(piece))).operations == []
    )  # longer ones are read at their end


def bounded(schema: object) -> bool:
    if isinstance(schema, dict):
        if schema.get("type") == "string" and not {"maxLength", "enum", "const"} & set(schema):
            return False
        if schema.get("type") == "array" and "maxItems" not in schema:
            return False
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            return False
        return all(bounded(value) for value in schema.values())
    return all(bounded(value) for value in schema) if isinstance(schema, list) else True


@pytest.mark.parametrize("role", ["reflect", "tag", "curate", "compare", "decide", "consolidate"])
def test_schemas_bound_every_string_array_and_object(role: str) -> None:
    schema = JSON.schema(role)  # type: ignore[arg-type]
    assert schema is not None
    for part in (schema, *schema.get("$defs", {}).values()):
        assert set(part["required"]) == set(part["properties"])
    assert bounded(schema)
    assert json.loads(json.dumps(schema)) == schema
    assert LINES.schema(role) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [JSON, LINES], ids=["json", "lines"])
def test_instructions_speak_of_what_is_read(form: Format) -> None:
    for role, words in {
        "reflect": ["lesson", "helpful", "harmful", "neutral"],
        "tag": ["helpful", "harmful", "neutral"],
        "curate": ["add", "strategies", "others"],
        "summarise": ["sentences"],
        "compare": ["rule"],
        "decide": ["add", "update", "merge", "delete"],
        "consolidate": ["add", "update", "merge", "delete"],
    }.items():
        assert all(word in form.instructions(role) for word in words)  # type: ignore[arg-type]
        assert form.reminder(role)  # type: ignore[arg-type]
    assert '"mistake", "cause", "remedy", "lesson" and "tags"' in JSON.reminder("reflect")
