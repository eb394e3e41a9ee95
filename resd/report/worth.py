"""What the entries of a library are worth, from `worth.json` (`resd.measure.ablation`), in words and tables for people.

Worth is in points: hundredths of the score by which it was measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 240  # of the drawing of intervals, in pixels


def summary(weighed: Mapping[str, Any]) -> str:
    """What was measured, and how well the sets of entries did."""
    settings, sets = weighed["settings"], weighed["sets"]
    means = [sum(of["scores"]) / len(of["scores"]) for of in sets]
    samples, problems = settings["evaluation"]["samples"], len(weighed["problems"])
    return (
        f"Worth in points of {settings['outcome']} over {settings['worth']} sets, each entry left out of "
        f"{settings['left_out']:g} of them; {problems} problems x {samples}, sets scored {100 * min(means):.1f} to "
        f"{100 * max(means):.1f} %, mean {100 * sum(means) / len(means):.1f} %"
    )


def honesty(weighed: Mapping[str, Any]) -> str:
    """Whether the tags rank the entries as their worth does."""
    found = weighed["tags"]
    if found["correlation"] is None:
        return "Rank correlation of helpful less harmful with worth: unknown."
    return (
        f"Rank correlation of helpful less harmful with worth: {found['correlation']:.2f} "
        f"({found['low']:.2f} to {found['high']:.2f})."
    )


def points(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Worth and interval: `+12.3`, `4.0 to 20.6`; a dash if unknown."""
    interval = "–" if entry["low"] is None else f"{100 * entry['low']:.1f} to {100 * entry['high']:.1f}"
    return f"{100 * entry['worth']:+.1f}", interval


def drawn(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries with their `points` and, in pixels from the left, where worth, interval and zero lie."""
    ends = [0.0, *(entry[name] for entry in entries for name in ("worth", "low", "high") if entry[name] is not None)]
    low, scale = min(ends), (WIDTH - 12) / ((max(ends) - min(ends)) or 1.0)

    def place(value: float | None) -> float | None:
        return None if value is None else round(6 + (value - low) * scale, 1)

    return [
        {**entry, "points": points(entry), "zero": place(0.0)}
        | {f"at_{name}": place(entry[name]) for name in ("worth", "low", "high")}
        for entry in entries
    ]
