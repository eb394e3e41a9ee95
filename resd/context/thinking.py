"""Removes a model's thinking from its text, so that prompts reuse only what it said.

Covers `<think>` blocks, which is what the Qwen family writes; other markers pass through unchanged.
"""

import re

OPEN, CLOSE = "<think>", "</think>"
_CLOSED_BLOCK = re.compile(f"{OPEN}.*?{CLOSE}", re.DOTALL)


def strip_thinking(text: str, opened: bool = False) -> str:
    """`text` without thinking and without surrounding blank space; never contains a think tag.

    Closed blocks go, then everything up to a lone end tag, then everything after a lone start tag. `opened` says that
    the chat template itself ends in a start tag: then a text without an end tag was cut inside thinking, and nothing of
    it is usable.
    """
    if opened and CLOSE not in text:
        return ""
    text = _CLOSED_BLOCK.sub("", text)
    text = text.rpartition(CLOSE)[2]
    return text.partition(OPEN)[0].strip()
