"""What the log of events says about the lives of entries, against values worked out by hand."""

from typing import Any

import pytest

from resd.context.lineage import half_life, rewritten
from resd.context.parts import Change
from resd.context.playbook import Playbook
from resd.context.revision import revise


def add(id: str, step: int, *parents: str) -> dict[str, Any]:
    return {"event": "add", "step": step, "id": id, "section": "others", "text": f"rule {id}", "parents": list(parents)}


def remove(id: str, step: int) -> dict[str, Any]:
    return {"event": "remove", "step": step, "id": id, "reason": "update"}


def test_half_life_counts_those_that_still_live() -> None:
    # Four are born at update 1; two die at ages 2 and 4, one is born late and was only watched for one update.
    events = [*(add(id, 1) for id in "abcd"), remove("a", 3), add("e", 4, "a"), remove("b", 5)]
    # Age 2: one of four dies (e was watched for 1), 3/4 live; age 4: one of three, 1/2 live.
    assert half_life(events) == 4
    assert half_life(events[:-1]) is None
    assert half_life([]) is None
    assert half_life([add("a", 1), remove("a", 1)]) == 0
    tags = [{"event": "tag", "step": 9, "id": "c", "tag": "helpful"}]
    assert half_life([add("c", 1), add("d", 1), *tags, remove("d", 9)]) == 8


def test_rewritten_is_the_share_with_parents() -> None:
    assert rewritten([add("a", 1), add("b", 1), remove("a", 2), add("c", 2, "a", "b")]) == pytest.approx(1 / 3)
    assert rewritten([]) == 0.0


def test_a_log_of_changes_replays_to_the_library() -> None:
    library = Playbook()
    revise(library, [Change("first rule"), Change("second rule"), Change("third rule")], 1)
    first, second, third = [entry.id for entry in library.entries]
    revision = revise(library, [Change("both in one", (first, second)), Change("", (third,)), Change("fourth one")], 2)
    assert (revision.removed, revision.churn) == ((first, second, third), 1.0)
    assert [entry.text for entry in library.entries] == ["both in one", "fourth one"]
    assert library.entries[0].parents == (first, second)
    events = library.drain_events()
    assert [event["reason"] for event in events if event["event"] == "remove"] == ["merge", "merge", "delete"]
    assert Playbook.replay(events).state_dict() == library.state_dict()
    # What is added and replaced in one update leaves no trace in what was removed.
    once = revise(library, [Change("for a moment"), Change("for good", ("err-00006",))], 3)
    assert (once.added, once.removed, once.churn) == (("err-00007",), (), 0.0)


def test_words_that_are_there_are_not_written_again() -> None:
    library = Playbook()
    revise(library, [Change("first rule"), Change("second rule")], 1)
    ids = [entry.id for entry in library.entries]
    same = [Change("First rule."), Change("second rule", (ids[0],)), Change("first rule", (ids[0],))]
    assert revise(library, same, 2).refused["duplicate"] == 3
    assert [entry.id for entry in library.entries] == ids
    # Merging may keep the words of one of them.
    revise(library, [Change("first rule", tuple(ids))], 3)
    assert [entry.text for entry in library.entries] == ["first rule"]
