"""Whether calls are those that are wanted, and what is said where they are not.

Two calls are the same if they have the same name and, with the defaults of the function filled in on both sides, equal
arguments. An argument of the function that is null is one that is left out. Values are compared as trees: objects by
key, lists in order, texts without the blanks around them and otherwise letter by letter, numbers by value, so that 1
and 1.0 are equal (an integer may be written 1.0, as in JSON Schema, and not 1.5), and true is never 1. Which values are
right is decided by the wanted calls alone; the types that a function declares serve to say what is wrong with others.

The order of calls does not matter, how often each occurs does. A case is a wanted call; it passes if it was made, and
every call above the number wanted takes one away.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from resd.envs.function_calling.calls import Call, Fault, label, shown
from resd.envs.function_calling.tools import Tool

Tools = Mapping[str, Tool]
_LINES = 8  # of complaints


def grade(given: Sequence[Call | Fault], wanted: Sequence[Call], tools: Tools) -> tuple[int, list[str]]:
    """How many cases pass, of as many as calls are wanted, and what is wrong, nothing if all pass."""
    left = Counter(key(call, tools) for call in wanted)
    wrong: list[tuple[int, Call | Fault]] = []
    for number, call in enumerate(given, 1):
        if isinstance(call, Call) and left[made := key(call, tools)] > 0:
            left[made] -= 1
        else:
            wrong.append((number, call))
    missing = [call for call in wanted if _taken(left, key(call, tools))]
    passed = max(0, len(wanted) - len(missing) - max(0, len(given) - len(wanted)))
    told = list(_complaints(wrong, missing, tools))
    return passed, told if len(told) <= _LINES else [*told[:_LINES], f"{len(told) - _LINES} more things are wrong."]


def key(call: Call, tools: Tools) -> Hashable:
    """Equal for calls that are the same."""
    return call.name, canonical(filled(call, tools))


def filled(call: Call, tools: Tools) -> dict[str, Any]:
    """Its arguments, with defaults for those left out."""
    known = tools[call.name].parameters if call.name in tools else {}
    defaults = {name: parameter.default for name, parameter in known.items() if parameter.default is not None}
    return defaults | {name: value for name, value in call.arguments.items() if value is not None or name not in known}


def canonical(value: Any) -> Hashable:
    """Equal for equal trees, and only for them."""
    match value:
        case bool():
            return "boolean", value
        case int() | float():
            return "number", value
        case str():
            return "string", value.strip()
        case dict():
            return "object", frozenset((name, canonical(each)) for name, each in value.items())
        case list():
            return "array", tuple(map(canonical, value))
    return "null"


def _taken(left: Counter[Hashable], wanted: Hashable) -> bool:
    """Takes one of these away, if there is one."""
    left[wanted] -= 1
    return left[wanted] >= 0


def _complaints(wrong: Sequence[tuple[int, Call | Fault]], missing: Sequence[Call], tools: Tools) -> Iterator[str]:
    missing = list(missing)
    for number, call in wrong:
        if isinstance(call, Fault):
            yield f"Call {number}: {call.reason}."
        elif call.name not in tools:
            yield f"Call {number}: there is no function {label(call.name)}, only {', '.join(tools)}."
        elif alike := [each for each in missing if each.name == call.name]:
            meant = max(alike, key=lambda each: _agreement(call, each, tools))
            missing.remove(meant)
            for reason in _differences(call, meant, tools):
                yield f"Call {number} ({call.name}): {reason}."
        else:
            reasons = list(_unknown(call, tools[call.name]))
            yield f"Call {number} ({call.name}): {reasons[0] if reasons else 'such a call is not asked for'}."
    for each in missing:
        yield f"A call of {each.name} is missing."


def _agreement(one: Call, other: Call, tools: Tools) -> int:
    """In how many arguments two calls of a function agree."""
    left, right = filled(one, tools), filled(other, tools)
    return sum(canonical(left[name]) == canonical(right[name]) for name in left.keys() & right.keys())


def _unknown(call: Call, tool: Tool) -> Iterator[str]:
    for name in call.arguments:
        if name not in tool.parameters:
            yield f"there is no argument {label(name)}, only {', '.join(tool.parameters) or 'none at all'}"


def _differences(call: Call, meant: Call, tools: Tools) -> Iterator[str]:
    """What is wrong with a call that should be `meant`; the right value is not told."""
    tool = tools[call.name]
    yield from _unknown(call, tool)
    given, right = filled(call, tools), filled(meant, tools)
    for name, parameter in tool.parameters.items():
        value = given.get(name)
        if canonical(value) == canonical(right.get(name)):
            continue
        if value is None:
            yield f"the argument {name} is missing"
        elif call.arguments.get(name) is None:
            yield f"the argument {name} is left out, and its default {shown(value)} is not what is asked for"
        elif not parameter.type.admits(value):
            yield f"{name} must be {parameter.type}, not {shown(value)}"
        elif name not in right:
            yield f"{name} is {shown(value)}, and is not asked for"
        else:
            yield f"{name} is {shown(value)}, which is not what is asked for"
