"""Reads objects out of a model's text: JSON as models write it, wherever it stands.

Mended slips: line breaks and quotes inside a string, stray backslashes, single quotes, keys without quotes or in other
case, missing and trailing commas, comments, Python's literals, an end that is missing. One pass from left to right, and
of what turns out to be no JSON nothing but the last string is looked at again: hostile text takes linear time.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

MAX_CHARS = 250_000  # from the end; an answer of 25,600 tokens has about 100,000
_MAX_DEPTH = 32
_MAX_KEY = 60

_START = re.compile(r"\{(?=\s*[\"'/#A-Za-z_])")
_SPACE = re.compile(r"\s*")
_BARE_KEY = re.compile(r"[A-Za-z_][\w-]*")
_ATOM = re.compile(r"(?:-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null|True|False|None)(?![\w.])")
_NAMED = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
# What follows the quote that ends a string, by the string's place: other quotes belong to the text. A sketch ends it
# too (`"a", ...`), or the string would go on into the answer that comes after.
_SKETCH = r"\.{3}|\N{HORIZONTAL ELLIPSIS}"
_QUOTED = "|".join(rf"{q}(?:\\.|[^{q}\n\\]){{0,60}}(?:{q}\s*:|\Z)" for q in "\"'")
_NEXT_KEY = rf"{_QUOTED}|[A-Za-z_][\w-]{{0,30}}\s*:"
_AFTER = {
    "key": r"\s*:",
    "{": rf"\s*(?:\}}|,\s*(?:{_NEXT_KEY}|[}}/#]|{_SKETCH}|\Z)|//|\#|[\"'][\w -]{{1,30}}[\"']\s*:|\Z)",
    "[": rf"\s*(?:\]|,\s*(?:[\"'{{\[\]/#\d-]|(?:true|false|null|True|False|None)\b|{_SKETCH}|\Z)|//|\#|\Z)",
}
_ENDS = {
    (place, quote): re.compile(rf"\\.|{quote}(?={after})", re.DOTALL)
    for place, after in _AFTER.items()
    for quote in "\"'"
}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"'}
_CONTROL = re.compile(r"[\x00-\x1f]")


class _String(NamedTuple):
    """A string that is not read yet: the places behind its quotes' outer ends."""

    start: int
    end: int


@dataclass(slots=True)
class _Frame:
    """An object or array that is open. `slips`: how many there were before it."""

    start: int
    inside: Any
    slips: int
    key: str = ""
    expects: str = "key"


@dataclass(frozen=True, slots=True)
class Found:
    """An object with a wanted key: where it stands, its plain value, whether it was closed, whether it was mended."""

    start: int
    end: int
    value: dict[str, Any]
    closed: bool
    repaired: bool


class LooseJson:
    """The objects of a text that have one of `wanted` (lower case) among their keys."""

    def __init__(self, text: str, wanted: Collection[str]) -> None:
        self.text, self.wanted = text, wanted
        self._slips = 0
        self._ends: dict[tuple[str, str], list[int]] = {}
        self._last_comment = text.rfind("*/")

    @cached_property
    def objects(self) -> list[Found]:
        """In the order in which they end. A value that was never read whole is None; strings come as they are meant."""
        return [self._plain(*found) for found in self._scan()]

    def _scan(self) -> Iterator[tuple[_Frame, int, bool, int]]:
        position = 0
        while start := _START.search(self.text, position):
            position = start.end()
            frames = [_Frame(start.start(), {}, self._slips)]
            while frames:
                position = self._skip(position)
                frame, failed = frames[-1], position
                after = self._closes(frame, position)
                if after is not None:
                    frames.pop()
                    position = after
                    if self._has_wanted(frame):
                        yield frame, after, True, self._slips
                    continue
                after = (
                    self._key(frame, position) if frame.expects in ("key", "comma") else self._value(frames, position)
                )
                if after is None:
                    if self._has_wanted(frames[0]):
                        yield frames[0], position, False, self._slips
                    position = failed + (self.text[failed : failed + 1] in ('"', "'"))
                    break
                position = after

    def _has_wanted(self, frame: _Frame) -> bool:
        return isinstance(frame.inside, dict) and any(key in frame.inside for key in self.wanted)

    def _closes(self, frame: _Frame, position: int) -> int | None:
        """The place behind the bracket that closes the frame here."""
        isobject = isinstance(frame.inside, dict)
        if self.text[position : position + 1] != ("}" if isobject else "]") or (isobject and frame.expects == "value"):
            return None
        self._slips += len(frame.inside) > 0 and frame.expects != "comma"  # a trailing comma
        return position + 1

    def _key(self, frame: _Frame, position: int) -> int | None:
        """Reads a comma, or a key with its colon; None if neither stands here."""
        text, quote = self.text, self.text[position : position + 1]
        if quote == "," and frame.expects == "comma":
            frame.expects = "key" if isinstance(frame.inside, dict) else "value"
            return position + 1
        if not isinstance(frame.inside, dict) or not quote:
            return None
        if quote in "\"'":
            end = self._end("key", quote, position + 1)
            key = text[position + 1 : end] if end is not None and end - position <= _MAX_KEY else "{"
            after = None if end is None else end + 1
        else:
            bare = _BARE_KEY.match(text, position)
            key, after = (bare[0], bare.end()) if bare else ("{", None)
        if after is None or "{" in key or "\n" in key:
            return None
        after = self._skip(after)
        if text[after : after + 1] != ":":
            return None
        frame.key = key.strip().lower()
        self._slips += quote != '"' or frame.key != key or frame.expects == "comma"
        frame.inside[frame.key] = None
        frame.expects = "value"
        return after + 1

    def _value(self, frames: list[_Frame], position: int) -> int | None:
        """Reads a value, or opens it; None if there is none here."""
        frame, first = frames[-1], self.text[position : position + 1]
        value: Any
        if first in ("{", "["):
            if len(frames) == _MAX_DEPTH:
                return None
            value = {} if first == "{" else []
            after = position + 1
        elif first in ('"', "'"):
            end = self._end("{" if isinstance(frame.inside, dict) else "[", first, position + 1)
            if end is None:
                return None
            value, after = _String(position, end + 1), end + 1
        else:
            atom = _ATOM.match(self.text, position)
            if atom is None:
                return None
            value, slips = _atom(atom[0])
            self._slips += slips
            after = atom.end()
        if isinstance(frame.inside, dict):
            frame.inside[frame.key] = value
        else:
            frame.inside.append(value)
        frame.expects = "comma"
        if first in ("{", "["):
            frames.append(_Frame(position, value, self._slips, expects="key" if first == "{" else "value"))
        return after

    def _end(self, place: str, quote: str, start: int) -> int | None:
        """Where the next quote stands that can end a string of this place."""
        if (place, quote) not in self._ends:
            found = _ENDS[place, quote].finditer(self.text)
            self._ends[place, quote] = [end.start() for end in found if end[0] == quote]
        ends = self._ends[place, quote]
        index = bisect_left(ends, start)
        return ends[index] if index < len(ends) else None

    def _skip(self, position: int) -> int:
        """The place behind blank space and comments."""
        text = self.text
        while True:
            blank = _SPACE.match(text, position)
            position = blank.end() if blank else position
            if text.startswith(("//", "#"), position):
                line = text.find("\n", position)
                position = len(text) if line < 0 else line
            elif text.startswith("/*", position) and position + 2 <= self._last_comment:
                position = text.find("*/", position + 2) + 2
            else:
                return position
            self._slips += 1

    def _plain(self, frame: _Frame, end: int, closed: bool, slips: int) -> Found:
        mended = [not closed or slips > frame.slips]
        value = {key: self._read(inside, mended) for key, inside in frame.inside.items()}
        return Found(frame.start, end, value, closed, any(mended))

    def _read(self, value: Any, mended: list[bool], depth: int = 0) -> Any:
        """The value with its strings; what lies deeper than an answer's parts is None."""
        if isinstance(value, _String):
            return self._string(value, mended)
        if isinstance(value, (dict, list)) and depth == 3:
            return None
        if isinstance(value, dict):
            return {key: self._read(inside, mended, depth + 1) for key, inside in value.items()}
        return [self._read(item, mended, depth + 1) for item in value] if isinstance(value, list) else value

    def _string(self, place: _String, mended: list[bool]) -> str:
        quote, raw = self.text[place.start], self.text[place.start + 1 : place.end - 1]
        bare = _ESCAPE.sub("", raw)
        mended.append(quote != '"' or '"' in bare or _CONTROL.search(bare) is not None)

        def meant(escape: re.Match[str]) -> str:
            letter = escape[1]
            if len(letter) == 5:
                return chr(int(letter[1:], 16))
            mended.append(letter not in _ESCAPES)
            return _ESCAPES.get(letter, "'" if letter == "'" else escape[0])

        text = _ESCAPE.sub(meant, raw) if "\\" in raw else raw
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _atom(text: str) -> tuple[Any, bool]:
    """What it says, and whether that had to be mended; what is no number of JSON (`00012` may be an id) is a text."""
    if text in _NAMED:
        return _NAMED[text], text[0] in "TFN"
    try:
        return json.loads(text) if len(text) < 20 else 0, False
    except ValueError:
        return text, True
