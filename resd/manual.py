"""`--help` of the commands whose words are settings: what each means, what it may be, and what it is with the words
beside `--help`.

The texts have one home, the line under a field of a `Section`; those of a task's options are the comments in
conf/task/. Not covered: meanings of options of tasks in folders of a user's own.
"""

import ast
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resd import advice, algorithms
from resd.config import CONF, Config
from resd.settings import AlgorithmSettings, JudgeSettings, Section, TaskSettings

USAGE = """usage: resd {command} [GROUP=CHOICE …] [KEY=VALUE …] [OPTION …]

{what}
Values below are those of this command line: write other words beside --help to see theirs.

options
  --multirun            try every value of KEY=A,B, a job each
  --config-dir FOLDER   choices of your own, as FOLDER/task/NAME.yaml
  --cfg job             print the whole configuration and stop
"""
WHAT = {
    "train": "Train a model from its own failures, as in: resd train task=manufactoria algorithm=sdpo steps=20",
    "evaluate": "Judge a checkpoint, as in: resd evaluate checkpoint=RUN/best task=manufactoria samples=4",
}
COLUMN = 40


def manual(command: str, composed: DictConfig) -> str:
    """The whole text for `train` or `evaluate`."""
    values, width = _plain(composed), max(80, min(120, shutil.get_terminal_size().columns))
    parts = [USAGE.format(command=command, what=WHAT[command]), "choices", *_groups(composed)]
    kinds: list[type[Section]] = [JudgeSettings, Config] if command == "evaluate" else [Config]
    for kind in kinds:
        parts.append(f"\n{section_meaning(kind)}")
        for key, value, what, meaning in settings(kind, values):
            if meaning is None:
                parts.append(f"\n{key}: {what}")
            else:
                parts += _entry(f"{key}={_written(value)}", f"{meaning} ({what})" if what else meaning, width)
    return "\n".join(parts)


def settings(kind: type[Section], values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, str, Any]]:
    """Key, value, type and meaning of each setting; the meaning of a section stands in the place of its type."""
    told, schema = meanings(kind), kind.model_json_schema()
    later = []
    for name, field in kind.model_fields.items():
        value = values.get(name, field.default)
        inner = _section(field.annotation, value)
        if inner and isinstance(value, dict):
            later.append((name, inner))
        elif not inner or name in values:
            what = _type(schema["properties"][name], schema.get("$defs", {}))
            yield f"{prefix}{name}", value, what, told.get(name, "")
    for name, inner in later:
        yield f"{prefix}{name}", None, section_meaning(inner), None
        if inner is TaskSettings:
            yield f"{prefix}{name}.name", values[name]["name"], "text", meanings(inner)["name"]
            comments = option_comments(values[name]["name"])
            for option, value in values[name]["options"].items():
                yield f"{prefix}{name}.options.{option}", value, "", comments.get(option, "")
        else:
            yield from settings(inner, values[name], f"{prefix}{name}.")


def meanings(kind: type[Section]) -> dict[str, str]:
    """Of each field, the text that stands under it, in this class or one that it extends."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Section) and base is not Section:
            [definition] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(definition, ast.ClassDef)
            for field, text in pairwise(definition.body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(field.target, ast.Name)
                ):
                    found[field.target.id] = str(ast.literal_eval(text.value))
    return found


def option_comments(task: str) -> dict[str, str]:
    """What conf/task/ says of each option of a task."""
    file = CONF / "task" / f"{task}.yaml"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    found = (re.fullmatch(r"  (\w+): .*?(?:\s# (.*))?", line) for line in lines)
    return {match[1]: match[2] or "" for match in found if match}


def _plain(composed: DictConfig) -> dict[str, Any]:
    """The values, resolved as far as they can be."""
    try:
        return dict(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
    except OmegaConfBaseException:
        return dict(OmegaConf.to_container(composed))  # type: ignore[arg-type]


def _section(annotation: Any, value: Any) -> type[Section] | None:
    """The class of a section, if this is one: of an algorithm or an engine, that of its name."""
    kinds = [
        kind for kind in (annotation, *get_args(annotation)) if inspect.isclass(kind) and issubclass(kind, Section)
    ]
    if not kinds:
        return None
    if kinds[0] is AlgorithmSettings and isinstance(value, dict):
        return type_of_algorithm(str(value.get("name")))
    named = (kind for kind in kinds if isinstance(value, dict) and value.get("name") in _names(kind))
    return next(named, kinds[0])


def type_of_algorithm(name: str) -> type[Section]:
    """Its settings, or those of all algorithms for a name that there is not."""
    try:
        found: type[Section] = algorithms.module(name).Settings
    except ValueError:
        found = AlgorithmSettings
    return found


def _names(kind: type[Section]) -> tuple[Any, ...]:
    return get_args(kind.model_fields["name"].annotation) if "name" in kind.model_fields else ()


def section_meaning(kind: type[Section]) -> str:
    """The first paragraph of its docstring."""
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].replace("`", "").split()).rstrip(".")


def _type(schema: Mapping[str, Any], classes: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_type(part, classes) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "$ref" in schema:
        inner = classes[schema["$ref"].rpartition("/")[2]]
        return f"{{{', '.join(inner.get('properties', {}))}}}"
    kinds = {"integer": "whole number", "boolean": "true | false", "string": "text", "array": "list"}
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    kind = str(schema.get("type", "text"))
    return ", ".join(
        [kinds.get(kind, kind), *(f"{words} {schema[name]:g}" for name, words in bounds.items() if name in schema)]
    )


def _groups(composed: DictConfig) -> Iterator[str]:
    chosen = composed.hydra.runtime.choices
    for group in advice.GROUPS:
        yield from _entry(f"{group}={chosen.get(group)}", " | ".join(advice.options(group)), 120)


def _entry(left: str, right: str, width: int) -> list[str]:
    lines = textwrap.wrap(right, width - COLUMN)
    if len(left) < COLUMN - 4:
        return [f"  {left:<{COLUMN - 2}}{lines[0] if lines else ''}", *(" " * COLUMN + line for line in lines[1:])]
    return [f"  {left}", *(" " * COLUMN + line for line in lines)]


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_written(each)}' for key, each in value.items())}}}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
