"""What a response says between tags."""

import re
from functools import cache

from resd.thinking import strip_thinking


def tagged(response: str, tag: str = "answer") -> str | None:
    """The content of the last pair of these tags outside thinking, stripped; None when there is no pair.

    Thinking that never ends holds none: what stands in it is a draft.
    """
    found = _pair(tag).findall(strip_thinking(response))
    return found[-1].strip() if found else None


@cache
def _pair(tag: str) -> re.Pattern[str]:
    return re.compile(rf"<{tag}>((?:(?!<{tag}>).)*?)</{tag}>", re.DOTALL)
