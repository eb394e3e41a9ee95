"""A library judged under sets of its entries: what each set is told, what is kept, said and shown of it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from scripted import SAMPLING, World, model_settings, problems
from test_report import parse, report, write_run
from test_train import SMALL
from torch.distributed.device_mesh import DeviceMesh

import resd
from resd import seeds
from resd.config import CONF
from resd.context.playbook import UNNAMED, Playbook
from resd.evaluate import _evaluate
from resd.measure.ablation import ablate, conclusion, metrics
from resd.measure.worth import draw, rank_correlation
from resd.model.chat import Chat
from resd.report.__main__ import main
from resd.report.result import show
from resd.settings import EvaluationSettings, LibrarySettings
from resd.types import UserError

EVALUATION = EvaluationSettings(every=0, before=False, samples=1, temperature=1.0, top_p=1.0, limit=None)
ASKED = {"evaluation": {"samples": 1}}
RULES = ("begin well", "end well", "be brief", "be kind", "do not answer", "the weather was mild")
ADDS = {"begin": 0.3, "end": 0.25, "brief": 0.2, "kind": 0.15, "not": -0.35}


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


def library(*rules: str) -> Playbook:
    found = Playbook()
    for rule in rules:
        found.add(UNNAMED, rule, step=0)
    return found


def settings(**changes: Any) -> LibrarySettings:
    given = {"library": "rules.txt", "placement": "before", "cap": None, "filler": False}
    return LibrarySettings(**given | {"worth": 32, "left_out": 0.5, "outcome": "per_task"} | changes)


def says(text: str) -> str:
    """Right as often as the rules in the prompt add up to."""
    chance = 0.2 + sum(added for word, added in ADDS.items() if f" {word}" in text)
    return "right" if seeds.derive(text) / 2**63 < chance else "wrong"


def ablated(chat: Chat, folder: Path, rules: Playbook, out: Path | None = None, **changes: Any) -> dict[str, Any]:
    ids, script = [f"p{i}" for i in range(24)], changes.pop("script", says)
    world = World(folder, chat, "resd", dict.fromkeys(ids, script))
    world.run.sampling = SAMPLING.model_copy(update={"max_prompt": changes.pop("max_prompt", 1000)})
    return ablate(world.run, problems(*ids), EVALUATION, rules, settings(**changes), ASKED, out)


def test_planted_entries_are_found_and_dishonest_tags_too(chat: Chat, tmp_path: Path) -> None:
    rules = library(*RULES)
    for entry, helpful in zip(rules.entries, (4, 3, 2, 1, 9, 0), strict=True):
        for _ in range(helpful):
            rules.tag(entry.id, "helpful", 1)
    found = ablated(chat, tmp_path, rules, worth=48)
    assert len(found["sets"]) == 48
    assert {e["text"] for e in found["entries"][-2:]} == {RULES[4], RULES[5]}
    worst, neutral = found["entries"][-1], found["entries"][-2]
    assert worst["text"] == RULES[4]
    assert worst["high"] < 0 < found["entries"][0]["low"]
    assert neutral["low"] < 0 < neutral["high"]
    assert (worst["helpful"], worst["harmful"]) == (9, 0)
    values = np.array([entry["worth"] for entry in found["entries"]])
    expected = rank_correlation(values, np.array([float(entry["helpful"]) for entry in found["entries"]]))
    assert tuple(found["tags"].values()) == expected
    assert expected is not None
    assert expected[0] < 0.5
    assert found["notes"] == []
    named = metrics(found)
    assert named[f"worth/{worst['id']}/high"] == worst["high"]
    assert named["worth/tags/correlation"] == expected[0]


def test_each_set_is_told_what_it_says(chat: Chat, tmp_path: Path) -> None:
    asked = []

    def noted(text: str) -> str:
        asked.append(text)
        return says(text)

    found = ablated(chat, tmp_path, library(*RULES), script=noted, worth=40, left_out=0.1)
    different = {tuple(of["told"]): of for of in found["sets"]}
    assert len(different) < 40
    assert len(asked) == len(different) * 24  # no set is judged twice
    for number, of in enumerate(different.values()):
        told = [rule for i, rule in enumerate(RULES, 1) if f"err-{i:05d}" in of["told"]]
        for text, scored in zip(asked[24 * number :], of["scores"], strict=False):
            assert [line[2:] for line in text.splitlines() if line.startswith("- ")] == told
            assert scored == float(says(text) == "right")


def test_it_goes_on_where_it_was(chat: Chat, tmp_path: Path) -> None:
    calls = []

    def stops(text: str) -> str:
        calls.append(text)
        if len(calls) > 24 * 5:
            raise KeyboardInterrupt
        return says(text)

    rules = library(*RULES)
    whole = ablated(chat, tmp_path, rules, worth=16)
    with pytest.raises(KeyboardInterrupt):
        ablated(chat, tmp_path, rules, tmp_path, script=stops, worth=16)
    part = json.loads((tmp_path / "worth.json").read_text())
    assert len(part["sets"]) == 5
    assert "entries" not in part
    assert ablated(chat, tmp_path, rules, tmp_path, worth=16) == whole
    assert json.loads((tmp_path / "worth.json").read_text()) == whole
    assert ablated(chat, tmp_path, rules, tmp_path, script="never asked again", worth=16) == whole
    for other in ({"worth": 18}, {"outcome": "per_case"}, {"placement": "after"}):
        with pytest.raises(UserError, match=r"worth\.json is about other entries, settings or problems"):
            ablated(chat, tmp_path, rules, tmp_path, **{"worth": 16, **other})
    with pytest.raises(UserError, match="about other entries"):
        ablated(chat, tmp_path, library(*RULES[:5]), tmp_path, worth=16)


def test_what_cannot_be_said_is_said(chat: Chat, tmp_path: Path) -> None:
    found = ablated(chat, tmp_path, library(*RULES), script="wrong", worth=16)
    assert [note.split(",")[0] for note in found["notes"]] == [
        "All sets of entries scored the same on every problem",
        "16 of 16 sets scored nothing",
        "Nothing can be said of the tags: no entry has any.",
    ]
    assert {entry["low"] for entry in found["entries"]} == {None}
    assert found["tags"] == {"correlation": None, "low": None, "high": None}
    assert set(metrics(found).values()) == {0.0}
    one = ablated(
        chat, tmp_path, library("begin well"), worth=16, script=lambda text: says(text).replace("w", "lost w")
    )
    assert one["entries"][0]["low"] is not None
    assert one["notes"][0] == "A rank correlation with the tags wants four entries, and there are 1."
    assert re.fullmatch(r"\d+ answers have no verdict, and count as failed\.", one["notes"][1])
    alike = library(*RULES)
    for entry in alike.entries:
        alike.tag(entry.id, "harmful", 1)
    cut = ablated(chat, tmp_path, alike, worth=16, max_prompt=60)
    assert "helpful less harmful is the same for every entry" in " ".join(cut["notes"])
    assert "prompts are beyond rollout.max_prompt, and count as failed" in cut["notes"][-1]
    world = World(tmp_path, chat, "resd", {})
    for count, there in ((0, "none"), (1, "1")):
        with pytest.raises(UserError, match=f"worth=32 needs two problems, and there is {there}"):
            ablate(world.run, problems(*["one"][:count]), EVALUATION, library(*RULES), settings(), ASKED, None)


# ------------------------------------------------------------------------------------------------ the whole program


def evaluated(model: Path, *words: str) -> None:
    given = [*SMALL[:2], f"checkpoint={model}", "samples=1", "evaluation.limit=2", "progress=off", *words]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        _evaluate(compose("evaluate", given))


def test_the_command_measures_and_the_report_shows_it(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", [0.0, 0.5])
    rules, out = tmp_path / "rules.txt", f"out={run}"
    rules.write_text("- End every line.\n- Never say please.\n")
    evaluated(tiny_model, f"library={rules}", "worth=8", "placement=before", out)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said == {"worth/err-00001": 0.0, "worth/err-00002": 0.0}  # a random model is never right
    record = json.loads((run / "worth.json").read_text())
    assert [len(of["scores"]) for of in record["sets"]] == [2] * 8
    assert {id for of in record["sets"] for id in of["told"]} == {"err-00001", "err-00002"}
    assert main([str(run), "--out", str(tmp_path / "page.html"), "--markdown"]) == 0
    assert "| `err-00002` | Never say please. | 0 | 0 | +0.0 | – |" in capsys.readouterr().out
    given = {"task.name": "verifier_tasks:Echo", "evaluation.limit": 2, "library": str(rules), "worth": 8}
    assert resd.evaluate(tiny_model, "custom", samples=1, **given, progress="off") == said
    capsys.readouterr()
    for words, says in (
        (["worth=8"], "worth=8 wants entries: write library="),
        ([f"library={rules}", "worth=3"], "take worth=8 or more"),
        ([f"library={rules}", "worth=8", "left_out=0.6"], "left_out=0.6"),
        ([f"library={rules}", "worth=8", "evaluation.limit=1"], "needs two problems"),
        ([f"library={rules}", "worth=8", "placement=after", out], "is about other entries"),
    ):
        with pytest.raises(UserError, match=re.escape(says)):
            evaluated(tiny_model, *words)


# ------------------------------------------------------------------------------------------------------ the report


def record() -> dict[str, Any]:
    """What a measurement leaves: the first entry is worth half, the third less than nothing."""
    told_S_E, random = draw(4, 16, 0.5, 0), np.random.default_rng(0)
    chance_S = 0.4 + told_S_E @ np.array([0.5, 0.0, -0.3, 0.0])
    scores_S_P = (random.random((16, 40)) < chance_S[:, None]).astype(float)
    ids = [f"err-{i}" for i in range(4)]
    found: dict[str, Any] = {
        "settings": {**settings(worth=16).model_dump(), "evaluation": {"samples": 1}},
        "library": [
            {"id": id, "section": UNNAMED, "text": f"rule | {id} <b>", "helpful": i, "harmful": 3 - i}
            for i, id in enumerate(ids)
        ],
        "problems": [str(i) for i in range(40)],
        "sets": [
            {"told": [id for id, t in zip(ids, told, strict=True) if t], "scores": list(s), "lost": 0, "too_long": 0}
            for told, s in zip(told_S_E, scores_S_P, strict=True)
        ],
    }
    return found | conclusion(found)


def test_a_report_has_a_section_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, run = write_run(tmp_path / "a", [0.0, 0.1]), write_run(tmp_path / "b", [0.0, 0.1], seed=1)
    assert "worth" not in {dict(a).get("id") for _, a in report(tmp_path, plain)["tags"]}
    weighed = record()
    (run / "worth.json").write_text(json.dumps(weighed))
    page = report(tmp_path, plain, run)
    assert ("section", {"id": "worth"}) in page["tags"]
    [table] = [table for table in page["tables"] if "Worth" in table[0]]
    assert [row[:4] for row in table[1:]] == [
        [e["id"], e["text"], str(e["helpful"]), str(e["harmful"])] for e in weighed["entries"]
    ]
    assert table[1][0] == "err-0"
    assert table[-1][0] == "err-2"
    best = weighed["entries"][0]
    assert table[1][4:6] == [f"{100 * best['worth']:+.1f}", f"{100 * best['low']:.1f} to {100 * best['high']:.1f}"]
    html = (tmp_path / "report.html").read_text()
    assert "method, seed 1" in html
    assert "Rank correlation of helpful less harmful with worth: -0." in html
    assert "over 16 sets, each entry left out of 0.5 of them; 40 problems x 1" in html
    places = [float(a["cx"]) for tag, a in page["tags"] if tag == "circle"]
    assert places == sorted(places, reverse=True)
    zero = {a["x1"] for tag, a in page["tags"] if tag == "line" and a.get("class") == "cross"}
    assert len(zero) == 1
    assert places[-1] < float(zero.pop()) < places[0]
    styles = [a["style"] for tag, a in page["tags"] if tag == "circle"]
    assert (styles[0], styles[-1]) == ("fill: var(--good)", "fill: var(--bad)")
    assert main([str(run), "--out", str(tmp_path / "page.html"), "--markdown"]) == 0
    assert f"| `err-2` | rule \\| err-2 \\<b> | 2 | 1 | {table[-1][4]} |" in capsys.readouterr().out


def test_a_folder_with_nothing_else_is_reported_and_what_is_none_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weighed, file = record(), tmp_path / "only" / "worth.json"
    file.parent.mkdir()
    file.write_text(json.dumps(weighed))
    assert main([str(file.parent), "--out", str(tmp_path / "page.html")]) == 0
    assert [t for t in parse(tmp_path / "page.html")["tables"] if "Worth" in t[0]]
    file.write_text(json.dumps({name: weighed[name] for name in ("settings", "library", "problems", "sets")}))
    assert main([str(file.parent), "--out", str(tmp_path / "page.html")]) == 0
    assert not [t for t in parse(tmp_path / "page.html")["tables"] if "Worth" in t[0]]
    capsys.readouterr()
    file.write_text("[1")
    assert main([str(file.parent), "--out", str(tmp_path / "page.html")]) == 2
    assert "is not what `resd evaluate worth=N` writes" in capsys.readouterr().err


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    show({}, record())
    lines = capsys.readouterr().out.splitlines()
    [best] = [line for line in lines if "err-0 " in line]
    assert "rule | err-0 <b>" in best
    assert [line.split()[1] for line in lines if line.startswith("│ err-")][:1] == ["err-0"]
    assert any(line.startswith("Rank correlation of helpful less harmful") for line in lines)
