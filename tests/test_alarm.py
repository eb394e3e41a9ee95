"""The alarm: it is silent on noise and on learning, rings for each kind of collapse, and what a run does about it."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from resd.alarm import QUANTITIES, Alarm
from resd.settings import AlarmSettings

SETTINGS = AlarmSettings(reference=8, rollbacks=2, lr_factor=0.5)
Series = dict[str, "np.ndarray[Any, Any]"]


def healthy(seed: int, updates: int = 200) -> Series:
    """Stationary noise, wider than even small batches make it; one step in a thousand is skipped."""
    draw = np.random.default_rng(seed)
    return {
        "response/length": draw.lognormal(4.0, 0.2, updates),
        "response/truncated": draw.binomial(32, 0.15, updates) / 32,
        "response/end_logprob": -draw.gamma(4, 0.1, updates),
        "response/entropy": draw.lognormal(-1.0, 0.2, updates),
        "topk_mass": 1 - draw.beta(2, 60, updates),
        "update/not_finite": (draw.random(updates) < 0.001).astype(float),
    }


def listen(series: Series, alarm: Alarm | None = None, start: int = 0) -> dict[str, int]:
    """By quantity, the first update that rang."""
    alarm = alarm or Alarm(SETTINGS)
    rang: dict[str, int] = {}
    for i in range(start, len(next(iter(series.values())))):
        for ring in alarm.watch(i + 1, {name: float(values[i]) for name, values in series.items()}):
            rang.setdefault(ring.what, i + 1)
    return rang


def test_stationary_noise_never_rings() -> None:
    assert [rang for seed in range(300) if (rang := listen(healthy(seed)))] == []


def test_learning_never_rings() -> None:
    """What a run that goes well does: surer by a factor of seven, a third shorter, fewer cut off."""
    for seed in range(50):
        series = healthy(seed, 60)
        time = np.linspace(0, 1, 60)
        series["response/entropy"] = 0.045 * 7**-time * np.exp(np.random.default_rng(seed).normal(0, 0.1, 60))
        series["response/length"] = series["response/length"] * 0.66**time
        series["response/truncated"] = series["response/truncated"] * (1 - time)
        assert listen(series) == {}


COLLAPSES: dict[str, tuple[str, Callable[[float], float]]] = {
    "answers of a few tokens": ("length", lambda _: 3.0),
    "answers without an end": ("length", lambda value: 30 * value),
    "all cut off": ("truncated", lambda _: 1.0),
    "an end that is never wanted": ("end", lambda value: value - 8),
    "noise": ("entropy", lambda _: 6.0),
    "always the same": ("entropy", lambda _: 0.0),
    "not a number": ("entropy", lambda _: float("nan")),
    "mass elsewhere": ("topk_mass", lambda _: 0.3),
    "no steps": ("skipped", lambda _: 1.0),
}


@pytest.mark.parametrize("kind", COLLAPSES)
def test_every_collapse_rings_in_its_second_update(kind: str) -> None:
    what, change = COLLAPSES[kind]
    for seed in range(20):
        series = healthy(seed, 40)
        values = series[QUANTITIES[what].metric]
        values[30:] = [change(value) for value in values[30:]]
        assert listen(series) == {what: 32}


def test_an_outlier_does_not_ring_and_does_not_spoil_the_reference() -> None:
    series = healthy(1, 40)
    series["response/length"][[3, 20]] = 5000
    assert listen(series) == {}
    series["response/length"][30:] = 5000
    assert listen(series) == {"length": 32}


def test_it_rings_once_until_the_range_is_reached_again() -> None:
    alarm, rang = Alarm(SETTINGS), []
    lengths = [50.0, 52, 48, 51, 49, 50, 52, 48, 3, 3, 3, 50, 3, 3]
    for step, length in enumerate(lengths, 1):
        rang += [(step, str(ring)) for ring in alarm.watch(step, {"response/length": length})]
        assert alarm.metrics["alarm/length"] == (step in (10, 11, 14))
        assert alarm.before == {9: 8, 10: 8, 11: 8, 13: 12, 14: 12}.get(step)
    assert [step for step, _ in rang] == [10, 14]
    assert rang[0][1] == "response/length is 3 since update 9, 50 at first: answers shrink to nothing"


@pytest.mark.parametrize("cut", [5, 20, 31])
def test_its_state_survives_a_resumption(cut: int) -> None:
    """Before the reference is complete, after it, and between the two updates of a change."""
    series = healthy(3, 40)
    series["response/length"][30:] = 2.0
    whole = Alarm(SETTINGS)
    listen({name: values[:cut] for name, values in series.items()}, whole)
    again = Alarm(SETTINGS)
    again.restore(json.loads(json.dumps(whole.state())))
    assert listen(series, again, cut) == {"length": 32}
    again.restore(None)
    assert listen(series, again, 30) == {}  # without a reference it is the new normal


def test_what_still_rings_rings_again_after_a_resumption() -> None:
    series = healthy(3, 40)
    series["response/length"][30:] = 2.0
    alarm = Alarm(SETTINGS)
    listen({name: values[:35] for name, values in series.items()}, alarm)
    alarm.restore(json.loads(json.dumps(alarm.state())))
    assert listen(series, alarm, 35) == {"length": 36}
