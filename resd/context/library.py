"""A library of experiences in the prompt of a model whose weights stay as they are: what it is worth, and where.

A library is the playbook of a run (`playbook.jsonl`), or a text file of one rule a line. `python -m resd.evaluate
library=FILE placement=… cap=…` tells the model that answers what otherwise only a teacher reads; `filler=true` is the
control: as many words that say nothing about the task. Which entries stay under a cap follows from their counters, so
caps of one library are prefixes of one ranking. Who wrote a library, and how, is not its concern.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from itertools import cycle, islice
from pathlib import Path

from resd.context.playbook import UNNAMED, Entry, Playbook
from resd.context.render import Prompts, split_problem
from resd.settings import LibrarySettings
from resd.types import Messages, Problem, UserError

_INTRODUCTION = "Rules learned from earlier problems; apply those that fit:"
_FOR_PEOPLE = re.compile(r"_\(step \d+, last tagged \d+\)_$")  # a line of playbook.md
_NEUTRAL = (
    "the weather was mild all week and the train came on time while a neighbour watered the garden after lunch and "
    "children played near the old bridge until it grew dark over quiet fields of barley"
)


def load(settings: LibrarySettings) -> Playbook | None:
    """What a model is to be told, if anything. Raises UserError if it cannot be read."""
    if settings.library is None:
        return None
    library = given(settings.library)
    if settings.cap is not None:
        library = capped(library, settings.cap)
    return filler(library) if settings.filler else library


def given(path: str | None) -> Playbook:
    """The library that a setting names, empty without one. Raises UserError if it cannot be read."""
    return Playbook() if path is None else read(Path(path).expanduser())


def read(path: Path) -> Playbook:
    """The library in a file. Raises UserError if there is none in it."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(
            f"library={path} cannot be read ({error.strerror}): write a playbook.jsonl or a text file"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"library={path} is not text in UTF-8: write a playbook.jsonl or a text file") from None
    if path.suffix == ".jsonl":
        playbook = _replayed(path, lines)
    else:
        if any(map(_FOR_PEOPLE.search, lines)):
            raise UserError(
                f"library={path} is written for people: take the playbook.jsonl beside it, or write a rule a line"
            )
        playbook = Playbook()
        for line in lines:
            if not line.startswith("#") and line.lstrip("-* "):
                playbook.add(UNNAMED, line.lstrip("-* "), step=0)
    if not len(playbook):
        raise UserError(f"library={path} holds no entry: write a rule a line, or take the playbook.jsonl of a run")
    return playbook


def _replayed(path: Path, lines: Sequence[str]) -> Playbook:
    try:
        return Playbook.replay(map(json.loads, lines))
    except ValueError:
        raise UserError(f"library={path} is not JSON a line: give the whole playbook.jsonl of one run") from None
    except UserError as error:
        raise UserError(f"library={path}: {error}") from None


def capped(library: Playbook, cap: int) -> Playbook:
    """The `cap` entries judged best (helpful less harmful; of equal ones the oldest), in the order they were added."""
    ranked = sorted(library.entries, key=lambda entry: entry.harmful - entry.helpful)
    return part(library, {entry.id for entry in ranked[:cap]})


def part(library: Playbook, ids: Collection[str]) -> Playbook:
    """The entries of these ids, in the order they were added."""
    kept = Playbook()
    kept.load_state_dict(library.state_dict())
    for entry in library.entries:
        if entry.id not in ids:
            kept.remove(entry.id, "left out", step=0)
    return kept


def filler(library: Playbook) -> Playbook:
    """The control of equal length: every entry keeps its id and counters, and has as many words of something else."""
    words = cycle(_NEUTRAL.split())

    def neutral(entry: Entry) -> str:
        return " ".join(islice(words, len(entry.text.split())))

    state = library.state_dict()
    state["entries"] = [
        fields | {"text": neutral(entry)} for fields, entry in zip(state["entries"], library.entries, strict=True)
    ]
    other = Playbook()
    other.load_state_dict(state)
    return other


def told(
    ask: Callable[[Problem], Messages], library: Playbook, placement: str, prompts: Prompts
) -> Callable[[Problem], Messages]:
    """How a task asks a model that is told the library as well, if anything is in it (`placement`: `LibrarySettings`).

    `template` is how the model's own teacher reads it, the only form that the laboratory model knows.
    """
    if not len(library):
        return ask
    rules = "\n".join(f"- {entry.text}" for entry in library.entries)
    spoken = f"{_INTRODUCTION}\n{rules}"

    def prompt(problem: Problem) -> Messages:
        messages = list(ask(problem))
        index, question = split_problem(messages)
        if placement == "system":
            first = messages[0]["content"] if messages[0]["role"] == "system" else ""
            rest = messages[1:] if messages[0]["role"] == "system" else messages
            return [{"role": "system", "content": f"{first}\n\n{spoken}".strip()}, *rest]
        if placement == "turn":
            earlier = [{"role": "user", "content": spoken}, {"role": "assistant", "content": "I will keep to them."}]
            return [*messages[:index], *earlier, *messages[index:]]
        content = {
            "template": prompts.teacher(question, playbook=library.render(prompts.style)),
            "before": f"{spoken}\n\n{question}",
            "after": f"{question}\n\n{spoken}",
        }[placement]
        return [*messages[:index], {"role": "user", "content": content}, *messages[index + 1 :]]

    return prompt
