"""Shortens the parts of a prompt until it fits into a number of tokens.

Parts go one after the other, in the order in which they are named. What a part keeps ends with a line, or with a word
of a long one. However long a part is, no more of it is counted than a few times what fits.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

CUT_MARK = "[...]"
CHUNK = 100  # characters of a line that is longer than two of them
_CHUNKS = re.compile(rf".{{1,{CHUNK}}}(?!\S)\s*|.{{1,{CHUNK}}}")
_TOKEN = 4  # characters, about

Slots = dict[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """How a part is cut into pieces, and what its first, or last, `n` pieces make; none make nothing.

    `crop` is what may be kept of a text that is far too long, in so many characters.
    """

    split: Callable[[str], list[str]]
    keep: Callable[[Sequence[str], int], str]
    crop: Callable[[str, int], str] = lambda text, size: text[:size]


def _pieces(text: str) -> list[str]:
    """Lines, long ones in chunks, each with what separates it from the next."""
    pieces: list[str] = []
    for line in text.splitlines():
        pieces += _CHUNKS.findall(line) if len(line) > 2 * CHUNK else [line]
        pieces[-1:] = [f"{pieces[-1]}\n"] if pieces else []
    return [*pieces[:-1], pieces[-1].removesuffix("\n")] if pieces else []


def _first(pieces: Sequence[str], count: int) -> str:
    kept = "".join(pieces[:count])
    return f"{kept.rstrip(' ')}{'' if kept.endswith(chr(10)) else ' '}{CUT_MARK}" if count else ""


def _last(pieces: Sequence[str], count: int) -> str:
    if not count:
        return ""
    whole_line = count == len(pieces) or pieces[-count - 1].endswith("\n")
    return f"{CUT_MARK}{chr(10) if whole_line else ' '}{''.join(pieces[-count:])}"


def _ends(pieces: Sequence[str], count: int) -> str:
    """The first half of them and the last one."""
    if count < 2:
        return _last(pieces, count)
    first = "".join(pieces[: count // 2]).rstrip()
    return f"{first}\n{_last(pieces, count - count // 2)}"


def _first_entries(lines: Sequence[str], count: int) -> str:
    kept = list(lines[:count])
    while kept and (not kept[-1] or kept[-1].startswith("#")):  # a heading without entries
        kept.pop()
    return "\n".join(kept)


BEGINNING = Part(_pieces, _first)
END = Part(_pieces, _last, lambda text, size: text[-size:])
BOTH_ENDS = Part(_pieces, _ends, lambda text, size: text[: size // 2] + text[-(size - size // 2) :])
ENTRIES = Part(str.splitlines, _first_entries)
ALL_OR_NOTHING = Part(lambda text: [text], lambda pieces, count: "")


@dataclass(frozen=True, slots=True)
class Budget:
    """`tokens` as `count` counts the text of a message."""

    tokens: int
    count: Callable[[str], int]

    def fit(
        self, slots: Slots, parts: Mapping[str, Part], render: Callable[[Slots], str], taken: int = 0
    ) -> tuple[Slots, int]:
        """The slots shortened until what they render to fits, if it can, and how many were shortened.

        `taken` tokens are used already.
        """
        room = self.tokens - taken

        def fits(name: str, text: str) -> bool:
            return self.count(render({**slots, name: text})) <= room

        slots = {name: self._crop(text, parts[name], room) for name, text in slots.items()}
        truncated = 0
        for name, part in parts.items():
            whole = slots.get(name)
            if not whole:
                continue
            if fits(name, whole):
                break
            truncated += 1
            kept = ""
            if fits(name, ""):
                pieces = part.split(whole)
                low, high = 0, len(pieces)  # `low` pieces fit; `high` pieces do not
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (middle, high) if fits(name, part.keep(pieces, middle)) else (low, middle)
                kept = part.keep(pieces, low)
            slots = {**slots, name: kept}
        return slots, truncated

    def _crop(self, text: str, part: Part, room: int) -> str:
        """A piece of the text that alone exceeds the room, if the whole does."""
        size = _TOKEN * max(room, 1)
        while size < len(text):
            piece = part.crop(text, size)
            if self.count(piece) > room:
                return piece
            size *= 2
        return text
