"""What may cross the border of the sandbox: finite numbers and lists of them, within `PACKET` bytes of JSON."""

import math
from typing import Any

PACKET = 1 << 17
_DEPTH, _LENGTH = 16, 10_000  # of lists in lists, and of each
_LARGEST = 1.7e308


def plain(value: Any, depth: int = 0) -> Any:
    """`value` with tuples made lists. Raises ValueError for anything but floats, ints, lists and tuples themselves.

    Instances of subclasses are refused, bool among them, since they can behave like any number they like.
    """
    kind = type(value)
    if (kind is float and math.isfinite(value)) or (kind is int and -_LARGEST <= value <= _LARGEST):
        return value
    if kind in (list, tuple) and depth < _DEPTH and len(value) <= _LENGTH:
        return [plain(item, depth + 1) for item in value]
    if kind is float:
        raise ValueError(f"{value} is not a finite number")
    if kind in (int, list, tuple):
        raise ValueError("a number is too large" if kind is int else "a list is too long or nested too deeply")
    raise ValueError(f"a value of type {kind.__name__:.80} is neither a plain number nor a list")
