"""How far a run is, how fast, and how long it will take; for people."""

import time
from collections.abc import Callable, Mapping


class Pace:
    """Fed once an update. What is left is foreseen from the updates of this process, with what came between them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.begun: tuple[int, float] | None = None
        self.text = ""

    def __str__(self) -> str:
        """`update 5/16  830 tokens/s  0:42 left`, empty before the first update."""
        return self.text

    def note(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """Update `step` of `steps` is over; tokens a second are those that learning reads."""
        now = self.clock()
        if self.begun is None or step <= self.begun[0]:  # or the run went back
            seconds = sum(value for name, value in values.items() if name.startswith("time/"))
            self.begun = (step, now)
        else:
            seconds = (now - self.begun[1]) / (step - self.begun[0])
        speed = values.get("perf/tokens_per_s")
        tokens = f"  {speed:.0f} tokens/s" if speed else ""
        self.text = f"update {step}/{steps}{tokens}  {span(seconds * (steps - step))} left"


def span(seconds: float) -> str:
    """`0:42`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
