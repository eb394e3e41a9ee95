"""What pydantic says of wrong settings, as sentences for people."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError


def complaints(error: ValidationError) -> str:
    """One clause for each value that is wrong."""
    return "; ".join(_sentence(each) for each in error.errors())


def _sentence(error: Any) -> str:
    key, value = ".".join(str(part) for part in error["loc"]), _written_as(error["input"])
    message = error["msg"].removeprefix("Value error, ")
    if key.startswith("algorithm."):  # one inside another does not know where it stands
        message = message.replace(f"write algorithm.{error['loc'][-1]}=", f"write {key}=")
    if error["type"] == "extra_forbidden":
        return f"{key} is not a setting here: remove it, or see conf/ for what there is"
    if error["type"] == "missing":
        return f"{key} has no value: set it"
    if error["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{key}={value} is no value for a section: write {key}.NAME=VALUE for one of its settings"
    if error["type"] == "string_type" and isinstance(error["input"], (bool, int, float)):
        message = f"""is read as a number: write '{key}="{value}"' for a text"""
    elif wanted := _wanted(error["type"], error.get("ctx", {})):
        message = f"write {wanted}"
    return f"{key}={value}: {message}" if key and error["type"] != "value_error" else message


def _written_as(value: Any) -> str:
    """As a command line has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _wanted(kind: str, limits: Mapping[str, Any]) -> str | None:
    """What pydantic wanted instead, for those of its errors whose own words are for programmers."""
    kinds = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "string": "a text",
        "list": "a list, as in [a,b]",
        "tuple": "a list, as in [a,b]",
    }
    bounds = {
        "greater_than_equal": ("ge", "a number that is at least"),
        "greater_than": ("gt", "a number greater than"),
        "less_than_equal": ("le", "a number that is at most"),
        "less_than": ("lt", "a number less than"),
    }
    if kind in bounds:
        name, words = bounds[kind]
        return f"{words} {limits[name]:g}"
    if kind == "literal_error":
        return str(limits["expected"])
    return kinds.get(kind.partition("_")[0]) if kind.endswith(("_type", "_parsing", "_from_float")) else None
