"""The report page: its numbers, its grouping, and that it loads and executes nothing that a run wrote."""

import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from reported import HOSTILE, attempt, parse, report, write_answers, write_run
from torch.distributed.device_mesh import DeviceMesh

from resd.config import CONF, validate
from resd.context.playbook import Playbook
from resd.report.__main__ import main
from resd.report.embed import spread
from resd.report.groups import checkpoints, estimate, group_runs
from resd.report.html import histogram, notes, percent
from resd.report.ranking import METRICS
from resd.report.read import RunRecord, read_run, read_runs
from resd.report.samples import write_attempts
from resd.report.trace import choose_problems, difference, shorten, traces
from resd.train import train
from resd.types import UserError


def scores_of(page: dict[str, Any], evaluation: str) -> list[list[str]]:
    """The four accuracies of each method's row with this name in the first table."""
    return [row[-4:] for row in page["tables"][0] if row[-7:-6] == [evaluation]]


def test_a_real_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, out = tmp_path / "run", tmp_path / "page.html"
    arguments = [
        *("task=custom", "task.name=verifier_tasks:Echo", f"model.path={tiny_model}", f"run_dir={run_dir}"),
        *("batch_size=4", "inner_updates=2", "steps=2", "evaluation.every=1", "evaluation.samples=2"),
        *("rollout.max_response=12", "rollout.max_prompt=200", "model.max_prompt=800"),
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(validate(compose("config", arguments)))
    assert main([str(run_dir), "--out", str(out)]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    page = parse(out)
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    names = [name.format(n=2) for name in METRICS]
    for label, row in (("base", evaluations[0]), ("last", evaluations[-1])):
        assert scores_of(page, label) == [[f"{100 * row[name]:.1f}" for name in names]]
    timeline = page["data"]["runs"][0]["timeline"]
    assert timeline["steps"] == [0, 1, 2]
    assert timeline["interactions"] == [0, 4, 8]
    updates = [row for row in rows if row["kind"] == "train"]
    assert timeline["columns"]["loss"] == [None, *(pytest.approx(row["loss"], rel=1e-5) for row in updates)]
    phases = ("rollout", "verify", "reflect", "tag", "curate", "teacher", "update", "sync")
    spent = sum(row.get(f"time/{phase}", 0.0) for row in updates for phase in phases)
    assert timeline["seconds"][-1] == pytest.approx(spent, abs=0.02)
    assert len(page["data"]["runs"][0]["attempts"]) == 8


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = report(tmp_path, write_run(tmp_path / "a", [0.1, 0.2]))
    for tag, attributes in page["tags"]:
        assert tag not in ("iframe", "object", "embed", "img", "base")
        assert "src" not in attributes
        assert all(re.match(r"#|data:", attributes[name] or "") for name in ("href", "action") if name in attributes)
    text = (tmp_path / "report.html").read_text()
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML|eval\(", text)
    policy = next(a["content"] for _, a in page["tags"] if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_what_a_model_wrote_stays_text(tmp_path: Path) -> None:
    settings = {"algorithm": {"name": HOSTILE}, "task": {"name": HOSTILE}, "model": {"path": HOSTILE}}
    page = report(tmp_path, write_run(tmp_path / "a", [0.1, 0.2, 0.3], **settings), title=HOSTILE)
    tags = [tag for tag, _ in page["tags"]]
    assert tags.count("script") == 2
    assert "img" not in tags
    data = page["data"]
    response = data["runs"][0]["attempts"][1]["response"]
    assert "\n".join(data["lines"][i] for i in response) == HOSTILE
    assert data["runs"][0]["playbook"][0]["text"] == HOSTILE
    assert HOSTILE in page["tables"][0][2][0]


def test_seeds_of_a_method_are_joined(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"s{seed}", [0.0, score], seed) for seed, score in enumerate((0.1, 0.2, 0.3))]
    other = write_run(tmp_path / "other", [0.0, 0.5], algorithm={"name": "method", "group": 8})
    page = report(tmp_path, *runs, other)
    half = 4.303 * 10.0 / 3**0.5  # Student's t with two degrees of freedom, a standard deviation of ten points
    assert scores_of(page, "last") == [
        [f"{20 + i:.1f} ± {half:.1f}" for i in range(4)],
        [f"{50 + i:.1f}" for i in range(4)],
    ]
    assert [group["runs"] for group in page["data"]["groups"]] == [[0, 1, 2], [3]]
    assert [group["label"] for group in page["data"]["groups"]] == ["method group=null", "method group=8"]


def test_runs_may_differ_in_a_setting_and_be_seeds_of_one_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        write_run(tmp_path / f"{name}{seed}", [0.0, score], seed, algorithm={"name": name}, task={"rules": f"r:{seed}"})
        for name, scores in {"a": (0.1, 0.2, 0.3), "b": (0.5, 0.6, 0.7)}.items()
        for seed, score in enumerate(scores)
    ]
    assert len(group_runs(read_runs(runs))) == 6
    out = str(tmp_path / "report.html")
    assert main([*map(str, runs), "--across", "task.rules", "--out", out, "--markdown"]) == 0
    assert "| a | 3 | last | 2 | 20.0 ± " in capsys.readouterr().out
    page = parse(tmp_path / "report.html")
    assert [(group["label"], group["runs"]) for group in page["data"]["groups"]] == [("a", [0, 1, 2]), ("b", [3, 4, 5])]


def test_a_directory_given_twice_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.1, 0.2])
    assert len(read_runs([run, tmp_path / "." / "a", run])) == 1


def test_best_is_by_rank_sum_and_never_the_base(tmp_path: Path) -> None:
    group = group_runs([read_run(write_run(tmp_path / "a", [0.9, 0.2, 0.4, 0.3]))])[0]
    assert [(c.name, c.steps, c.interactions) for c in checkpoints(group)] == [
        ("base", [0], [0]),
        ("best", [2], [4]),
        ("last", [3], [6]),
    ]


def test_unfinished_runs_are_announced(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), [0.1] * (2 + seed), seed, steps=2) for seed in range(2)]
    group = group_runs(read_runs(runs))[0]
    assert notes([group]) == ["method: unfinished, its runs have made 1, 2 of 2 updates."]
    assert notes(group_runs(read_runs(runs[1:]))) == []


def test_labels_name_what_leaves_the_majority(tmp_path: Path) -> None:
    names = [
        {"name": "a"},
        {"name": "b", "teacher_prompt": {"reflection": False}},
        {"name": "b"},
        {"name": "b", "k": 1},
    ]
    runs = [write_run(tmp_path / str(i), [0.1], algorithm=algorithm) for i, algorithm in enumerate(names)]
    assert [group.label for group in group_runs(read_runs(runs))] == ["a", "b reflection=false", "b", "b k=1"]


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30), st.floats(-5, 5))
def test_an_interval_moves_with_its_values(values: list[float], shift: float) -> None:
    one, two = estimate(values), estimate([value + shift for value in values])
    assert one.half is not None
    assert two.mean == pytest.approx(one.mean + shift, abs=1e-9)
    assert two.half == pytest.approx(one.half, abs=1e-9)
    assert one.half >= 0
    assert percent(estimate(values[:1])) == f"{100 * values[0]:.1f}"


def test_half_written_lines_and_odd_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.1, 0.2])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": null, "kind": "train"}\n{"step": "3", "kind": "eval"}\n' + "[" * 100_000 + "\n")
        file.write('{"step": 2, "kind": "train", "loss": NaN, "grad_norm": Infinity}\n{"step": 3, "kin')
    for name in ("attempts/step_000001.jsonl", "playbook.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 1, "eve')
    data = report(tmp_path, run)["data"]["runs"][0]
    assert data["timeline"]["steps"] == [0, 1, 2]
    assert data["timeline"]["columns"]["loss"] == [None, 1.0, None]
    assert len(data["attempts"]) == 2
    assert len(data["playbook"]) == 2


def test_copies_beside_the_files_of_a_run_are_not_its_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.1, 0.2, 0.3])
    for name in ("attempts/step_1.jsonl", "attempts/step_000001.jsonl.jsonl", "attempts/step_0000001.jsonl"):
        shutil.copy(run / "attempts/step_000001.jsonl", run / name)
    data = report(tmp_path, run)["data"]["runs"][0]
    assert [attempt["step"] for attempt in data["attempts"]] == [1, 1, 2, 2]
    assert spread([0, 2, 2, 4]) == [4, 0, 2]


def test_a_configuration_or_a_folder_may_have_any_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.1, 0.2])
    (run / "config.yaml").write_bytes(b"seed: \xff\xfe")
    with pytest.raises(UserError, match=r"config\.yaml is not a configuration"):
        read_run(run)
    (run / "config.yaml").unlink()
    report(tmp_path, run.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")))


def test_only_metrics_are_needed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "bare", [0.1, 0.2])
    shutil.rmtree(run / "attempts")
    (run / "playbook.jsonl").unlink()
    (run / "config.yaml").unlink()
    page = report(tmp_path, run)
    assert page["data"]["groups"][0]["label"] == "bare"
    (run / "metrics.jsonl").write_text("")
    assert report(tmp_path, run)["data"]["runs"][0]["timeline"]["steps"] == []


@pytest.mark.parametrize("wrong", ["nowhere", "empty", "report.html"])
def test_what_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / wrong), "--out", str(tmp_path / "out.html")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{wrong} is not a run directory" in said
    assert not (tmp_path / "out.html").exists()


def test_other_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a", [0.1])
    assert main([str(run), "--out", str(tmp_path / "no" / "such" / "page.html")]) == 2
    assert "choose another --out" in capsys.readouterr().err
    (run / "config.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"config\.yaml is not a configuration"):
        read_run(run)


def test_attempts_stay_within_their_room(tmp_path: Path) -> None:
    """What does not fit is left out evenly; texts that repeat themselves take next to nothing."""
    chance = random.Random(0)
    for name, text in (("odd", lambda: chance.randbytes(300).hex()), ("same", lambda: "0123456789" * 60)):
        run = write_run(tmp_path / name, [0.0] * 30)
        for step in range(1, 30):
            write_attempts(run, step, [attempt(step, f"p{step}-{i}", False, text()) for i in range(10)])
    data = report(tmp_path, tmp_path / "odd", attempts_bytes=40_000)["data"]
    found = data["runs"][0]
    assert found["attempts_total"] == 290
    assert 20 < len(found["attempts"]) < 290
    assert len(gzip.compress(json.dumps([found["attempts"], data["lines"]]).encode())) < 42_000
    assert {found["attempts"][0]["step"], found["attempts"][-1]["step"]} == {1, 29}
    for name, room in (("odd", 1_000_000), ("same", 40_000)):
        assert len(report(tmp_path, tmp_path / name, attempts_bytes=room)["data"]["runs"][0]["attempts"]) == 290


@given(st.lists(st.integers(0, 1000), unique=True, max_size=50).map(sorted))
def test_spread_reorders(steps: list[int]) -> None:
    assert sorted(spread(steps)) == steps
    assert set(spread(steps)[:2]) == {*steps[:1], *steps[-1:]}


def test_a_trace_goes_from_failing_to_passing(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", [0.0] * 4))
    assert choose_problems(run, 5) == ["easy"]  # "hard" only came nearer
    items = traces(run, 5)["easy"]
    assert [item["verdict"]["passed"] for item in items] == [False, True, True]
    assert items[1]["diff"] == [(" ", "a"), ("-", "1"), ("+", "2"), (" ", "z")]
    assert items[0]["reflection"] == "lesson of a\n1\nz"
    assert [entry["id"] for item in items for entry in item["added"]] == ["str-00001", "err-00002"]


def test_a_retry_is_no_attempt_of_its_own_in_a_trace(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [0.0] * 4)
    before = traces(read_run(folder), 5)
    for file in (folder / "attempts").iterdir():
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        retries = [
            line | {"id": f"{line['id']}/retry", "parent": line["id"], "verdict": line["verdict"] | {"passed": True}}
            for line in lines
        ]
        file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *retries]))
    after = read_run(folder)
    assert choose_problems(after, 5) == ["easy"]
    assert traces(after, 5) == before


LINES = st.lists(st.sampled_from("abc"), max_size=12)


@given(LINES, LINES)
def test_a_difference_holds_both_sides(before: list[str], after: list[str]) -> None:
    found = difference(before, after)
    assert [line for sign, line in found if sign != "+"] == before
    assert [line for sign, line in found if sign != "-"] == after


@given(st.text(max_size=60), st.integers(2, 40))
def test_a_shortened_text_keeps_its_ends(text: str, characters: int) -> None:
    short = shorten(text, characters)
    if len(text) > characters:
        half = characters // 2
        assert (short[:half], short[-half:]) == (text[:half], text[-half:])
        assert f"{len(text) - 2 * half} characters" in short
    else:
        assert short == text


def test_the_life_of_an_entry(tmp_path: Path) -> None:
    first, second = read_run(write_run(tmp_path / "a", [0.0] * 4)).playbook
    assert (first["born"], first["removed"], first["reason"]) == (1, 3, "stale")
    assert first["tags"] == [(2, "helpful", "2/easy/0")]
    assert (second["born"], second["removed"], second["parents"]) == (3, None, ["x"])


def test_histogram_of_an_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.0])
    assert histogram(read_run(run)) is None
    outcomes = {"p": [True, True], "q": [False, True], "r": [False, False], "s": [False, False]}
    attempts = [attempt(0, problem, passed, "x") for problem, row in outcomes.items() for passed in row]
    (run / "attempts").mkdir(exist_ok=True)
    write_attempts(run, 0, attempts)
    assert histogram(read_run(run)) == [2, 1, 1]


def test_token_losses_are_optional(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.0, 0.1])
    file = run / "attempts/step_000001.jsonl"
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    first |= {"token_loss": [0.123456, float("nan")], "token_text": ["a", "\n1\nz"]}
    file.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    coded, bare = report(tmp_path, run)["data"]["runs"][0]["attempts"]
    assert (coded["token_loss"], coded["token_text"]) == ([0.123, None], ["a", "\n1\nz"])
    assert "token_loss" not in bare


def test_torch_is_not_needed() -> None:
    code = "import sys, resd.report.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_markdown_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / f"s{seed}", [0.0, score], seed) for seed, score in enumerate((0.1, 0.2, 0.3))]
    assert main([*map(str, runs), "--out", str(tmp_path / "report.html"), "--markdown"]) == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[1:]]
    half = 4.303 * 10.0 / 3**0.5
    assert ["method", "3", "last", "2", *(f"{20 + i:.1f} ± {half:.1f}" for i in range(4))] in lines
    assert lines[-1][:3] == ["method", "1", "2"]
    assert lines[-1][-1] == f"20.0 ± {half:.1f}"


def test_signs_of_markdown_in_a_name_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a|b `c` <d> \\e\nf"
    run = write_run(tmp_path / "a", [0.0, 0.1], algorithm={"name": name})
    assert main([str(run), "--out", str(tmp_path / "report.html"), "--markdown"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines()[1:] if line]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {10, 7}
    assert sum(line.startswith(r"| a\|b \`c\` \<d> \\e f | ") for line in lines) == 5


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "playbook.jsonl"])
def test_a_file_of_a_run_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = write_run(tmp_path / "a", [0.0, 0.1])
    (run / name).unlink()
    (run / name).symlink_to("/proc/self/mem")  # whose first page cannot be read
    assert main([str(run), "--out", str(tmp_path / "report.html")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {run / name} cannot be read (Input/output error): ")
    assert "--out" not in said


@pytest.mark.parametrize(
    ("patience", "says"),
    [
        (None, "method: unfinished, its runs have made 3 of 20 updates."),
        (3, "method: unfinished, its runs have made 3 of 20 updates."),
        (2, "method: its runs have made 3 of 20 updates, and ended without a new best (evaluation.patience=2)."),
    ],
)
def test_a_run_that_patience_ended_is_not_unfinished(tmp_path: Path, patience: int | None, says: str) -> None:
    run = write_run(tmp_path / "a", [0.0, 0.5, 0.2, 0.3], steps=20, evaluation={"patience": patience})
    assert notes(group_runs(read_runs([run]))) == [says]


def asked_otherwise(run: Path, step: int, problems: int, samples: int = 4) -> None:
    """From this update on, the test problems were more, and so many samples were drawn."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "eval":
            row["eval/asked/problems"] = problems if row["step"] >= step else 2
    lines = (json.dumps(row).replace("@4", f"@{samples if row['step'] >= step else 4}") + "\n" for row in rows)
    (run / "metrics.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(("problems", "samples"), [(9, 4), (2, 8)])
def test_only_evaluations_that_were_asked_alike_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], problems: int, samples: int
) -> None:
    run = write_run(tmp_path / "a", [0.0, 0.9, 0.2, 0.1])
    asked_otherwise(run, 2, problems, samples)
    (group,) = group_runs(read_runs([run]))
    assert [(found.name, found.steps, found.alike) for found in checkpoints(group)] == [
        ("base", [0], False),
        ("best", [2], True),
        ("last", [3], True),
    ]
    assert [found.scores[0].mean for found in checkpoints(group) if found.scores[0]] == [0.0, 0.2, 0.1]
    (note,) = notes([group])
    assert "its evaluations after updates 0, 1 were asked otherwise than the last one" in note
    assert main([str(run), "--out", str(tmp_path / "report.html"), "--markdown"]) == 0
    assert "| method | 1 | base, asked otherwise | 0 | 0.0 |" in capsys.readouterr().out
    names = [row[-7] for row in parse(tmp_path / "report.html")["tables"][0] if len(row) >= 7]
    assert names[-3:] == ["base, asked otherwise", "best", "last"]


def test_the_answers_of_an_evaluation_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "a", [0.0, 0.1])
    for step in (0, 1):
        write_answers(run, step, {"p": [True, False], "q": [None]})
    read: list[int] = []
    kept = RunRecord.kept

    def counted(record: RunRecord, folder: str, step: int) -> list[dict[str, Any]]:
        read.extend([step] if folder == "evaluations" else [])
        return kept(record, folder, step)

    monkeypatch.setattr(RunRecord, "kept", counted)
    tests = report(tmp_path, run)["data"]["runs"][0]["tests"]
    assert sorted(read) == tests["steps"] == [0, 1]
    assert tests["cells"] == {"p": [[1, 2], [1, 2]], "q": [[0, 0], [0, 0]]}


def test_the_playbook_of_a_branch_has_what_it_began_with(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.0, 0.1])
    playbook = Playbook()
    playbook.add("strategies", "mind the end", 1)
    playbook.add("strategies", "gone", 1)
    playbook.tag("str-00001", "helpful", 2)
    events = [playbook.beginning(2)]
    playbook.drain_events()
    playbook.tag("str-00001", "harmful", 3)
    playbook.remove("str-00002", "stale", 3)
    events += playbook.drain_events()
    (run / "playbook.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    kept, gone = read_run(run).playbook
    assert (kept["born"], kept["tags"], gone["removed"]) == (1, [(2, "helpful", None), (3, "harmful", None)], 3)
    assert Playbook.replay(events).state_dict() == playbook.state_dict()
