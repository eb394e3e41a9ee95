"""Removes a model's thinking from its text, so that prompts and judges read only what it said.

Covers `<think>` blocks, which is what the Qwen family writes; other markers pass through unchanged. Every function
takes linear time. Layer 0, because tasks need it too.
"""

OPEN, CLOSE = "<think>", "</think>"


def after_thinking(text: str) -> str:
    """`text` without closed blocks, the first end tag after a start tag closing it, nor what precedes a lone end tag.

    A lone start tag, with which thinking that never ends begins, stays.
    """
    kept, position = [], 0
    while (start := text.find(OPEN, position)) >= 0 and (end := text.find(CLOSE, start)) >= 0:
        kept.append(text[position:start])
        position = end + len(CLOSE)
    return "".join([*kept, text[position:]]).rpartition(CLOSE)[2]


def strip_thinking(text: str, opened: bool = False) -> str:
    """`text` without thinking and without surrounding blank space; never contains a think tag.

    Closed blocks go, then everything up to a lone end tag, then everything after a lone start tag. `opened` says that
    the chat template itself ends in a start tag: then a text without an end tag was cut inside thinking, and nothing of
    it is usable.
    """
    if opened and CLOSE not in text:
        return ""
    return after_thinking(text).partition(OPEN)[0].strip()


def cut_in_thinking(text: str, opened: bool = False) -> bool:
    """Whether `text` ends inside its thinking (`opened`: see `strip_thinking`)."""
    return (opened and CLOSE not in text) or OPEN in after_thinking(text)
