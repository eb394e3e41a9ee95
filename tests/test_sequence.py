"""A sequence of tasks: its problems, the order of its blocks, what is measured at their ends, and whole runs."""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import command
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import parse
from test_train import environment, reached, same_end
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.measure.evaluation import limited
from resd.measure.forgetting import difference, interval
from resd.measure.parts import Parts
from resd.observe.blocks import Blocks
from resd.observe.stream import Stream
from resd.report.__main__ import main as report
from resd.report.matrix import Cell, Matrix
from resd.types import Attempt, Problem, UserError, Verdict

REST = "part_tasks:Rest"
TWO = {"a": {"name": REST, "options": {"rest": 0}}, "b": {"name": REST, "options": {"rest": 1}}}
ORDER: dict[str, Any] = {"batch_size": 2, "inner_updates": 1, "epochs": 1, "shuffle": True, "seed": 3}


def sequence(parts: Any = TWO, **options: Any) -> Any:
    return envs.load("sequence", parts=parts, **options)


# ---------------------------------------------------------------------------------------------------- the task


def test_a_sequence_asks_and_judges_as_its_parts_do() -> None:
    parts = {
        "words": {"name": "manufactoria", "options": {"family": "ends"}},
        "numbers": {"name": "countdown", "options": {"train": 9, "test": 4}, "problems": 5},
    }
    task = sequence(parts)
    assert (task.noun, task.self_test()) == ("answer", "")
    for split, counts in (("train", 5), ("test", 4)):
        found = task.problems(split)
        own = {name: envs.load(told["name"], **told["options"]) for name, told in parts.items()}
        assert [p.part for p in found] == ["words"] * len(own["words"].problems(split)) + ["numbers"] * counts
        assert len({problem.id for problem in found}) == len(found)
        for name, one in own.items():
            mine = [problem for problem in found if problem.part == name]
            for problem, theirs in zip(mine, one.problems(split), strict=False):
                assert problem.id == f"{name}/{theirs.id}"
                assert task.prompt(problem) == one.prompt(theirs)
                for said in ("", "<answer>1 + 2</answer>", "nonsense"):
                    assert task.verify(problem, said) == one.verify(theirs, said)


def test_parts_of_one_noun_keep_it_and_get_their_problems_as_they_made_them() -> None:
    task = sequence()
    assert task.noun == "number"
    first = task.problems("test")[0]
    assert (first.id, first.part) == ("a/test-0", "a")
    assert task.verify(first, "").answer == "test-0"


@pytest.mark.parametrize(
    ("parts", "options", "sentence"),
    [
        ({"a": {"name": REST}}, {}, "no sequence of two or more"),
        ([REST, REST], {}, "no sequence of two or more"),
        ({**TWO, "c": {"name": "manufactori"}}, {}, r"parts\.c: no task named 'manufactori' \(did you mean"),
        ({**TWO, "c": {"name": REST, "options": {"rst": 1}}}, {}, r"parts\.c: task .* it takes rest"),
        ({**TWO, "c": {"name": REST, "update": 1}}, {}, r"parts\.c\.update is not known: did you mean updates"),
        ({**TWO, "c": {"name": REST, "updates": 0}}, {}, r"parts\.c\.updates=0 is out of range"),
        ({**TWO, "c": {"name": REST, "problems": 0}}, {}, r"parts\.c\.problems=0 is out of range"),
        ({**TWO, "c": REST}, {}, r"parts\.c='part_tasks:Rest' names no task"),
        ({**TWO, "c/d": {"name": REST}}, {}, "'c/d' is no name of a part"),
        ({**TWO, "c": {"name": "sequence", "options": {"parts": TWO}}}, {}, r"parts\.c is a sequence itself"),
        (TWO, {"updates": 0}, "updates=0 is out of range"),
        (TWO, {"rounds": 0}, "rounds=0 is out of range"),
    ],
)
def test_parts_that_cannot_be_are_refused(parts: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sequence(parts, **options)


def test_a_part_without_problems_or_with_a_broken_judge_is_named() -> None:
    with pytest.raises(UserError, match=r"parts\.c: .*problems\('test'\) gave no problem"):
        sequence({**TWO, "c": {"name": "part_tasks:Untested"}}).problems("test")
    with pytest.raises(UserError, match=r"parts\.c: the judge passes nonsense"):
        sequence({**TWO, "c": {"name": "part_tasks:Broken"}}).self_test()


# ---------------------------------------------------------------------------------------------------- the order


@given(
    st.lists(st.tuples(st.integers(2, 9), st.none() | st.integers(1, 7)), min_size=2, max_size=4),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
)
def test_every_part_goes_on_in_its_own_stream(
    parts: list[tuple[int, int | None]], rounds: int, inner: int, epochs: int
) -> None:
    counts = {str(i): count for i, (count, _) in enumerate(parts)}
    problems = {part: [Problem(f"{part}/{n}", "", part=part) for n in range(count)] for part, count in counts.items()}
    order = ORDER | {"inner_updates": inner}
    blocks = [(str(i), updates) for i, (_, updates) in enumerate(parts)] * rounds
    found = Blocks([p for own in problems.values() for p in own], blocks, **order | {"epochs": epochs})
    streams = {part: Stream(own, **order | {"epochs": 99}) for part, own in problems.items()}
    seen = dict.fromkeys(problems, 0)
    step = 0
    for part, updates in blocks:
        for _ in range(updates or epochs * (len(problems[part]) // 2) * inner):
            step, seen[part] = step + 1, seen[part] + 1
            assert found.batch(step) == streams[part].batch(seen[part])
        assert found.ends[step] == part
    assert len(found) == step == found.updates(None) == found.updates(step)
    assert len(found.ends) == len(blocks)
    for outside in (0, step + 1):
        with pytest.raises(IndexError):
            found.batch(outside)
        with pytest.raises(UserError, match="is not the sum of the blocks"):
            found.updates(outside)


def test_a_part_that_is_too_small_is_named() -> None:
    problems = [Problem(f"{part}/{n}", "", part=part) for part, count in (("a", 3), ("b", 1)) for n in range(count)]
    with pytest.raises(UserError, match="part b: batch_size=2 is larger than the 1 training problems"):
        Blocks(problems, [("a", 1), ("b", 1)], **ORDER)


def test_a_limit_holds_for_each_part() -> None:
    problems = [Problem(f"{part}/{n}", "", part=part) for part in "ab" for n in range(3)]
    assert [p.id for p in limited(problems, 2)] == ["a/0", "a/1", "b/0", "b/1"]
    assert limited(problems, None) == problems
    assert [p.id for p in limited([Problem(str(n), "") for n in range(5)], 2)] == ["0", "1"]


# ---------------------------------------------------------------------------------------------------- changes


def tried(outcomes: Mapping[str, str]) -> list[Attempt]:
    """Attempts of each part, one problem a letter: + passed, - failed."""
    found = []
    for part, marks in outcomes.items():
        for number, mark in enumerate(marks):
            verdict = Verdict(float(mark == "+"), mark == "+", int(mark == "+"), 1)
            problem = Problem(f"{part}/{number}", "", part=part)
            found.append(Attempt("", problem, [], "", [], [1], [0.0], "", False, verdict))
    return found


def test_a_part_is_compared_with_the_end_of_its_own_block() -> None:
    parts = Parts({2: "a", 4: "b", 6: "c"})
    assert parts.measure(0, tried({"a": "--++", "b": "----", "c": "--"}), 0) == {}
    first = parts.measure(2, tried({"a": "++++", "b": "+---", "c": "--"}), 0)
    assert first == {"part/a/ended": 1.0}
    between = parts.measure(3, tried({"a": "+++-", "b": "++--", "c": "--"}), 0)
    assert between["part/a/per_task/change"] == -0.25
    assert not [name for name in between if name.startswith(("part/b", "transfer"))]
    second = parts.measure(4, tried({"a": "++--", "b": "+++-", "c": "--"}), 0)
    assert second["part/a/per_task/change"] == second["transfer/backward"] == -0.5
    third = parts.measure(6, tried({"a": "----", "b": "++++", "c": "+-"}), 0)
    assert (third["part/a/per_task/change"], third["part/b/per_task/change"]) == (-1.0, 0.25)
    assert (third["part/a/per_task/change_low"], third["part/a/per_task/change_high"]) == (-1.0, -1.0)
    assert third["transfer/backward"] == -0.375
    assert third["transfer/backward_low"] == pytest.approx((-1.0 + 0.0) / 2)
    assert "part/c/per_task/change" not in third


def test_a_part_that_comes_again_is_compared_with_its_last_end() -> None:
    parts = Parts({1: "a", 2: "b", 3: "a", 4: "b"})
    parts.measure(1, tried({"a": "++", "b": "--"}), 0)
    assert parts.measure(2, tried({"a": "--", "b": "++"}), 0)["part/a/per_task/change"] == -1.0
    again = parts.measure(3, tried({"a": "+-", "b": "++"}), 0)
    assert "part/a/per_task/change" not in again
    assert again["transfer/backward"] == again["part/b/per_task/change"] == 0.0
    assert parts.measure(4, tried({"a": "++", "b": "++"}), 0)["part/a/per_task/change"] == 0.5


def test_only_problems_that_were_tried_both_times_are_compared() -> None:
    parts = Parts({1: "a", 2: "b"})
    parts.measure(1, tried({"a": "++++", "b": "-"}), 0)
    assert parts.measure(2, tried({"a": "-+", "b": "+"}), 0)["part/a/per_task/change"] == -0.5


def test_the_mean_over_parts_weighs_them_equally_and_draws_in_each() -> None:
    random = np.random.default_rng(1)
    pairs = [
        ({str(i): 0.0 for i in range(count)}, {str(i): float(v) for i, v in enumerate(random.normal(mean, 0.3, count))})
        for mean, count in ((-0.5, 300), (0.1, 30))
    ]
    change, low, high = interval(pairs, 0)
    means = [sum(now.values()) / len(now) for _, now in pairs]
    assert change == pytest.approx(sum(means) / 2)
    error = math.sqrt(sum(np.var([*now.values()]) / len(now) for _, now in pairs)) / 2
    assert (change - low, high - change) == pytest.approx((1.96 * error, 1.96 * error), rel=0.1)
    assert interval(pairs[:1], 5) == difference(*pairs[0], 5)


# ---------------------------------------------------------------------------------------------------- whole runs


def words(model: Path, run_dir: Path, *more: str) -> list[str]:
    parts = "{a: {name: 'part_tasks:Rest', updates: 2}, b: {name: 'part_tasks:Rest', options: {rest: 1}, updates: 3}}"
    return [
        *("task=sequence", f"task.options.parts={parts}", f"model.path={model}", f"run_dir={run_dir}"),
        *("steps=null", "batch_size=2", "inner_updates=2", "evaluation.before=true", "evaluation.every=4"),
        *("evaluation.limit=6", "evaluation.samples=2", "on_empty=warn", "hardware.threads=1", "checkpoints.every=1"),
        *more,
    ]


def solved(run_dir: Path, step: int) -> dict[str, dict[str, float]]:
    """By part and problem, by hand from the kept responses: the share that passed."""
    found: dict[str, dict[str, list[bool]]] = {}
    for line in (run_dir / f"evaluations/step_{step:06d}.jsonl").read_text().splitlines():
        told = json.loads(line)
        part = told["problem"].split("/")[0]
        passed = sum(map(ord, told["response"])) % 3 == "ab".index(part)
        found.setdefault(part, {}).setdefault(told["problem"], []).append(passed)
    return {part: {id: sum(all) / len(all) for id, all in own.items()} for part, own in found.items()}


def mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def test_blocks_come_in_order_and_all_parts_are_tested_at_their_ends(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    done = command.train(capfd, *words(tiny_model, run_dir))
    assert done.status == 0, done.err
    assert "blocks of updates: a 2, b 3" in done.out
    asked = []
    for step in range(1, 6):
        lines = (run_dir / f"attempts/step_{step:06d}.jsonl").read_text().splitlines()
        asked.append([json.loads(line)["problem"] for line in lines])
    assert [{id.split("/")[0] for id in ids} for ids in asked] == [{"a"}, {"a"}, {"b"}, {"b"}, {"b"}]
    assert asked[0] == asked[1] != asked[2] == asked[3] != asked[4]

    rows = [row for row in command.rows(run_dir) if row["kind"] == "eval"]
    assert [row["step"] for row in rows] == [0, 2, 4, 5]  # 4 is evaluation.every
    by_hand = {row["step"]: solved(run_dir, row["step"]) for row in rows}
    for row in rows:
        for part in "ab":
            values = by_hand[row["step"]][part]
            assert values.keys() == {f"{part}/test-{i}" for i in range(6)}
            assert row[f"part/{part}/per_task/mean@2"] == pytest.approx(mean(values))
        both = [*by_hand[row["step"]]["a"].values(), *by_hand[row["step"]]["b"].values()]
        assert row["eval/per_task/mean@2"] == pytest.approx(sum(both) / 12)
    change = mean(by_hand[5]["a"]) - mean(by_hand[2]["a"])
    assert rows[3]["part/a/per_task/change"] == pytest.approx(change, abs=1e-12)
    assert rows[3]["transfer/backward"] == pytest.approx(change, abs=1e-12)
    assert rows[3]["part/a/per_task/change_low"] <= change <= rows[3]["part/a/per_task/change_high"]
    assert by_hand[5]["a"] != by_hand[2]["a"]  # else nothing is shown

    matrix = Matrix.of({row["step"]: row for row in rows})
    assert matrix
    assert [(row.step, row.part) for row in matrix.rows] == [(0, ""), (2, "a"), (5, "b")]
    assert [[cell.accuracy for cell in row.cells] for row in matrix.rows] == [
        [pytest.approx(mean(by_hand[row.step][part])) for part in "ab"] for row in matrix.rows
    ]
    assert [[cell.own for cell in row.cells] for row in matrix.rows] == [[False] * 2, [True, False], [False, True]]
    assert [cell.change is None for row in matrix.rows for cell in row.cells] == [True] * 4 + [False, True]
    assert matrix.rows[2].cells[0] == Cell(
        rows[3]["part/a/per_task/mean@2"],
        tuple(rows[3][f"part/a/per_task/change{end}"] for end in ("", "_low", "_high")),  # type: ignore[arg-type]
        False,
    )

    assert "tasks solved of each part, mean@2 (%)" in done.out
    assert f"backward transfer, the mean of the last changes: {100 * change:+.1f} (" in done.out
    assert report([str(run_dir), "--out", str(tmp_path / "page.html"), "--markdown"]) == 0
    table = next(table for table in parse(tmp_path / "page.html")["tables"] if table[0][0] == "After")
    assert [line[:2] for line in table[1:]] == [["nothing", "0"], ["a", "2"], ["b", "5"]]
    assert table[3][2] == f"{100 * mean(by_hand[5]['a']):.1f}"
    assert table[3][3].startswith(f"{100 * change:+.1f} (")
    assert "| after b | 5 |" in capfd.readouterr().out


def test_a_run_that_is_killed_inside_its_second_block_goes_on_to_the_bit(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    shown = command.train(capfd, *words(tiny_model, whole)).out.partition("tasks solved")[2].partition("best check")[0]
    assert "after b" in shown
    line = [sys.executable, "-m", "resd.train", *command.SMALL, *words(tiny_model, broken)]
    process = subprocess.Popen(line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and reached(broken) < 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = command.train(capfd, *words(tiny_model, broken))
    assert "continuing after update" in done.out, done.err
    same_end(whole, broken, 5)
    assert done.out.partition("tasks solved")[2].partition("best check")[0] == shown


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["steps=4"], "steps=4 is not the sum of the blocks of updates, 5"),
        (["batch_size=16"], "part a: batch_size=16 is larger than the 8 training problems"),
        (["task.options.parts.b.updates=0"], r"parts.b.updates=0 is out of range"),
        (["task.options.parts.b.name=countdwn"], "parts.b: no task named 'countdwn' (did you mean countdown?)"),
        (["+task@task.options.parts.c=countdwn"], "did you mean countdown?"),
        (["task.options.parts={a: {name: 'part_tasks:Rest'}, a: {name: countdown}}"], "parts has a twice"),
    ],
)
def test_a_run_is_refused_in_one_sentence(
    mesh: DeviceMesh,
    tiny_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    more: list[str],
    sentence: str,
) -> None:
    done = command.train(capfd, *words(tiny_model, tmp_path / "run", *more))
    assert done.status == 2
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_playbook_a_block_is_for_sequences(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scope = "algorithm.playbook.scope=block"
    other = ["task=custom", "task.name=part_tasks:Rest", f"model.path={tiny_model}", f"run_dir={tmp_path / 'run'}"]
    done = command.train(capfd, *other, scope)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "algorithm.playbook.scope=block is for a task of parts" in done.err
    assert command.train(capfd, *words(tiny_model, tmp_path / "run", scope)).status == 0
