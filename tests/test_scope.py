"""RESD's playbook over the blocks of a sequence: one for the run, one a block, one a part."""

import json
from pathlib import Path

import pytest
from scripted import Line, World, model_settings

from resd.algorithms import settings
from resd.context.playbook import Playbook
from resd.model.chat import Chat

SCRIPT: dict[str, Line] = {
    "reflect": "lesson: mind it",
    "tag": "neutral: err-00001",
    "curate": lambda text: f"add err: rule after {text.count('err-')} others",
}


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


def world(chat: Chat, folder: Path, scope: str, name: str = "resd") -> World:
    more = {"entries": ("given",)} if name == "resd_fixed" else {}
    return World(folder, chat, name, SCRIPT, playbook__scope=scope, playbook__frequency=100, **more)


def sizes(world: World, *ids: str) -> list[int]:
    """Entries that the reflector sees in updates on these problems."""
    found = []
    for id in ids:
        world.update(id)
        found.append(world.asked("reflect")[0].count("err-0"))
    return found


@pytest.mark.parametrize(
    ("scope", "expected"), [("run", [0, 1, 2, 3, 4, 5]), ("block", [0, 1, 0, 1, 0, 1]), ("part", [0, 1, 0, 1, 2, 3])]
)
def test_a_playbook_lasts_as_long_as_its_scope(chat: Chat, tmp_path: Path, scope: str, expected: list[int]) -> None:
    one = world(chat, tmp_path, scope)
    assert sizes(one, "a/one", "a/two", "b/one", "b/two", "a/one", "a/two") == expected
    log = [json.loads(line) for line in (tmp_path / "playbook.jsonl").read_text().splitlines()]
    assert Playbook.replay(log).state_dict() == one.algorithm.state()["playbook"]
    reasons = {event["reason"] for event in log if event["event"] == "remove"}
    assert reasons == ({"block"} if scope == "block" else set())
    ids = [event["id"] for event in log if event["event"] == "add"]
    assert len(set(ids)) == len(ids) == 6


@pytest.mark.parametrize("scope", ["run", "block", "part"])
def test_a_resumed_run_goes_on_in_its_block(chat: Chat, tmp_path: Path, scope: str) -> None:
    parts = ("a/one", "b/one", "b/two", "a/one")
    (tmp_path / "whole").mkdir()
    whole = sizes(world(chat, tmp_path / "whole", scope), *parts)
    for stop in (1, 2, 3):
        folders = [tmp_path / f"{stop}{half}" for half in "ab"]
        for folder in folders:
            folder.mkdir()
        first, second = (world(chat, folder, scope) for folder in folders)
        seen = sizes(first, *parts[:stop])
        second.algorithm.restore(json.loads(json.dumps(first.algorithm.state())))
        second.run.journal.step = stop
        assert seen + sizes(second, *parts[stop:]) == whole


def test_entries_that_are_given_stay_in_every_block(chat: Chat, tmp_path: Path) -> None:
    for scope in ("block", "part"):
        (tmp_path / scope).mkdir()
        assert sizes(world(chat, tmp_path / scope, scope, "resd_fixed"), "a/one", "b/one", "a/one") == [1, 1, 1]


def test_old_settings_mean_one_for_the_run(chat: Chat, tmp_path: Path) -> None:
    values = world(chat, tmp_path, "part").algorithm.settings.model_dump()
    del values["playbook"]["scope"]
    assert settings(values).playbook.scope == "run"  # type: ignore[attr-defined]
