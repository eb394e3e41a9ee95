"""A word of the command line that says what a setting or a group shall be: `steps=4`, `+task.options.level=easy`."""

from collections.abc import Mapping
from typing import Any


def key_value(word: str) -> tuple[str, str]:
    """What is named, without the signs that Hydra has for adding (`+`, `++`) and taking away (`~`), and its value."""
    key, _, value = word.lstrip("+~").partition("=")
    return key, value


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by the names that words have: `{"a": {"b": 1}}` as `{"a.b": 1}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
