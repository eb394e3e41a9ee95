"""The report page in a browser: what it shows after clicks."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from reported import (
    HOSTILE,
    attempt,
    browsed,
    choose,
    click,
    needs_browser,
    press,
    report,
    walked,
    write_answers,
    write_run,
)

from resd.report.html import write_report
from resd.report.samples import write_attempts


@needs_browser
def test_a_browser_draws_it_without_complaint(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), [0.0, 0.1, 0.2 * seed, 0.3], seed) for seed in range(2)]
    write_report(runs, tmp_path / "page.html")
    drawn = browsed(tmp_path / "page.html", tmp_path / "profile")
    assert drawn.count('class="chart"') == 6  # four accuracies, a score of the task's own, and the loss
    assert "Test: content, mean" in drawn
    assert drawn.count('<li class="passed"') == 2
    assert drawn.count('role="option"') == 2
    assert "&lt;img src=x" in drawn
    assert "<img" not in drawn


@needs_browser
def test_a_search_goes_through_all_attempts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.0] * 42)
    for step in range(1, 42):
        texts = [f"x\nNeedle.{i}\n" if step % 2 else "" for i in range(9)]
        write_attempts(run, step, [attempt(step, f"p{i}", False, text) for i, text in enumerate(texts)])
    write_report([run], tmp_path / "page.html")
    typed = "const box = document.querySelector('#attempts input[type=search]'); box.value = '{}'; "
    typed += "box.dispatchEvent(new Event('input'));"
    drawn = browsed(tmp_path / "page.html", tmp_path / "profile", typed.format("needle.3"))
    assert "21 of 369 attempts match." in drawn
    assert drawn.count('role="option"') == 21
    assert "<mark>Needle.3</mark>" in drawn
    write_report([run], tmp_path / "page.html")
    drawn = browsed(tmp_path / "page.html", tmp_path / "profile", typed.format("wrong"))
    assert "369 of 369 attempts match." in drawn
    assert drawn.count('role="option"') == 300
    assert "List more (69 left)" in drawn


def with_answers(tmp_path: Path) -> list[Path]:
    """Two runs with two evaluations of three test problems, one of them lost at first."""
    runs = [write_run(tmp_path / name, [0.0, 0.5, 0.5], seed) for seed, name in enumerate(("first", "second"))]
    for run in runs:
        write_answers(run, 0, {"sums": [False, False], "cubes": [False, False], "roots": [None, None]})
        write_answers(run, 2, {"sums": [True, True], "cubes": [True, run.name == "second"], "roots": [False, False]})
    return runs


@needs_browser
def test_a_cell_of_the_grid_opens_what_was_answered(tmp_path: Path) -> None:
    write_report(with_answers(tmp_path)[:1], tmp_path / "page.html")
    find = choose("tests", "problem", "cub")
    closed, opened, found = walked(
        tmp_path / "page.html", tmp_path / "profile", "tests", click("#tests .cell", 3), find
    )
    assert "3 of 3 problems" in closed
    assert closed.endswith("Problem 0 2 sums 0/2 2/2 cubes 0/2 1/2 roots ? 0/2")
    assert "cubes, update 2" in opened
    assert "PROMPT solve cubes RESPONSE 1 (2 TOKENS) ✓ PASSED 10/10 answer 0 of first to cubes at 2" in opened
    assert "RESPONSE 2 (2 TOKENS) ✗ WRONG ANSWER 0/10 answer 1 of first to cubes at 2 FEEDBACK" in opened
    assert opened.count(f"wrong: {HOSTILE}") == 1
    assert "1 of 3 problems" in found


@needs_browser
def test_two_runs_stand_side_by_side_on_one_test_problem(tmp_path: Path) -> None:
    write_report(with_answers(tmp_path), tmp_path / "page.html")
    steps = [choose("tests", "beside it", "1"), choose("tests", "show", "differ")]
    steps += [click("#tests .cell", 1), click("#tests .cell", 2)]
    *_, differ, both, other = walked(tmp_path / "page.html", tmp_path / "profile", "tests", *steps)
    assert "1 of 3 problems" in differ
    assert differ.endswith("cubes 0/2 1/2 0/2 2/2")
    ends = [f"answer 1 of {name} to cubes at {step}" for name in ("first", "second") for step in (0, 2)]
    assert [end in both for end in ends] == [False, True, False, True]
    assert [end in other for end in ends] == [False, True, True, False]


def test_answers_stay_within_their_room_and_the_grid_is_whole(tmp_path: Path) -> None:
    run = with_answers(tmp_path)[0]
    tests = report(tmp_path, run, answers_bytes=1)["data"]["runs"][0]["tests"]
    assert len(tests["answers"]) == 1
    assert tests["steps"] == [0, 2]
    assert tests["cells"] == {"sums": [[0, 2], [2, 2]], "cubes": [[0, 2], [1, 2]], "roots": [[0, 0], [0, 2]]}


def with_lessons(folder: Path) -> Path:
    """A run of three updates whose playbook loses an entry in the third and gains two, one of a known attempt."""
    run = write_run(folder, [0.0] * 4)
    event = {"event": "add", "step": 3, "id": "heu-00003", "section": "heuristics", "text": "c", "attempt": "2/hard/0"}
    with (run / "playbook.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    return run


@needs_browser
def test_the_playbook_of_an_update_and_what_changed_since_another(tmp_path: Path) -> None:
    write_report([with_lessons(tmp_path / "a")], tmp_path / "page.html")
    steps = [
        choose("edition", "update", "2"),
        press("edition", "changes"),
        choose("edition", "compared with update", "2"),
    ]
    last, second, changed, same = walked(tmp_path / "page.html", tmp_path / "profile", "edition", *steps)
    assert "The teacher of update 3 reads 2 entries; since update 2: 2 added, 1 removed, 0 tagged." in last
    assert last.endswith(f"− str-00001 {HOSTILE} ▲ 1 + err-00002 b + heu-00003 c")
    assert "The teacher of update 2 reads 1 entries; since update 1: 0 added, 0 removed, 1 tagged." in second
    assert changed.endswith(f"• str-00001 {HOSTILE} ▲ 1 (+1)")
    assert "since update 2: 0 added, 0 removed, 0 tagged." in same
    assert "str-00001" not in same


@needs_browser
def test_a_part_has_a_playbook_of_its_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.0] * 4)
    turn = {"event": "turn", "step": 2, "id": "other"}
    new = {"event": "add", "step": 2, "id": "heu-00003", "section": "heuristics", "text": "of the other", "parents": []}
    first, *rest = (run / "playbook.jsonl").read_text().splitlines()
    (run / "playbook.jsonl").write_text("\n".join([first, json.dumps(turn), json.dumps(new), *rest[:1]]) + "\n")
    write_report([run], tmp_path / "page.html")
    first_two = [choose("edition", "update", number) for number in ("1", "2")]
    _, one, two = walked(tmp_path / "page.html", tmp_path / "profile", "edition", *first_two)
    assert "1 added" in one
    assert one.endswith(f"+ str-00001 {HOSTILE}")
    assert "reads 1 entries; since update 1: 1 added, 1 removed" in two
    assert two.endswith(f"− str-00001 {HOSTILE} ▲ 1 (+1) + heu-00003 of the other")


@needs_browser
def test_an_entry_leads_to_the_attempts_that_bore_and_tagged_it(tmp_path: Path) -> None:
    write_report([with_lessons(tmp_path / "a")], tmp_path / "page.html")
    bore = click("#playbook .link")
    opened, followed = walked(tmp_path / "page.html", tmp_path / "profile", "attempts", bore)
    assert "hard, update 3 ✗" not in opened.split("PROMPT")[0].split("match.")[0]
    assert "hard, update 2 ✗" in followed
    write_report([tmp_path / "a"], tmp_path / "page.html")
    unfold = "document.querySelector('#playbook details').open = true"
    *_, listed = walked(tmp_path / "page.html", tmp_path / "profile", "playbook", unfold, WAIT)
    assert "tagged 1 times easy, update 2: helpful" in listed
    assert "not known" not in listed
    log = (tmp_path / "a" / "playbook.jsonl").read_text()
    (tmp_path / "a" / "playbook.jsonl").write_text(log.replace(', "attempt": "2/easy/0"', ""))
    write_report([tmp_path / "a"], tmp_path / "page.html")
    *_, older = walked(tmp_path / "page.html", tmp_path / "profile", "playbook", unfold, WAIT)
    assert "tagged 1 times 1 by attempts that are not known here" in older


@needs_browser
def test_a_strip_shows_when_something_went_wrong(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [0.0] * 4, seed) for seed, name in enumerate(("ill", "well"))]
    train = {"kind": "train", "update/not_finite": 0}
    troubles = [
        train | {"step": 2, "reflect/invalid": 3, "tag/invalid": 1, "alarm/length": 0.0, "response/truncated": 0.5},
        train | {"step": 3, "reflect/invalid": 1, "alarm/length": 1.0, "verify/lost": 2},
        {"step": 3, "kind": "eval", "eval/too_long": 1, "part/a/too_long": 7},
    ]
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in troubles)
    write_report(runs, tmp_path / "page.html")
    titles = (
        "const seen_titles = [...document.querySelectorAll('#health rect title')].map((each) => each.textContent); "
    )
    titles += "document.querySelector('#health').append(el('p', {}, seen_titles.join('; ')))"
    first, told = walked(tmp_path / "page.html", tmp_path / "profile", "health", titles)
    assert re.findall(r"(\w[\w ,]*?) (\d) updates?, first (\d)", first.split("seed 0")[1]) == [
        ("alarms", "1", "3"), ("lost", "1", "3"), ("too long, not asked", "1", "3"), ("unusable texts", "2", "2"),
        ("answers cut off", "1", "2"),
    ]  # fmt: skip
    assert "Nothing of the kind: method, seed 1." in first
    assert told.endswith(
        "update 3: alarm/length 1; update 3: verify/lost 2; update 3: eval/too_long 1; "
        "update 2: reflect/invalid 3, tag/invalid 1; update 3: reflect/invalid 1; update 2: response/truncated 0.5"
    )


WAIT = "await new Promise((done) => setTimeout(done, 500))"
LOSS = "[...document.querySelectorAll('figure.chart')].find((each) => each.innerText.startsWith('Loss'))"


def note(found: str) -> str:
    """A step: write what an expression gives at the end of the section."""
    return f"document.querySelector('#curves').append(el('p', {{}}, 'found: ' + JSON.stringify({found})))"


def told(seen: str) -> list[Any]:
    return list(json.loads(seen.rsplit("found: ", 1)[1]))


def drag(first: float, last: float) -> str:
    """A step: drag over the chart of the loss from one update to another, of 0 to 4."""
    return f"""{{ const root = {LOSS}.querySelector('svg'), box = root.getBoundingClientRect();
    for (const [kind, update] of [['down', {first}], ['move', {last}], ['up', {last}]]) {{
      const clientX = box.left + (BOX.left + update / 4 * (BOX.width - BOX.left - BOX.right)) * box.width / BOX.width;
      root.dispatchEvent(new PointerEvent('pointer' + kind, {{ clientX, button: 0, bubbles: true }})); }} }}"""


@needs_browser
def test_a_chart_is_smoothed_zoomed_and_put_on_other_axes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.0] * 5)
    with (run / "metrics.jsonl").open("a") as file:
        rows = [{"step": i, "kind": "train", "response/length": 10 * i, "lr": 10.0**-i} for i in range(1, 5)]
        file.writelines(json.dumps(row) + "\n" for row in rows)
    write_report([run], tmp_path / "page.html")
    chart = f"{LOSS}.querySelector('svg')"
    right = f"{chart}.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'ArrowRight' }}))"
    words = f"[...{LOSS}.querySelectorAll('svg text')].map((each) => each.textContent)"
    places = f"[...{chart}.querySelectorAll('circle')].map((each) => Number(each.getAttribute('cy')))"
    heads = "[...document.querySelectorAll('#curves figcaption')].map((each) => each.firstChild.textContent)"
    steps = {
        "plain": f"{right}; {right}",
        "smooth": f"{choose('curves', 'smoothing', '5')}; {right}; {right}",
        "zoomed": f"{choose('curves', 'smoothing', '1')}; {drag(1.5, 3.2)}; {note(words)}",
        "whole": f"{chart}.dispatchEvent(new MouseEvent('dblclick')); {note(words)}",
        "log": f"{press('curves', 'log')}; {note(places)}",
        "tokens": f"{press('curves', 'linear')}; {press('curves', 'Tokens')}; {note(words)}",
        "also": f"{choose('curves', 'also show', 'time/, lr')}; {note(heads)}",
    }
    _, *texts = walked(tmp_path / "page.html", tmp_path / "profile", "curves", *steps.values())
    seen = dict(zip(steps, texts, strict=True))
    assert "updates 2 method: 0.5" in seen["plain"]
    assert "updates 2 method: 0.611" in seen["smooth"]  # of 1, 1/2 and 1/3
    assert "Show all of it" in seen["zoomed"]
    assert told(seen["zoomed"])[-4:] == ["2", "2.5", "3", "updates"]
    assert "Show all of it" not in seen["whole"]
    assert told(seen["whole"]) == ["0", "0.5", "1", "0", "1", "2", "3", "4", "updates"]
    one, half, _, quarter = told(seen["log"])
    assert half - one == pytest.approx(quarter - half)
    assert told(seen["tokens"])[-6:] == ["0", "50", "100", "150", "200", "tokens"]  # two of 10, 20, 30 and 40 each
    assert told(seen["also"])[-3:] == ["lr", "time/rollout", "time/update"]


def with_losses(folder: Path) -> Path:
    """One update of four attempts: rewards 0.1 to 0.4, lengths 4 to 1, losses of three of them."""
    run = write_run(folder, [0.0, 0.0])
    file = run / "attempts/step_000001.jsonl"
    line = json.loads(file.read_text().splitlines()[0])
    losses = [[0.1, None, 0.3], [0.5], None, [0.4, 0.4]]
    lines = []
    for i, loss in enumerate(losses):
        found = line | {"id": f"1/p{i}/0", "problem": f"p{i}", "tokens": 4 - i, "response": f"text {i}"}
        found["verdict"] = line["verdict"] | {"reward": (i + 1) / 10}
        lines.append(json.dumps(found | ({} if loss is None else {"token_loss": loss})) + "\n")
    file.write_text("".join(lines))
    return run


LISTED = re.compile(r"1 (p\d)")


@needs_browser
def test_attempts_are_ordered_and_filtered_by_reward(tmp_path: Path) -> None:
    write_report([with_losses(tmp_path / "a")], tmp_path / "page.html")
    steps = [choose("attempts", "order", order) for order in ("loss", "shortest", "longest", "")]
    steps += [choose("attempts", "reward from", "0.2"), choose("attempts", "to", "0.3")]
    seen = [
        "".join(LISTED.findall(text.split("match.")[1]))
        for text in walked(tmp_path / "page.html", tmp_path / "profile", "attempts", *steps)
    ]
    assert seen == ["p0p1p2p3", "p1p3p0p2", "p3p2p1p0", "p0p1p2p3", "p0p1p2p3", "p1p2p3", "p1p2"]


@needs_browser
def test_an_address_holds_what_is_looked_at(tmp_path: Path) -> None:
    run = with_losses(tmp_path / "a")
    write_answers(run, 0, {"sums": [False]})
    page, profile = tmp_path / "page.html", tmp_path / "profile"
    write_report([run], page)
    steps = [choose("attempts", "search", "text"), choose("attempts", "order", "longest"), click("#attempts li", 2)]
    steps += [choose("curves", "smoothing", "5"), press("curves", "log"), choose("curves", "also show", "time/")]
    steps += [
        click("#tests .cell"),
        choose("playbook", "search", "<b>&="),
        "await new Promise((done) => setTimeout(done, 500))",
    ]
    steps.append("document.querySelector('#attempts').append(el('p', {}, 'address ' + location.hash))")
    address = walked(page, profile, "attempts", *steps)[-1].rsplit("address ", 1)[1]
    assert address.startswith("#playbook&")
    write_report([run], page)
    everything = "document.querySelector('main').id = 'all'"
    controls = "[...document.querySelectorAll('input, select')].filter((each) => each.type !== 'radio' || each.checked)"
    copy = f"document.querySelector('#attempts').append(el('p', {{}}, {controls}.map((each) => each.value).join('|')))"
    *_, again = walked(page, profile, "attempts", everything, copy, address=address)
    assert "4 of 4 attempts match." in again
    assert "p2, update 1" in again
    assert "|5|log|time/|" in again
    assert again.endswith("|||longest|text")  # no limits of the reward
    assert "<b>&=" in again
    write_report([run], page)
    nonsense = "#tests&tests.run=9&tests.step=x&curves.zoom=1&curves.axis=no&curves.smooth=-1&attempts.step=77&%E0%A4%A"
    assert "4 of 4 attempts match." in walked(page, profile, "attempts", address=nonsense)[0]


@needs_browser
def test_metrics_a_chart_and_the_attempts_shown_are_saved(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.0, 0.5], algorithm={"name": 'a "b", c'})
    file = run / "attempts/step_000001.jsonl"
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    write_report([run], tmp_path / "page.html")
    # the address of what would be saved is an object's: the browser is asked for the object instead
    catch = "globalThis.saved = []; URL.createObjectURL = (blob) => { saved.push(blob); return 'data:,'; }; "
    catch += "HTMLAnchorElement.prototype.click = function () { saved.push(this.download); }"
    steps = [catch, press("curves", "Metrics as CSV"), f"{LOSS}.querySelector('.save').click()"]
    steps += [choose("attempts", "problem", "hard"), press("attempts", "These as JSONL")]
    steps.append(f"const files = await Promise.all(saved.map((each) => each.text?.() ?? each)); {note('files')}")
    files = told(walked(tmp_path / "page.html", tmp_path / "profile", "curves", *steps)[-1])
    assert files[1::2] == ["metrics.csv", "loss.svg", "attempts.jsonl"]
    table = list(csv.DictReader(io.StringIO(files[0])))
    assert [(row["run"], row["update"], row["loss"], row["eval/content/mean@2"]) for row in table] == [
        ('a "b", c, seed 0', "0", "", "0"),
        ('a "b", c, seed 0', "1", "1", "0.5"),
    ]
    drawing = ElementTree.fromstring(files[2])
    assert [each.text for each in drawing.iter("{http://www.w3.org/2000/svg}text")][-2:] == ["Loss", 'a "b", c']
    assert "var(" not in files[2]
    assert re.search(r"stroke: rgb\(", files[2])
    (line,) = files[4].splitlines()
    names = ("id", "problem", "prompt", "response", "teacher_prompt", "tokens", "reflection")
    assert {name: json.loads(line)[name] for name in names} == {name: kept[1][name] for name in names}
    assert json.loads(line)["verdict"]["feedback"] == kept[1]["verdict"]["feedback"]
