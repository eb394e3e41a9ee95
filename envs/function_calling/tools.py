"""What functions declare: the types and defaults of their parameters, from JSON Schema or as APIGen's rows have it.

    {"name": …, "description": …, "parameters": {"type": "object", "properties": {…}, "required": [...]}}
    {"name": …, "description": …, "parameters": {PARAMETER: {"type": "int, optional", "default": 1, …}, …}}

The second form has Python's names of types. A type that is not known here admits any value. Not covered: `$ref`,
`anyOf` and the other combinations of JSON Schema, and the properties of objects, which all admit any value.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resd.types import UserError

_KINDS = {
    **dict.fromkeys(("string", "str"), "string"),
    **dict.fromkeys(("integer", "int"), "integer"),
    **dict.fromkeys(("number", "float"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "list", "tuple", "set", "sequence"), "array"),
    **dict.fromkeys(("object", "dict"), "object"),
}
_MAX_TYPE = 200  # characters of a type


@dataclass(frozen=True, slots=True)
class Type:
    """`kind` is JSON Schema's word or "any"; `items` that of an array's members; `choices` are all values, if known."""

    kind: str
    items: "Type | None" = None
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        named = f"{'an' if self.kind[0] in 'aio' else 'a'} {self.kind}"
        return f"{named} of which each is {self.items}" if self.items and self.items.kind != "any" else named

    def admits(self, value: Any) -> bool:
        """Whether a JSON value is of this type. A boolean is no number; a number without fraction is an integer."""
        match self.kind:
            case "string":
                right = isinstance(value, str)
            case "integer":
                right = _is_number(value) and value == value // 1
            case "number":
                right = _is_number(value)
            case "boolean":
                right = isinstance(value, bool)
            case "array":
                right = isinstance(value, list) and all(map((self.items or ANY).admits, value))
            case "object":
                right = isinstance(value, dict)
            case _:
                right = True
        return right and (not self.choices or any(type(value) is type(c) and value == c for c in self.choices))


ANY = Type("any")


@dataclass(frozen=True, slots=True)
class Parameter:
    """`default` is None where there is none."""

    type: Type
    required: bool
    default: Any = None

    def __str__(self) -> str:
        named = " | ".join(map(str, self.type.choices)) or self.type.kind
        if self.type.items:
            named = f"{named} of {self.type.items.kind}"
        return named


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    parameters: Mapping[str, Parameter]

    def signature(self) -> str:
        """On one line, for short prompts."""
        shown = [
            f"{name}: {parameter}{'' if parameter.required else f' = {json.dumps(parameter.default)}'}"
            for name, parameter in self.parameters.items()
        ]
        return f"{self.name}({', '.join(shown)})"


def tool(declared: Any) -> Tool:
    """Raises UserError, which says what of it cannot be used."""
    if isinstance(declared, dict) and isinstance(declared.get("function"), dict):
        declared = declared["function"]
    if not isinstance(declared, dict) or not isinstance(declared.get("name"), str) or not declared["name"].strip():
        raise UserError(f"a function needs an object with a name, not {declared!r:.60}")
    name, parameters = declared["name"].strip(), declared.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise UserError(f"the parameters of {name} must be an object, not {parameters!r:.60}")
    required: Any = None
    if parameters.get("type") == "object" and isinstance(parameters.get("properties", {}), dict):
        required, parameters = parameters.get("required"), parameters.get("properties", {})
        required = required if isinstance(required, list) else []
    known = {key: value for key, value in parameters.items() if value is not None}
    if wrong := next((key for key, value in known.items() if not isinstance(value, dict)), None):
        raise UserError(f"the parameter {wrong} of {name} must be an object with a type, not {known[wrong]!r:.60}")
    needed = {key: None if required is None else key in required for key in known}
    return Tool(name, {key: _parameter(value, needed[key]) for key, value in known.items()})


def _parameter(declared: dict[str, Any], required: bool | None) -> Parameter:
    default = declared.get("default")
    if required is None:
        required = default is None and "optional" not in str(declared.get("type")).lower()
    return Parameter(_type(declared), required, default)


def _type(declared: Any) -> Type:
    if not isinstance(declared, dict):
        return ANY
    told, choices = declared.get("type"), declared.get("enum")
    kinds = [each for each in told if each != "null"] if isinstance(told, list) else [told]
    found = _named(kinds[0]) if len(kinds) == 1 and isinstance(kinds[0], str) else ANY
    items = found.items or (_type(declared.get("items")) if found.kind == "array" else None)
    return Type(found.kind, items, tuple(choices) if isinstance(choices, list) else ())


def _named(text: str) -> Type:
    """The type that Python or JSON Schema call so."""
    text = re.sub(r",\s*optional\b.*$", "", text[:_MAX_TYPE].strip().lower()).strip()
    inside = re.fullmatch(r"(\w+)\[(.*)\]", text)
    if inside is None:
        return Type(_KINDS.get(text, "any"))
    if inside[1] == "optional":
        return _named(inside[2])
    kind = _KINDS.get(inside[1], "any")
    return Type(kind, _named(inside[2].removesuffix(", ...")) if kind == "array" else None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
