"""The values of `conf/` for settings that a configuration lacks because they are younger than it is.

Those of `config.yaml`, and of the files of its algorithm (and of those inside it), engine and task. Who goes on with an
older run and who compares it with younger ones reads it so. Not covered: values that hang on something else than
another setting, what presets and tuned rates say, and files of a user's own.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from resd.settings import ROOT

CONF = ROOT / "resd" / "conf"
_GROUPS = ("algorithm", "engine", "task")  # whose choice a configuration names


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config`, which says no less than it did, and what it lacks."""
    found = _under(_shipped(), config)
    for group in _GROUPS:
        if isinstance(found.get(group), Mapping):
            found[group] = _chosen(group, found[group])
    return _resolved(found, config, found)


def _shipped() -> dict[str, Any]:
    """What `config.yaml` says, with the choices that it puts into a section (`task@forgetting.task`)."""
    whole = _file("config.yaml")
    found = {key: value for key, value in whole.items() if key not in ("defaults", "hydra")}
    for each in whole["defaults"]:
        for place, choice in each.items() if isinstance(each, Mapping) else ():
            group, _, inside = place.partition("@")
            section, _, name = inside.partition(".")
            if name:
                found[section] = {**found[section], name: _choice(group, choice)}
    return found


def _chosen(group: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """With what the choice of this name has besides, and so for each choice in it."""
    whole = _under(_choice(group, str(section.get("name"))), section)
    return {
        key: _chosen(group, value) if isinstance(value, Mapping) and "name" in value else value
        for key, value in whole.items()
    }


def _choice(group: str, name: str) -> dict[str, Any]:
    """What a file says, and those that it builds upon; nothing for a name of a user's own."""
    if not re.fullmatch(r"\w+", name):
        return {}
    whole = _file(f"{group}/{name}.yaml")
    own = {key: value for key, value in whole.get(group, whole).items() if key != "defaults"}
    for base in reversed(whole.get("defaults", [])):
        if isinstance(base, str) and base != "_self_":
            own = _under({**_choice(group, base), **({"name": own["name"]} if "name" in own else {})}, own)
    return own


@cache
def _file(path: str) -> dict[str, Any]:
    file = CONF / path
    found = yaml.safe_load(file.read_text("utf-8")) if file.is_file() else {}
    return dict(found)


def _under(shipped: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Both; where both have a value, the `own` one, and all of it where that is another choice."""
    if "name" in shipped and own.get("name", shipped["name"]) != shipped["name"]:
        return dict(own)
    found = {**shipped, **own}
    for key in shipped.keys() & own.keys():
        if isinstance(shipped[key], Mapping) and isinstance(own[key], Mapping):
            found[key] = _under(shipped[key], own[key])
    return found


def _resolved(part: Mapping[str, Any], own: Any, whole: Mapping[str, Any]) -> dict[str, Any]:
    """What is not the `own`, with the value of another setting where it refers to one, and left out where it refers to
    anything else."""
    found = {}
    for key, value in part.items():
        mine = own[key] if isinstance(own, Mapping) and key in own else _NOTHING
        if isinstance(value, Mapping) and mine is not value:
            found[key] = _resolved(value, mine, whole)
        elif (read := value if mine is not _NOTHING else _read(value, whole)) is not _NOTHING:
            found[key] = read
    return found


_NOTHING = object()


def _read(value: Any, whole: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or "${" not in value:
        return _NOTHING if value == "???" else value
    found: Any = whole
    for name in value.removeprefix("${").removesuffix("}").split("."):
        found = found.get(name, _NOTHING) if isinstance(found, Mapping) else _NOTHING
    return found if found is _NOTHING else _read(found, whole)
