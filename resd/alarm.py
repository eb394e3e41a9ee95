"""An alarm that every run has: a quantity that leaves the range of the run's own first updates, and stays outside.

The reference of a quantity is the median of its first values, its spread the largest deviation from that among them
but one, so that a single odd update counts for nothing. It rings after `PATIENCE` updates in a row that lie on the same
side of the reference by more than `WIDTH` spreads, and by more than a floor below which a change means nothing.

Words of doubt that disappear may be what is wanted; they ring only while the second task (`forgetting`) is below what
it was at first, with its whole interval.

Not covered: what is wrong from the first update on, and a slow decline of the accuracy, which evaluations show.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resd.settings import AlarmSettings

PATIENCE = 2  # updates
WIDTH = 5.0  # spreads


@dataclass(frozen=True, slots=True)
class Quantity:
    """A metric, and the least `rise` and `fall` that can ring (None: never), each with what it means.

    With `ratio`, changes are counted in factors: as log(value + ratio), where `ratio` is too little to matter. With
    `beside`, nothing rings unless that metric of the second task was below zero when it was measured last.
    """

    metric: str
    rise: tuple[float, str] | None = None
    fall: tuple[float, str] | None = None
    ratio: float | None = None
    beside: str = ""

    def measure(self, value: float) -> float:
        return value if self.ratio is None else math.log(max(value, 0.0) + self.ratio)


QUANTITIES: Mapping[str, Quantity] = {
    "length": Quantity(
        "response/length", (math.log(2), "answers grow"), (math.log(2), "answers shrink to nothing"), ratio=1.0
    ),
    "truncated": Quantity("response/truncated", rise=(0.25, "answers no longer end")),
    "end": Quantity("response/end_logprob", fall=(1.0, "answers end where the student would rather go on")),
    "entropy": Quantity(
        "response/entropy",
        (math.log(2), "the student turns to noise"),
        (math.log(10), "the student always says the same"),
        ratio=0.02,
    ),
    "topk_mass": Quantity("topk_mass", fall=(0.1, "the objective's top_k no longer holds what the student says")),
    "markers": Quantity(
        "style/markers",
        fall=(math.log(2), "words of doubt disappear, and the second task suffers"),
        ratio=0.1,
        beside="forgetting/per_task/change_high",
    ),
    "skipped": Quantity("update/not_finite", rise=(0.5, "gradients are not finite, nothing is learned")),
}


@dataclass(frozen=True, slots=True)
class Ring:
    """A change that lasts since update `since`."""

    what: str
    value: float
    reference: float
    since: int

    def __str__(self) -> str:
        quantity = QUANTITIES[self.what]
        side = quantity.rise if self.value > self.reference or not math.isfinite(self.value) else quantity.fall
        meaning = (side or quantity.rise or quantity.fall or (0.0, ""))[1]
        return (
            f"{quantity.metric} is {self.value:.3g} since update {self.since}, {self.reference:.3g} at first: {meaning}"
        )


class Alarm:
    """Fed once an update. `metrics` of the last update has `alarm/…`: 1 for what is ringing, else 0."""

    def __init__(self, settings: AlarmSettings) -> None:
        self.settings = settings
        self.first: dict[str, list[float]] = {what: [] for what in QUANTITIES}
        self.since: dict[str, list[int]] = {}  # the first update of a streak outside, and its side, 1 or -1
        self.ringing: set[str] = set()
        self.noted: dict[str, float] = {}  # what was measured last of the second task

    @property
    def before(self) -> int | None:
        """The last update before the earliest change that still lasts; None if there is none."""
        return min((since for since, _ in self.since.values()), default=1) - 1 if self.since else None

    @property
    def metrics(self) -> dict[str, float]:
        return {f"alarm/{what}": float(what in self.ringing) for what in QUANTITIES}

    def note(self, metrics: Mapping[str, float]) -> None:
        """What a measurement of the second task gave."""
        besides = {quantity.beside for quantity in QUANTITIES.values()}
        self.noted |= {name: value for name, value in metrics.items() if name in besides}

    def watch(self, step: int, metrics: Mapping[str, float]) -> list[Ring]:
        """What begins to ring with update `step`."""
        rings = []
        for what, quantity in QUANTITIES.items():
            if quantity.metric not in metrics:
                continue
            value = metrics[quantity.metric]
            side = self._side(what, quantity, value)
            began, before = self.since.pop(what, [step, side])
            if not side:
                self.ringing.discard(what)
                continue
            self.since[what] = [began if before == side else step, side]
            if step - self.since[what][0] + 1 >= PATIENCE and what not in self.ringing:
                self.ringing.add(what)
                rings.append(Ring(what, value, statistics.median(self.first[what]), self.since[what][0]))
        return rings

    def _side(self, what: str, quantity: Quantity, value: float) -> int:
        """Whether the value lies above (1) or below (-1) the range; 0 inside it, and while that is being learned."""
        first = self.first[what]
        if len(first) < self.settings.reference:
            if math.isfinite(value):
                first.append(value)
            return 0
        if not math.isfinite(value):
            return 1
        if quantity.beside and self.noted.get(quantity.beside, 0.0) >= 0:
            return 0
        measured = [quantity.measure(each) for each in first]
        median = statistics.median(measured)
        spread = sorted(abs(each - median) for each in measured)[-2]
        change = quantity.measure(value) - median
        for sign, side in ((1, quantity.rise), (-1, quantity.fall)):
            if side is not None and sign * change > max(side[0], WIDTH * spread):
                return sign
        return 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: a resumed run has the same reference, and rings anew for what still lasts."""
        return {"first": self.first, "since": self.since, "noted": self.noted}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from `state`; from nothing, as after a checkpoint from before there were alarms."""
        state = state or {}
        self.first = {what: list(state.get("first", {}).get(what, [])) for what in QUANTITIES}
        self.since = {what: list(streak) for what, streak in state.get("since", {}).items() if what in QUANTITIES}
        self.noted = dict(state.get("noted", {}))
        self.ringing = set()
