"""Variants of one computation, each in a process of its own, that take turns: what the benchmarks share.

A script starts itself again with `--serve NAME` for each variant. The process prints its versions, then makes one run
for each line of standard input and prints what `measured` found, so that a busy machine disturbs all variants alike.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MIB = 2**20


def measured(run: Callable[[], float | None], clock: str) -> dict[str, float | None]:
    """Seconds (`clock`: wall or cpu), the peak of resident memory beyond what was held before, and the loss."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = _resident("VmRSS")
    now = time.process_time if clock == "cpu" else time.perf_counter
    start = now()
    loss = run()
    seconds = now() - start
    return {"seconds": seconds, "mib": (_resident("VmHWM") - before) / MIB, "loss": loss}


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def serve(run: Callable[[], dict[str, float | None]], versions: Mapping[str, Any]) -> None:
    """A variant's process."""
    print(json.dumps(dict(versions)), flush=True)
    for _ in sys.stdin:
        print(json.dumps(run()), flush=True)


class Variant:
    """A variant's process as its parent sees it. The first run also warms up; it counts for memory, not for time."""

    def __init__(self, name: str, python: str, *arguments: str, exact_memory: bool = False) -> None:
        command = [python, *sys.argv, *arguments, "--serve", name]
        # large blocks go back to the system when they are freed, so that resident memory is memory in use
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MIB)} if exact_memory else None
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.versions = self._read()
        self.first = self.run()
        self.runs: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended early")
        return json.loads(line)

    @property
    def seconds(self) -> list[float]:
        return [run["seconds"] for run in self.runs]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def take_turns(variants: Mapping[str, Variant], repeats: int) -> None:
    """`repeats` runs of each variant, one at a time; then their processes end."""
    for _ in range(repeats):
        for variant in variants.values():
            variant.runs.append(variant.run())
    for variant in variants.values():
        variant.process.communicate()
