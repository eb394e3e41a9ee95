"""The report of a long run: how large it is, how long it takes to make and to open, and what the browser complains of.

    python scripts/bench_report.py RUN [--updates 400] [--attempts 32] [--evaluations 41]

RUN is a real run with its attempts. Its updates, attempts and evaluations are repeated up to these numbers, and the
words of every text drawn anew from all of them, so that little repeats itself and little can be compressed. Opening is
the wall time of headless Chromium from its start until the page is drawn, less that of an empty page.
"""

import argparse
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

TEXTS = ("prompt", "response", "teacher_prompt", "text", "feedback", "answer", "lesson")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr", "--dump-dom")
DRAWN = "--virtual-time-budget=5000"  # until nothing is to be done any more


def rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        yield from map(json.loads, file.read_text().splitlines())


def mixed(value: Any, words: list[str], rng: random.Random, key: str = "") -> Any:
    """The value with other words in its texts, as many as before."""
    match value:
        case dict():
            return {name: mixed(inner, words, rng, name) for name, inner in value.items()}
        case list():
            return [mixed(inner, words, rng, key) for inner in value]
        case str() if key in TEXTS:
            return re.sub(r"\w+", lambda _: rng.choice(words), value)
    return value


def write(folder: Path, lines: list[dict[str, Any]]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("".join(json.dumps(line) + "\n" for line in lines))


def lengthened(run: Path, made: Path, options: argparse.Namespace) -> None:
    rng = random.Random(0)
    attempts = list(rows(sorted((run / "attempts").glob("*.jsonl"))))
    words = sorted({word for row in attempts for word in re.findall(r"\w+", json.dumps(row, ensure_ascii=False))})
    source = cycle(attempts)
    for step in range(1, options.updates + 1):
        taken = islice(source, options.attempts)
        lines = [mixed(row, words, rng) | {"step": step, "id": f"{step}/{i}"} for i, row in enumerate(taken)]
        write(made / "attempts" / f"step_{step:06d}.jsonl", lines)
    answers = cycle(sorted((run / "evaluations").glob("*.jsonl")))
    due = [round(i * options.updates / (options.evaluations - 1)) for i in range(options.evaluations)]
    for step, file in zip(due, answers, strict=False):
        lines = [mixed(row, words, rng) | {"step": step} for row in rows([file])]
        write(made / "evaluations" / f"step_{step:06d}.jsonl", lines)
    metrics = list(rows([run / "metrics.jsonl"]))
    trained, judged = ([row for row in metrics if row["kind"] == kind] for kind in ("train", "eval"))
    history = [row | {"step": step} for step, row in zip(range(1, options.updates + 1), cycle(trained))]
    history += [row | {"step": step} for step, row in zip(due, cycle(judged), strict=False)]
    write(made / "metrics.jsonl", sorted(history, key=lambda row: row["step"]))
    for name in ("config.yaml", "playbook.jsonl", "playbook.md"):
        if (run / name).is_file():
            shutil.copy(run / name, made / name)


def took(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall time, a processor's time of the processes started, and the result."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = work()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result


def opened(page: str, profile: Path) -> subprocess.CompletedProcess[str]:
    command = ["chromium", *FLAGS, DRAWN, f"--user-data-dir={profile}", page]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--attempts", type=int, default=32)
    parser.add_argument("--evaluations", type=int, default=41)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made, page = Path(folder) / "run", Path(folder) / "report.html"
        lengthened(options.run, made, options)
        size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        command = [sys.executable, "-m", "resd.report", str(made), "--out", str(page)]
        wall, cpu, _ = took(lambda: subprocess.run(command, check=True, capture_output=True))
        print(
            f"run {size / 1e6:.0f} MB, page {page.stat().st_size / 1e6:.1f} MB, made in {wall:.1f} s ({cpu:.1f} s CPU)"
        )
        profile = Path(folder) / "profile"
        opened("about:blank", profile)  # which makes the profile
        empty, _, _ = took(lambda: opened("about:blank", profile))
        wall, _, done = took(lambda: opened(page.as_uri(), profile))
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        listed = done.stdout.count('role="option"')
        print(f"opened in {wall - empty:.1f} s ({wall:.1f} with an empty page's {empty:.1f}), {listed} attempts listed")
        print(f"{len(said)} console messages", *said, sep="\n")


if __name__ == "__main__":
    main()
