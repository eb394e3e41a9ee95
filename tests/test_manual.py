"""Every setting has a meaning, and `--help` says it."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml

from resd import algorithms
from resd.commandline import help_text
from resd.config import CONF
from resd.manual import meanings, option_comments, section_meaning
from resd.settings import Section
from resd.types import UserError

NAMES = [file.stem for file in Path(algorithms.__file__).parent.glob("[a-z]*.py") if file.stem != "base"]


def sections(kind: type[Section] = Section) -> Iterator[type[Section]]:
    for name in NAMES:
        algorithms.module(name)
    for each in kind.__subclasses__():
        if each.__module__.startswith("resd."):
            yield each
        yield from sections(each)


@pytest.mark.parametrize(
    "kind", sorted(set(sections()), key=str), ids=lambda kind: f"{kind.__module__}.{kind.__name__}"
)
def test_every_setting_has_a_meaning(kind: type[Section]) -> None:
    assert section_meaning(kind)
    if "hydra_plugins" in kind.__module__:
        return
    for name, field in kind.model_fields.items():
        inside = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        if name not in meanings(kind):
            assert any(issubclass(each, Section) for each in inside), f"{kind.__name__}.{name} has no text under it"


@pytest.mark.parametrize("file", sorted((CONF / "task").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_option_of_a_task_has_a_meaning(file: Path) -> None:
    told = option_comments(file.stem)
    for option in yaml.safe_load(file.read_text())["options"]:
        assert told.get(option) or option_comments("bouncingsim").get(option), f"{file.stem}: {option} has no comment"


def test_help_has_every_setting_with_its_value() -> None:
    text = help_text(["algorithm=switch", "optimizer.lr=0.25", "author.url=http://there/v1"], "config")
    for part in (
        *("optimizer.lr=0.25", "learning rate after warm-up", "author.url=http://there/v1", "steps=null"),
        *("algorithm.first.playbook.max_entries=200", "algorithm.then.group=8", "algorithm.when.passed=0.5"),
        *("engine.max_batch=64", "task.options.family=has", "basic_mix", "auto | on | off", "at least 1"),
    ):
        assert part in text.replace("\n" + " " * 40, " ")


def test_help_about_a_mistake_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"did you mean optimizer\.lr"):
        help_text(["lr=1"], "config")


def test_a_text_of_ones_own_is_shown(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task/mine.yaml").write_text("name: here:Task\noptions: { a: 1 }\n")
    text = help_text(["--config-dir", str(tmp_path), "task=mine"], "config")
    assert "task.options.a=1" in text
