"""Hands what a run logs to its trackers. They are no part of the run: none delays it, changes it or ends it.

Each has a thread of its own. What one does not take is counted, and said once with the reason; after a few failures in
a row it is asked no more. `trackers.json` keeps their ids, so that a resumed run goes on with the same ones.
"""

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from resd import files
from resd.report import trackers
from resd.report.trackers import Tracker

FILE = "trackers.json"
PATIENCE = 3  # failures in a row
SECONDS = 120.0  # to finish in, at the end

Work = Callable[[Tracker], None]
Say = Callable[[str], None]


class Tracking:
    """The trackers of one run. `settings` are flat; `say` tells people something at once."""

    def __init__(self, names: Sequence[str], run_dir: Path, settings: Mapping[str, Any], say: Say) -> None:
        self.file = run_dir / FILE
        self.lock = threading.Lock()
        self.ids = _ids(self.file)
        self.threads = [_Thread(name, partial(self._begin, name, run_dir, settings), say) for name in names]

    def _begin(self, name: str, run_dir: Path, settings: Mapping[str, Any]) -> Tracker:
        tracker = trackers.begin(name, self.ids.get(name), run_dir, settings)
        with self.lock:
            self.ids[name] = tracker.id
            files.replace(self.file, json.dumps(self.ids))
        return tracker

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """A point of each curve; what is no finite number is left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._all(lambda tracker: tracker.metrics(step, finite))

    def text(self, step: int, name: str, text: str) -> None:
        """The text that a file `name` has after update `step`."""
        self._all(lambda tracker: tracker.text(step, name, text))

    def _all(self, work: Work) -> None:
        for thread in self.threads:
            thread.queue.put(work)

    def close(self, ok: bool = True) -> None:
        """Let them finish; `ok` is whether the run ended in order."""
        self._all(lambda tracker: tracker.close(ok))
        for thread in self.threads:
            thread.close()


class _Thread:
    def __init__(self, name: str, begin: Callable[[], Tracker], say: Say) -> None:
        self.name, self.begin, self.say = name, begin, say
        self.queue: SimpleQueue[Work | None] = SimpleQueue()
        self.lost = self.failures = 0
        self.thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        tracker: Tracker | None = None
        while (work := self.queue.get()) is not None:
            if self.failures >= PATIENCE:
                self.lost += 1
                continue
            try:
                tracker = tracker or self.begin()
                work(tracker)
                self.failures = 0
            except Exception as error:
                if not self.lost:
                    self.say(f"tracker {self.name} failed ({files.reason(error)}); the run goes on without it")
                self.lost += 1
                self.failures += 1

    def close(self) -> None:
        self.queue.put(None)
        self.thread.join(SECONDS)
        if self.thread.is_alive():
            self.say(f"tracker {self.name} did not finish in {SECONDS:.0f} s and is left; metrics.jsonl has everything")
        elif self.lost:
            self.say(f"tracker {self.name} did not take {self.lost} write(s); metrics.jsonl has everything")


def _ids(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_bytes())
        return {str(name): str(id) for name, id in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}  # then they begin new runs there
