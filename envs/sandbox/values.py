"""What may cross the border of the sandbox: finite numbers and lists of them, within `PACKET` bytes of JSON.

Where texts are wanted, texts of at most `LONGEST` characters, True, False and None too.
"""

import math
from typing import Any

PACKET = 1 << 17
_DEPTH, _LENGTH = 16, 10_000  # of lists in lists, and of each
_LARGEST = 1.7e308
LONGEST = 1000  # characters of a text


def plain(value: Any, texts: bool = False, depth: int = 0) -> Any:
    """`value` with tuples made lists. Raises ValueError for anything but floats, ints, lists and tuples themselves.

    With `texts` strings, bools and None may be there. Instances of subclasses are refused, bool otherwise among them,
    since they can behave like any number they like.
    """
    kind = type(value)
    if (kind is float and math.isfinite(value)) or (kind is int and -_LARGEST <= value <= _LARGEST):
        return value
    if kind in (list, tuple) and depth < _DEPTH and len(value) <= _LENGTH:
        return [plain(item, texts, depth + 1) for item in value]
    if texts and (kind is bool or value is None or (kind is str and len(value) <= LONGEST and _is_unicode(value))):
        return value
    if kind is float:
        raise ValueError(f"{value} is not a finite number")
    if kind in (int, list, tuple):
        raise ValueError("a number is too large" if kind is int else "a list is too long or nested too deeply")
    if texts and kind is str:
        raise ValueError(f"a text has more than {LONGEST} characters, or half a character")
    lacks = "no number, text or list" if texts else "neither a plain number nor a list"
    raise ValueError(f"a value of type {kind.__name__:.80} is {lacks}")


def _is_unicode(text: str) -> bool:
    """Whether it has no half of a surrogate pair that stands alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
