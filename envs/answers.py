"""What a response says: without its thinking, and between tags."""

import re
from functools import cache

from resd.thinking import strip_thinking


def spoken(response: str) -> str:
    """`response` without its thinking, stripped. Thinking that never ends says nothing: what is in it is a draft."""
    return strip_thinking(response)


def tagged(response: str, tag: str = "answer") -> str | None:
    """The content of the last pair of these tags outside thinking, stripped; None when there is no pair."""
    found = _pair(tag).findall(spoken(response))
    return found[-1].strip() if found else None


@cache
def _pair(tag: str) -> re.Pattern[str]:
    return re.compile(rf"<{tag}>((?:(?!<{tag}>).)*?)</{tag}>", re.DOTALL)
