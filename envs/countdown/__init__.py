"""Countdown: reach a target with given numbers, each used once, by + - * / and parentheses. See `task`."""

from resd.envs.countdown.task import Countdown

load = Countdown

__all__ = ["Countdown", "load"]
