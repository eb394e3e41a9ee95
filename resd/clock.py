"""Where the seconds of an update go."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Seconds per phase. A phase inside another one stops the outer one, so that phases add up to wall time."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = now()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._turn()
        self._open.append(phase)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = self.now()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def read(self) -> dict[str, float]:
        """`time/<phase>` since the last read."""
        seconds = {f"time/{phase}": value for phase, value in self.seconds.items()}
        self.seconds.clear()
        return seconds
