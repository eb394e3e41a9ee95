"""Parts of a response as spans of its text, and the tokens that have a part in them."""

from collections.abc import Iterable, Sequence

Span = tuple[int, int]


def last_block(text: str) -> Span:
    """The inside of the last code fence of a text; all of a text without a closed one."""
    fences, position = [], 0
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            fences.append((position, position + len(line)))
        position += len(line)
    if len(fences) < 2:
        return 0, len(text)
    last = len(fences) // 2 * 2
    return fences[last - 2][1], fences[last - 1][0]


def tokens_in(spans: Iterable[Span], pieces: Sequence[str]) -> list[bool]:
    """Which of the tokens with these texts have a part in one of the spans, which are in order.

    A token without a text of its own is the beginning of the character that follows.
    """
    inside, position = [], 0
    waiting = (span for span in spans if span[0] < span[1])
    start, end = next(waiting, (0, 0))
    for piece in pieces:
        while end <= position and (found := next(waiting, None)):
            start, end = found
        inside.append(start < position + max(1, len(piece)) and position < end)
        position += len(piece)
    return inside
