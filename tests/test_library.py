"""A library in the prompt: what is read from a file, what stays under a cap, and where each placement puts it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from scripted import Words
from test_train import SMALL
from torch.distributed.device_mesh import DeviceMesh

from resd.config import CONF
from resd.context.library import capped, filler, load, read, told
from resd.context.playbook import Playbook
from resd.context.render import Prompts
from resd.evaluate import _evaluate
from resd.settings import LibrarySettings
from resd.types import Problem, UserError

PROBLEM = Problem("one", "solve one")
RULES = ("End every line with a full stop.", "Never say please.", "Write the number twice.")


@pytest.fixture
def library() -> Playbook:
    playbook = Playbook()
    for rule in RULES:
        playbook.add("strategies", rule, step=1)
    for tag, times in (("harmful", 1), ("helpful", 3), ("helpful", 1)):
        first, *_ = [e for e in playbook.entries if not e.helpful + e.harmful]
        for _ in range(times):
            playbook.tag(first.id, tag, step=2)  # type: ignore[arg-type]
    return playbook


def written(path: Path, playbook: Playbook) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in playbook.drain_events()))
    return path


def settings(path: Path | None, **changes: Any) -> LibrarySettings:
    given = {"library": path and str(path), "placement": "before", "cap": None, "filler": False}
    return LibrarySettings(**given, worth=None, left_out=0.5, outcome="per_task").model_copy(update=changes)


def test_the_playbook_of_a_run_is_a_library(tmp_path: Path, library: Playbook) -> None:
    path = written(tmp_path / "playbook.jsonl", library)
    assert read(path).entries == library.entries
    assert load(settings(None)) is None


def test_a_text_file_is_a_rule_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rules.md"
    path.write_text("# Rules\n\n- End every line\n* Never say please\nWrite - twice\n- \n- never say Please.\n")
    assert [entry.text for entry in read(path).entries] == ["End every line", "Never say please", "Write - twice"]


def test_a_cap_keeps_the_best_in_their_order(library: Playbook) -> None:
    assert [[e.text for e in capped(library, cap).entries] for cap in (1, 2, 3, 9)] == [
        [RULES[1]],
        [RULES[1], RULES[2]],
        list(RULES),
        list(RULES),
    ]
    assert len(library) == 3


def test_filler_has_as_many_words_and_none_of_the_rules(library: Playbook) -> None:
    control = filler(library)
    for entry, other in zip(library.entries, control.entries, strict=True):
        assert (other.id, other.helpful, other.harmful) == (entry.id, entry.helpful, entry.harmful)
        assert len(other.text.split()) == len(entry.text.split())
        assert other.text != entry.text
    assert not {"please", "line", "number", "twice"} & set(control.render("compact").split())


SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "solve one"}]
SPOKEN = "Rules learned from earlier problems; apply those that fit:\n" + "\n".join(f"- {rule}" for rule in RULES)


def asked(library: Playbook, placement: str, messages: list[dict[str, str]]) -> list[tuple[str, str]]:
    prompt = told(lambda problem: messages, library, placement, Prompts("compact", "answer"))
    return [(m["role"], m["content"]) for m in prompt(PROBLEM)]


def test_each_placement_puts_it_where_it_says(library: Playbook) -> None:
    system, user = ("system", "Be brief."), ("user", "solve one")
    assert asked(library, "before", SYSTEM) == [system, ("user", f"{SPOKEN}\n\nsolve one")]
    assert asked(library, "after", SYSTEM) == [system, ("user", f"solve one\n\n{SPOKEN}")]
    assert asked(library, "system", SYSTEM) == [("system", f"Be brief.\n\n{SPOKEN}"), user]
    assert asked(library, "system", SYSTEM[1:]) == [("system", SPOKEN), user]
    assert asked(library, "turn", SYSTEM) == [
        system,
        ("user", SPOKEN),
        ("assistant", "I will keep to them."),
        user,
    ]
    rules = "\n".join(f"str-{i:05d}: {rule}" for i, rule in enumerate(RULES, 1))
    assert asked(library, "template", SYSTEM) == [
        system,
        ("user", f"rules:\n{rules}\ntask:\nsolve one\nwrite the answer"),
    ]


def test_the_problem_is_the_last_word_of_the_user(library: Playbook) -> None:
    turns = [*SYSTEM, {"role": "assistant", "content": "what?"}, {"role": "user", "content": "this"}]
    assert asked(library, "before", turns)[:3] == [(m["role"], m["content"]) for m in turns[:3]]
    assert asked(library, "turn", turns)[3:] == [
        ("user", SPOKEN),
        ("assistant", "I will keep to them."),
        ("user", "this"),
    ]


def _for_people() -> str:
    playbook = Playbook()
    playbook.add("strategies", "look at both sides", step=1)
    return playbook.to_markdown()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.md", "# only a heading\n\n- \n", "holds no entry"),
        ("a.jsonl", "", "holds no entry"),
        ("a.jsonl", "- a rule\n", "is not JSON a line"),
        ("a.jsonl", '{"event": "add"}\n', "playbook event 1 does not follow"),
        ("a.txt", b"\xff\xfe", "is not text in UTF-8"),
        ("missing.md", None, "cannot be read"),
        ("playbook.md", _for_people(), "take the playbook.jsonl beside it"),
    ],
)
def test_what_is_no_library_is_one_sentence(tmp_path: Path, name: str, content: Any, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=re.escape(f"library={path}") + f".*{says}"):
        load(settings(path))


def test_a_task_s_own_prompt_is_told_too(library: Playbook) -> None:
    prompt = told(Words().prompt, library, "after", Prompts("full", "answer"))
    assert prompt(PROBLEM)[-1]["content"] == f"solve one\n\n{SPOKEN}"


def evaluated(model: Path, out: Path, *words: str) -> list[str]:
    """What the model was asked."""
    given = [*SMALL[:2], f"checkpoint={model}", f"out={out}", "samples=1", "evaluation.limit=2", *words]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        _evaluate(compose("evaluate", given), given)
    lines = (out / "attempts/step_000000.jsonl").read_text().splitlines()
    return [json.loads(line)["prompt"] for line in lines]


def test_an_evaluation_is_told_the_library(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, library: Playbook, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "playbook.jsonl", library)
    plain = evaluated(tiny_model, tmp_path / "0")
    assert "not read by an evaluation" not in capsys.readouterr().err
    idle = ["steps=3", "optimizer.lr=1"]
    one = evaluated(tiny_model, tmp_path / "1", f"library={path}", "placement=before", "cap=1", "seed=0", *idle)
    assert "not read by an evaluation: steps, optimizer.lr\n" in capsys.readouterr().err
    assert len(plain) == len(one) == 2
    for without, with_it in zip(plain, one, strict=True):
        before, rule, after = with_it.partition(SPOKEN.splitlines()[0] + f"\n- {RULES[1]}\n\n")
        assert rule
        assert without == before + after
    for words, says in (
        (["placement=nowhere"], "placement=nowhere"),
        (["cap=0"], "cap=0"),
        ([f"library={tmp_path}/none"], "cannot be read"),
    ):
        with pytest.raises(UserError, match=says):
            evaluated(tiny_model, tmp_path / "2", *words)
    assert not (tmp_path / "2").exists()
