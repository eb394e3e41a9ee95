"""Calls out of a text: strict JSON, in which nothing is guessed and whatever is wrong has a place.

    [{"name": "set_timer", "arguments": {"minutes": 5}}]

One object is one call. The text may stand in a code fence, of which the last one counts; other words around it are no
JSON. A key that occurs twice, NaN, infinities and numbers beyond bounds spoil the call they stand in, and no other.
Length, depth and digits are bounded.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from resd.thinking import strip_thinking

MAX_CHARS = 20_000  # of an answer
MAX_DEPTH = 16  # of an argument
MAX_DIGITS = 100  # of an integer
_SHOWN = 40  # characters of a value or a name
_NEAR = 12  # characters after a mistake
_KEYS = {"name", "arguments"}
_FENCE = "```"


class Malformed(Exception):
    """Why a text holds no calls, as one sentence; `kind` is a short word for it."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands where JSON has something that cannot be a value, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """Stands where a call should be; `reason` says what is wrong and where in it."""

    reason: str


def answer(response: str) -> str:
    """The part of a response that should be JSON: without thinking, the last code fence if there is one; "" if none."""
    text = strip_thinking(response)
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith(_FENCE)]
    if len(fences) < 2:
        return text
    last = len(fences) // 2 * 2
    return "\n".join(lines[fences[last - 2] + 1 : fences[last - 1]]).strip()


def read(text: str) -> Any:
    """The value of a JSON text, with Unusable in the place of what is none. Raises Malformed."""
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at").removesuffix(" starting")
        rest = text[error.pos : error.pos + _NEAR]
        near = f"before {shown(rest)}" if rest else "its end"
        raise Malformed("parse", f"It is no JSON at offset {error.pos}, {near}: {reason}.") from None
    except RecursionError:
        raise Malformed("too_deep", "It is nested too deeply.") from None


def given(text: str) -> list[Call | Fault]:
    """The calls of an answer. Raises Malformed."""
    if len(text) > MAX_CHARS:
        raise Malformed("too_long", f"It has more than {MAX_CHARS} characters.")
    return calls(read(text))


def calls(value: Any) -> list[Call | Fault]:
    """The calls of a JSON value, a Fault for each that is none. Raises Malformed unless it is a list or an object."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, Unusable):
        raise Malformed("parse", f"It cannot be used: {value.reason}.")
    if not isinstance(value, list):
        raise Malformed("parse", f"It must be a JSON list of calls, not {shown(value)}.")
    return [_call(each) for each in value]


def faults(value: Any, place: str, depth: int = 0) -> Iterator[str]:
    """What in a JSON value cannot be used, each with its place, such as `rooms[2]`."""
    if isinstance(value, Unusable):
        yield f"{place}: {value.reason}"
    elif depth > MAX_DEPTH:
        yield f"{place}: nested more than {MAX_DEPTH} deep"
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from faults(each, f"{place}.{label(key)}", depth + 1)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from faults(each, f"{place}[{number}]", depth + 1)


def shown(value: Any) -> str:
    """A value of an answer inside a sentence: short, on one line, in plain letters."""
    text = json.dumps(value, default=lambda unusable: unusable.reason)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def label(name: str) -> str:
    """A name of an answer inside a sentence, without quotes where it is a plain one."""
    return name if name.isascii() and name.isidentifier() and len(name) <= _SHOWN else shown(name)


def _call(given: Any) -> Call | Fault:
    if isinstance(given, Unusable):
        return Fault(given.reason)
    if not isinstance(given, dict):
        return Fault(f"an object with name and arguments is wanted, not {_brief(given)}")
    if lacking := sorted(_KEYS - given.keys()):
        return Fault(f"the key {lacking[0]} is missing")
    if extra := [key for key in given if key not in _KEYS]:
        return Fault(f"the key {label(extra[0])} is none of name and arguments")
    if wrong := next((fault for each in sorted(_KEYS) for fault in faults(given[each], each)), None):
        return Fault(wrong)
    name, arguments = given["name"], given["arguments"]
    if not isinstance(name, str):
        return Fault(f"name must be a text, not {_brief(name)}")
    if not isinstance(arguments, dict):
        return Fault(f"arguments must be an object, not {_brief(arguments)}")
    return Call(name.strip(), arguments)


def _brief(value: Any) -> str:
    """A value that may be anything, also one too deep to be shown."""
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else shown(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Unusable:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            return Unusable(f"the key {label(key)} occurs twice")
        seen[key] = value
    return seen


def _integer(text: str) -> int | Unusable:
    return int(text) if len(text) <= MAX_DIGITS else Unusable(f"a number of {len(text)} digits is no value")


def _float(text: str) -> float | Unusable:
    value = float(text)
    return value if math.isfinite(value) else Unusable(f"{text[:_SHOWN]} is too large a number")


def _constant(name: str) -> Unusable:
    return Unusable(f"{name} is no value of JSON")
