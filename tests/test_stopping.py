"""Rules that end the learning of a library, what drift is, and what each rule costs on a curve that is known."""

import importlib
import json
from pathlib import Path

import pytest

from resd.context.lineage import drift
from resd.context.playbook import UNNAMED, Playbook
from resd.context.stopping import exhausted, restless


def test_patience_counts_updates_since_the_best() -> None:
    assert not exhausted([], 1)
    assert not exhausted([0.1, 0.2, 0.2], 2)  # the first of equals is the best
    assert exhausted([0.1, 0.2, 0.2, 0.1], 2)
    assert not exhausted([0.1, 0.2, 0.1, 0.3], 2)
    assert exhausted([0.0], 0)


def test_a_share_must_lie_above_the_limit_twice_in_a_row() -> None:
    assert not restless([0.9], 0.6)
    assert not restless([0.9, 0.6], 0.6)
    assert not restless([0.9, None], 0.6)
    assert not restless([0.9, 0.9, 0.1, 0.9], 0.6)
    assert restless([0.1, 0.7, 0.61], 0.6)


def test_drift_is_what_is_gone_of_an_earlier_library() -> None:
    library = Playbook()
    for step, text in enumerate(["one", "two", "three", "four"], start=1):
        library.add(UNNAMED, f"rule {text}", step)
    first, second, third, _ = [entry.id for entry in library.entries]
    library.remove(first, "delete", 2)  # gone before the window begins
    library.remove(second, "delete", 4)
    library.remove(third, "update", 5)
    events = library.drain_events()
    events.sort(key=lambda event: event["step"])
    assert drift(events, 3) is None  # three updates before there was nothing
    assert drift(events, 5) == 1.0  # after update 2 only the second was there
    assert drift(events, 6) == 0.5 + 0.5  # of the second and third none is left
    assert drift(events, 6, window=2) == 0.5  # of the third and fourth one is
    assert drift(events, 9) == 0.0


def written(folder: Path, tests: list[float], passed: list[float], **series: list[float | None]) -> Path:
    """A run with an evaluation after every update."""
    folder.mkdir(parents=True)
    rows = [{"step": step, "kind": "eval", "eval/per_task/mean@2": value} for step, value in enumerate(tests)]
    rows += [
        {"step": step, "kind": "train", "train/per_task": value}
        | {f"library/{name}": values[step - 1] for name, values in series.items() if values[step - 1] is not None}
        for step, value in enumerate(passed, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    return importlib.import_module("stopping")


def test_regret_is_what_the_best_update_had_more(script, tmp_path: Path) -> None:
    run = written(
        tmp_path / "run",
        [0.0, 0.2, 0.8, 0.5, 0.6],
        [0.1, 0.4, 0.4, 0.3],
        churn=[0.0, 0.9, 0.9, 0.0],
        drift=[None, None, None, 0.5],
    )
    rows = {row.rule: row for row in script.scored([run])}
    assert rows["to the end"].stops == [4]
    assert rows["to the end"].regrets == pytest.approx([0.2])
    assert rows["patience=1"].stops == [3]
    assert rows["patience=1"].regrets == pytest.approx([0.3])
    assert rows["patience=2"].stops == [4]
    assert rows["max_churn=0.6"].stops == [3]
    assert rows["max_drift=0.3"].stops == [4]  # once is not twice in a row
    assert rows["best in training"].stops == [1]  # whose library the second update tried
    assert rows["best in training"].regrets == pytest.approx([0.6])


def test_a_gated_run_is_held_against_the_best_of_its_twin(script, tmp_path: Path) -> None:
    free = written(tmp_path / "free/seed_1", [0.0, 0.9, 0.3], [0.5, 0.5])
    gated = written(tmp_path / "gated/seed_1", [0.0, 0.7, 0.8], [0.5, 0.5])
    [row] = [row for row in script.scored([free], [gated]) if row.rule == "gate"]
    assert row.stops == [2]
    assert row.regrets == pytest.approx([0.1])
    other = written(tmp_path / "gated/seed_2", [0.0, 0.7], [0.5])
    with pytest.raises(Exception, match="seed_2 has no run without a gate beside it"):
        script.scored([free], [other])


def test_a_run_that_was_not_evaluated_is_one_sentence(script, tmp_path: Path) -> None:
    run = written(tmp_path / "run", [0.0], [0.5, 0.5])
    with pytest.raises(Exception, match=r"run was not evaluated after update 1: write evaluation\.every=1"):
        script.scored([run])


def test_an_author_who_spoils_changes_the_same_rules_whatever_the_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import scripted_author
    from nano.dialects import RULES

    def decided(learned: str, spoil: float, turn: int = 0) -> list[str]:
        rules = "\n".join(f"err-0000{n}: {official}" for n, (official, _) in enumerate(RULES.values(), start=1))
        text = f"Rules so far:\n{rules}\nLearned:\n- {learned}\nChange the rules"
        said = scripted_author.answer("", {"messages": [{"content": text}]}, spoil, turn)
        return said["choices"][0]["message"]["content"].splitlines()

    assert decided("Indent by four.", 0.0) == ["none"]
    assert decided("Be quick.", 0.0) == ["add: Be quick."]
    some = decided("Indent by four.", 0.5)
    assert 0 < len(some) < len(RULES)
    assert decided("Be quick.", 0.5) == ["add: Be quick.", *some]
    assert any(decided("Indent by four.", 0.5, turn) != some for turn in range(1, 9))
    every = decided("Indent by four.", 1.0)
    assert len(every) == len(RULES)
    assert {"delete", "update"} == {line.split()[0] for line in every}
    for line in every:
        if line.startswith("update"):
            number = int(line.split()[1][-2:-1])
            assert line.partition(": ")[2] == list(RULES.values())[number - 1][1]
