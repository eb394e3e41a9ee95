"""What a response says: without its thinking, and between answer tags."""

import re

from resd.thinking import strip_thinking

_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)


def spoken(response: str) -> str:
    """`response` without its thinking, stripped. Thinking that never ends says nothing: what is in it is a draft."""
    return strip_thinking(response)


def tagged(response: str) -> str | None:
    """The content of the last pair of answer tags outside thinking, stripped; None when there is no pair."""
    found = _ANSWER.findall(spoken(response))
    return found[-1].strip() if found else None
