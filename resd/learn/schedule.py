"""The learning rate of an update, as a part of `optimizer.lr`: a pure function of the update's number.

The shapes are those of transformers' schedules, read so that no update of a run has a rate of zero: warm-up gives the
first of `warmup` updates 1/warmup of the rate, and the floor would be reached by the update after the last.
"""

import math

from resd.settings import OptimizerSettings


def rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """The factor of update `step` (from 1) in a run of `steps` updates."""
    warmup = min(1.0, step / max(1, settings.warmup))
    return warmup * (1 - (1 - settings.min_lr_ratio) * _fallen(settings, step, steps))


def _fallen(settings: OptimizerSettings, step: int, steps: int) -> float:
    """How far the rate has fallen toward its floor, from 0 to 1."""
    if settings.schedule == "constant":
        return 0.0
    start, end = float(max(1, settings.warmup)), steps + 1
    if settings.schedule == "wsd":
        start = max(start, end - settings.decay * steps)
    if step <= start:
        return 0.0
    progress = min(1.0, (step - start) / max(1.0, end - start))
    return (1 - math.cos(math.pi * progress)) / 2 if settings.schedule == "cosine" else progress
