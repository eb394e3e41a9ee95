"""Checks of what a task's options may be, each one sentence if they fail."""

from collections.abc import Collection
from typing import Any

from resd.types import UserError


def choice(option: str, value: Any, known: Collection[Any]) -> None:
    """Raises UserError unless the value is one of the known ones."""
    if value not in known:
        raise UserError(f"{option}={value!r} is unknown: write one of {', '.join(known)}")


def whole(option: str, number: Any, least: int, most: int) -> None:
    """Raises UserError unless it is a whole number between two, which count."""
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise UserError(f"{option}={number!r} is out of range: write a whole number from {least} to {most}")
