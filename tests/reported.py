"""Run directories for reports, and pages read as a parser and as a browser see them."""

import base64
import gzip
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from resd.report.html import write_report
from resd.report.log import Log
from resd.report.ranking import METRICS
from resd.report.samples import write_attempts
from resd.types import Attempt, Problem, Reflection, Verdict

needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
NAMES = [name.format(n=4) for name in METRICS]
HOSTILE = "</script><img src=x onerror=alert(1)><!-- <b>"


def attempt(step: int, problem: str, passed: bool, response: str, cases: int = 0) -> Attempt:
    verdict = Verdict(float(passed), passed, 10 if passed else cases, 10, "" if passed else f"wrong: {HOSTILE}")
    reflection = None if passed else Reflection(f"lesson of {response}", {"str-00001": "helpful"})
    prompt = f"solve {problem}"
    return Attempt(
        f"{step}/{problem}/0", Problem(problem, prompt), [], prompt, [], [1, 2], [0.0, 0.0], response, False,
        verdict, reflection, f"{prompt} knowing better",
    )  # fmt: skip


def write_run(folder: Path, scores: Sequence[float], seed: int = 0, **settings: Any) -> Path:
    """A run directory with one evaluation before and one after each of `len(scores) - 1` updates of two attempts."""
    folder.mkdir()
    config = {"seed": seed, "run_dir": str(folder), "algorithm": {"name": "method"}, "task": {"name": "toy"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | settings))
    log = Log(folder, talks=False)
    for step, score in enumerate(scores):
        if step:
            log.metrics(
                step, "train", {"loss": 1 / step, "interactions": 2 * step, "time/rollout": 2, "time/update": 1}
            )
            attempts = [attempt(step, "easy", step > 1, f"a\n{step}\nz"), attempt(step, "hard", False, HOSTILE, step)]
            write_attempts(folder, step, attempts)
        accuracies = {name: score + i / 100 for i, name in enumerate(NAMES)}
        accuracies["eval/reward/mean@4"] = accuracies["eval/per_task/mean@4"]  # which says no more than passes do
        log.metrics(step, "eval", accuracies | {"eval/content/mean@2": score})
    log.close()
    events = [
        {"event": "add", "step": 1, "id": "str-00001", "section": "strategies", "text": HOSTILE, "parents": []},
        {"event": "tag", "step": 2, "id": "str-00001", "tag": "helpful", "attempt": "2/easy/0"},  # one that passed
        {"event": "remove", "step": 3, "id": "str-00001", "reason": "stale"},
        {"event": "add", "step": 3, "id": "err-00002", "section": "common_mistakes", "text": "b", "parents": ["x"]},
    ]
    (folder / "playbook.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def write_answers(folder: Path, step: int, outcomes: Mapping[str, Sequence[bool | None]]) -> None:
    """The evaluation after an update: whether each answer to a test problem passed, None for a lost one."""
    answers = []
    for problem, row in outcomes.items():
        for i, passed in enumerate(row):
            answer = attempt(step, problem, bool(passed), f"answer {i} of {folder.name} to {problem} at {step}")
            answers.append(replace(answer, verdict=None) if passed is None else answer)
    write_attempts(folder, step, answers, folder="evaluations")


def parse(file: Path) -> dict[str, Any]:
    """The tags with attributes, the cells of every table, and the embedded data of a page."""
    tags: list[tuple[str, dict[str, str | None]]] = []
    tables: list[list[list[str]]] = []
    scripts: list[str] = []
    inside: list[str] = []
    parser = HTMLParser()

    def start(tag: str, attributes: list[tuple[str, str | None]]) -> None:
        tags.append((tag, dict(attributes)))
        inside.append(tag)
        if tag == "table":
            tables.append([])
        elif tag == "tr":
            tables[-1].append([])
        elif tag in ("td", "th"):
            tables[-1][-1].append("")
        elif tag == "script":
            scripts.append("")

    def text(data: str) -> None:
        if inside[-1:] == ["script"]:
            scripts[-1] += data
        elif {"td", "th"} & set(inside[-3:]):
            tables[-1][-1][-1] += data

    def end(tag: str) -> None:
        while inside.pop() != tag:  # elements without an end
            assert inside, f"a lone </{tag}>"

    parser.handle_starttag, parser.handle_data, parser.handle_endtag = start, text, end  # type: ignore[method-assign]
    parser.feed(file.read_text())
    data = json.loads(gzip.decompress(base64.b64decode(scripts[0])))
    return {"tags": tags, "tables": tables, "scripts": scripts, "data": data}


def report(tmp_path: Path, *runs: Path, **options: Any) -> dict[str, Any]:
    write_report(runs, tmp_path / "report.html", **options)
    return parse(tmp_path / "report.html")


def browsed(page: Path, profile: Path, then: str = "", address: str = "") -> str:
    """The page as a browser has drawn it, after `then` was run in it."""
    if then:
        script = f"<script>setTimeout(async () => {{ {then} }}, 1000)</script></body>"
        page.write_text(page.read_text().replace("</body>", script))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--dump-dom"]
    command = [
        "chromium",
        *flags,
        "--virtual-time-budget=5000",
        f"--user-data-dir={profile}",
        f"file://{page}{address}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    return done.stdout


def walked(page: Path, profile: Path, part: str, *steps: str, address: str = "") -> list[str]:
    """The words of a section of the page as it is opened and after each step, as a reader sees them."""
    script = f"""const seen = [];
    const look = () => seen.push(document.getElementById("{part}").innerText.split(/\\s+/).join(" "));
    look(); {" ".join(f"{step}; look();" for step in steps)}
    document.body.append(el("pre", {{ id: "seen" }}, encodeURIComponent(JSON.stringify(seen))));"""
    drawn = browsed(page, profile, script, address)
    return list(json.loads(unquote(drawn.split('<pre id="seen">')[1].split("<")[0])))


def click(selector: str, number: int = 0) -> str:
    """A step: click on an element of the page."""
    return f"document.querySelectorAll({json.dumps(selector)})[{number}].click()"


def press(part: str, text: str) -> str:
    """A step: click on the button, or the choice, that says this."""
    return (
        f"[...document.querySelectorAll('#{part} button, #{part} .segments label')]"
        f".find((each) => each.textContent.startsWith({json.dumps(text)})).click()"
    )


def choose(part: str, label: str, value: str) -> str:
    """A step: choose an option of the list that has this label, or write into the field that has it."""
    return (
        f"{{ const field = [...document.querySelectorAll('#{part} label')]"
        f".find((each) => each.firstChild.textContent === {json.dumps(label)}).querySelector('input, select'); "
        f"field.value = {json.dumps(value)}; for (const kind of ['input', 'change']) "
        "field.dispatchEvent(new Event(kind, {bubbles: true})) }"
    )
