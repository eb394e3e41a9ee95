"""The playbook: ids, counters, duplicates, rendering, and a state that its events rebuild."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.context.playbook import SECTIONS, Playbook, one_line, section_named
from resd.types import UserError

TEXTS = st.sampled_from(
    ["use two passes", "Use  two passes.", "check the empty tape", "x > 0", "x < 0", "mind the end"]
)
IDS = st.sampled_from([f"{slug}-{number:05d}" for slug in ("err", "str", "misc") for number in range(1, 6)])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["common_mistakes", "strategies", "nonsense"]), TEXTS),
        st.tuples(st.just("tag"), IDS, st.sampled_from(["helpful", "harmful", "neutral"])),
        st.tuples(st.just("remove"), IDS, st.just("stale")),
        st.tuples(st.just("turn"), st.sampled_from(["", "one", "two"]), st.just("")),
    ),
    max_size=30,
)


def perform(playbook: Playbook, operations: list[tuple[str, str, str]]) -> None:
    for step, (kind, first, second) in enumerate(operations, 1):
        if kind == "add":
            playbook.add(first, second, step)
        elif kind == "tag":
            playbook.tag(first, second, step)  # type: ignore[arg-type]
        elif kind == "turn":
            playbook.turn(first, step)
        elif first in playbook:
            playbook.remove(first, second, step)


@given(OPERATIONS)
def test_replayed_events_rebuild_the_state(operations: list[tuple[str, str, str]]) -> None:
    playbook = Playbook()
    perform(playbook, operations)
    logged = [json.loads(json.dumps(event)) for event in playbook.drain_events()]
    rebuilt = Playbook.replay(logged)
    assert rebuilt.state_dict() == playbook.state_dict()
    assert rebuilt.drain_events() == []
    for book in (playbook, rebuilt):  # the hidden part of the state: next id and known texts
        perform(book, [("add", "strategies", "use two passes"), ("add", "strategies", "something new")])
    assert rebuilt.state_dict() == playbook.state_dict()


@given(OPERATIONS, OPERATIONS)
def test_a_loaded_state_goes_on_like_the_saved_one(
    before: list[tuple[str, str, str]], after: list[tuple[str, str, str]]
) -> None:
    playbook, loaded = Playbook(), Playbook()
    perform(playbook, before)
    loaded.load_state_dict(json.loads(json.dumps(playbook.state_dict())))
    playbook.drain_events()
    perform(playbook, after)
    perform(loaded, after)
    assert loaded.state_dict() == playbook.state_dict()
    assert loaded.drain_events() == playbook.drain_events()


def test_ids_count_on_across_sections_and_are_never_given_twice() -> None:
    playbook = Playbook()
    ids = [playbook.add(section, section, 1).id for section in SECTIONS]  # type: ignore[union-attr]
    assert ids == [f"{slug}-{number:05d}" for number, slug in enumerate(SECTIONS.values(), 1)]
    playbook.remove("misc-00007", "harmful", 2)
    entry = playbook.add("others", "others", 2, parents=["misc-00007"])
    assert entry is not None
    assert (entry.id, entry.created, entry.parents) == ("misc-00008", 2, ("misc-00007",))


def test_the_same_words_are_refused_in_any_section_and_step_but_other_signs_are_other_words() -> None:
    playbook = Playbook()
    assert playbook.add("strategies", "Check the\n empty  tape.", 1)
    assert playbook.add("common_mistakes", "check the empty tape", 1) is None
    assert playbook.add("strategies", "CHECK THE EMPTY TAPE", 5) is None
    assert playbook.add("strategies", "if x > 0", 5)
    assert playbook.add("strategies", "if x < 0", 5)
    assert len(playbook) == 3
    assert [event["event"] for event in playbook.drain_events()] == ["add"] * 3


def test_a_lesson_without_a_new_word_is_refused_where_words_are_what_counts() -> None:
    playbook = Playbook("word")
    texts = ['Begin with "Desk:".', "Write [...] around the answer."]
    assert all(playbook.add("others", text, 1) for text in texts)
    for known in (texts[0], 'Desk: begin with "Desk:"', "Begin the answer with [...]!", '"desk"'):
        assert playbook.add("others", known, 2) is None
    for new in ("Do not begin with Desk.", "Write (...) around the answer."):
        assert playbook.add("others", new, 2) is not None
    assert len(Playbook.replay(playbook.drain_events())) == 4
    last = playbook.entries[-1]
    playbook.remove(last.id, "stale", 3)
    assert playbook.add("others", last.text, 3) is not None, "its word left with it"
    text = Playbook()
    assert all(text.add("others", known, 1) for known in (texts[0], 'Desk: begin with "Desk:"'))


def test_tags_count_and_refresh_unless_neutral_or_unknown() -> None:
    playbook = Playbook()
    playbook.add("common_mistakes", "x", 1)
    [entry] = playbook.entries
    assert playbook.tag("err-00001", "neutral", 5)
    assert (entry.helpful, entry.harmful, entry.last_tagged) == (0, 0, 1)
    assert playbook.tag("err-00001", "harmful", 6)
    assert playbook.tag("err-00001", "helpful", 7)
    assert (entry.helpful, entry.harmful, entry.last_tagged) == (1, 1, 7)
    assert not playbook.tag("err-00002", "helpful", 8)
    assert [event.get("tag") for event in playbook.drain_events()] == [None, "neutral", "harmful", "helpful"]


@given(st.text())
def test_a_text_becomes_one_line_that_can_be_written(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert line.encode("utf-8").decode("utf-8") == line == one_line(line)


def test_multi_line_text_with_a_lone_surrogate_stays_writable_and_blank_text_is_an_error() -> None:
    playbook = Playbook()
    entry = playbook.add("code", "first\r\nsecond\u2028third \ud800!", 1)
    assert entry is not None
    assert entry.text == "first second third !"
    with pytest.raises(ValueError, match="needs a text"):
        playbook.add("code", " \n\t", 1)


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("strategies", "strategies"),
        ("Code Snippets", "code_snippets"),
        ("code-snippets", "code_snippets"),
        ("problem-solving heuristics", "heuristics"),
        ("PROBLEM-SOLVING HEURISTICS", "heuristics"),
        ("strategies & insights", "strategies"),
        ("## Common mistakes to avoid:", "common_mistakes"),
        ("formulas_and_calculations", "formulas"),
        ("err", "common_mistakes"),
        ("ctx", "context_clues"),
        ("for", "formulas"),
        ("for loops", "others"),
        ("", "others"),
        ("日本", "others"),
    ],
)
def test_section_names_normalise(name: str, section: str) -> None:
    assert section_named(name) == section


def small_playbook() -> Playbook:
    playbook = Playbook()
    playbook.add("others", "last", 1)
    playbook.add("strategies", "first", 2)
    playbook.tag("str-00002", "helpful", 4)
    return playbook


def test_rendering_groups_by_section_or_stays_compact() -> None:
    playbook = small_playbook()
    assert playbook.render("full") == (
        "## Strategies\n- str-00002 (helpful 1, harmful 0): first\n\n"
        "## Others\n- misc-00001 (helpful 0, harmful 0): last"
    )
    assert playbook.render("compact") == "misc-00001: last\nstr-00002: first"
    assert Playbook().render("full") == Playbook().render("compact") == ""


def test_the_compact_playbook_keeps_its_prefix_as_it_grows() -> None:
    playbook = small_playbook()
    before = playbook.render("compact")
    playbook.add("strategies", "new", 5)
    assert playbook.render("compact").startswith(before)


def test_the_markdown_names_every_entry_with_its_steps() -> None:
    assert "- str-00002 (helpful 1, harmful 0): first _(step 2, last tagged 4)_" in small_playbook().to_markdown()
    assert Playbook().to_markdown() == "# Playbook (0 entries)\n"


def start_late(events: list[dict]) -> list[dict]:
    return events[1:]


def add_twice(events: list[dict]) -> list[dict]:
    return [events[0], *events]


def lose_a_key(events: list[dict]) -> list[dict]:
    return [{"event": "add", "step": 1}]


def remove_the_unknown(events: list[dict]) -> list[dict]:
    return [*events, {"event": "remove", "step": 9, "id": "err-00009", "reason": "stale"}]


@pytest.mark.parametrize("damage", [start_late, add_twice, lose_a_key, remove_the_unknown])
def test_a_damaged_log_is_an_error_of_one_sentence(damage: Callable[[list[dict]], list[dict]]) -> None:
    with pytest.raises(UserError, match="give the whole playbook"):
        Playbook.replay(damage(small_playbook().drain_events()))


def test_a_damaged_log_names_the_first_event_that_does_not_follow() -> None:
    events = small_playbook().drain_events()
    for number, damaged in enumerate(([{}, *events], [events[0], {}, *events[1:]], [*events, {}]), 1):
        with pytest.raises(UserError, match=f"^playbook event {(1, 2, 4)[number - 1]} does not follow"):
            Playbook.replay(damaged)


def test_replay_keeps_what_an_entry_was_made_from() -> None:
    playbook = small_playbook()
    playbook.add("heuristics", "made of both", 3, parents=["misc-00001", "str-00002"])
    rebuilt = Playbook.replay(playbook.drain_events())
    assert rebuilt.entries[-1].parents == ("misc-00001", "str-00002")


def test_headings_are_words() -> None:
    playbook = small_playbook()
    playbook.add("common_mistakes", "mind the end", 3)
    for text in (playbook.render("full"), playbook.to_markdown()):
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings == ["## Strategies", "## Common mistakes", "## Others"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


FIELDS = ["", "event", "step", "id", "section", "text", "parents", "tag"]


@given(number=st.integers(0, 2), field=st.sampled_from(FIELDS), value=ANYTHING)
def test_a_damaged_event_is_one_sentence_or_no_damage(number: int, field: str, value: object) -> None:
    events: list = small_playbook().drain_events()
    whole = Playbook.replay(events).state_dict()
    damaged = [*events[:number], value if not field else {**events[number], field: value}, *events[number + 1 :]]
    try:
        rebuilt = Playbook.replay(damaged)
    except UserError:
        return
    fields = {entry["id"] for entry in rebuilt.state_dict()["entries"]}
    assert fields == {entry["id"] for entry in whole["entries"]}
    json.dumps(rebuilt.state_dict())
    rebuilt.render("full").encode()


def test_each_shelf_keeps_its_own_entries_and_ids_are_never_given_twice() -> None:
    playbook = Playbook()
    playbook.turn("a", 1)
    first = playbook.add("strategies", "mind the end", 1)
    playbook.turn("b", 2)
    assert (playbook.entries, playbook.render()) == ([], "")
    second = playbook.add("strategies", "mind the end", 2)  # new here
    assert first
    assert second
    assert second.id != first.id
    assert not playbook.tag(first.id, "helpful", 2)
    playbook.turn("a", 3)
    assert playbook.entries == [first]
    assert playbook.add("strategies", "mind the end", 3) is None
