"""The playbook: a store of one-line lessons with stable ids and helpful/harmful counters (paper section 3.3).

Every change is an event, and the events alone rebuild the state. What to remove is decided elsewhere (`concise`).
Two entries with the same words are one: the second `add` is refused. A playbook of several tasks may have a shelf for
each, and shows what is on the one it was turned to. `novelty="word"` also refuses a text of which no
word is new to the playbook, for models that say the same few rules again and again; it takes a rule in other words for
new, and one that only puts known words together in another way for old.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from resd.types import Tag, UserError

Style = Literal["full", "small", "compact"]
Novelty = Literal["text", "word"]

SECTIONS: Mapping[str, str] = {
    "strategies": "str",
    "formulas": "for",
    "code_snippets": "code",
    "common_mistakes": "err",
    "heuristics": "heu",
    "context_clues": "ctx",
    "others": "misc",
}
UNNAMED = "common_mistakes"  # for rules whose section nobody says: no other was in a playbook that nano learned from
# Models name a section freely ("Problem-solving heuristics", "mistakes to avoid"): the first telling word decides.
_TELLING_WORDS: Mapping[str, str] = {
    "strateg": "strategies",
    "formula": "formulas",
    "code": "code_snippets",
    "snippet": "code_snippets",
    "mistake": "common_mistakes",
    "error": "common_mistakes",
    "pitfall": "common_mistakes",
    "heuristic": "heuristics",
    "context": "context_clues",
    "clue": "context_clues",
}


@dataclass(slots=True)
class Entry:
    """One lesson. `last_tagged` is the step of the last helpful or harmful tag, at first the step of creation."""

    id: str
    section: str
    text: str
    created: int
    last_tagged: int
    helpful: int = 0
    harmful: int = 0
    parents: tuple[str, ...] = ()


def one_line(text: str) -> str:
    """`text` on one line, in printable characters only (a lone surrogate would break every later encoding)."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def section_named(name: str) -> str:
    """The section a free-form name means; a slug counts as a name, an unknown name means `others`."""
    words = re.findall(r"[a-z]+", name.lower())
    for section, slug in SECTIONS.items():
        if words == section.split("_") or words == [slug]:
            return section
    for word in words:
        for beginning, section in _TELLING_WORDS.items():
            if word.startswith(beginning):
                return section
    return "others"


def _normal(text: str) -> str:
    return one_line(text).casefold().rstrip(" .;!")


def _words(text: str) -> set[str]:
    """Words and marks without the punctuation around them."""
    return {stripped for word in _normal(text).split() if (stripped := word.strip("\"'.,;:!?"))}


def same_words(one: str, other: str) -> bool:
    """Whether two texts would be one entry."""
    return _normal(one) == _normal(other)


class Playbook:
    """Entries in the order they were added, and the events not yet drained.

    Steps are context updates, counted from 1. The state is the entries and the next id: drain the events before saving.
    """

    def __init__(self, novelty: Novelty = "text") -> None:
        self.novelty = novelty
        self.shelf = ""
        self._shelves: dict[str, list[Entry]] = {}  # the others
        self._entries: dict[str, Entry] = {}
        self._ids_by_text: dict[str, str] = {}
        self._next = 1
        self.events: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id: str) -> bool:
        return id in self._entries

    @property
    def entries(self) -> Sequence[Entry]:
        return list(self._entries.values())

    def add(
        self, section: str, text: str, step: int, parents: Iterable[str] = (), attempt: str | None = None
    ) -> Entry | None:
        """The new entry, or None if nothing in it is new; the event names the attempt it was learned from, if one is.

        Raises ValueError on a blank text.
        """
        text, section = one_line(text), section_named(section)
        if not text:
            raise ValueError("an entry needs a text")
        if self._knows(text):
            return None
        id = f"{SECTIONS[section]}-{self._next:05d}"
        entry = Entry(id, section, text, created=step, last_tagged=step, parents=tuple(parents))
        self._next += 1
        self._entries[id] = entry
        self._ids_by_text[_normal(text)] = id
        event = {"event": "add", "step": step, "id": id, "section": section, "text": text, "parents": [*entry.parents]}
        self.events.append(event | _of(attempt))
        return entry

    def tag(self, id: str, tag: Tag, step: int, attempt: str | None = None) -> bool:
        """Counts one judgement, of an attempt if one is named; False if there is no such entry.

        A neutral tag is only recorded.
        """
        entry = self._entries.get(id)
        if entry is None:
            return False
        if tag == "helpful":
            entry.helpful += 1
        elif tag == "harmful":
            entry.harmful += 1
        if tag != "neutral":
            entry.last_tagged = step
        self.events.append({"event": "tag", "step": step, "id": id, "tag": tag} | _of(attempt))
        return True

    def remove(self, id: str, reason: str, step: int) -> None:
        """Raises KeyError if there is no such entry. Its id is never given again; its text may be learned again."""
        entry = self._entries.pop(id)
        del self._ids_by_text[_normal(entry.text)]
        self.events.append({"event": "remove", "step": step, "id": id, "reason": reason})

    def turn(self, shelf: str, step: int) -> None:
        """From now on the playbook is what is on this shelf; the rest is left where it is."""
        if shelf != self.shelf:
            self._shelves[self.shelf] = list(self._entries.values())
            self._show(self._shelves.pop(shelf, []))
            self.shelf = shelf
            self.events.append({"event": "turn", "step": step, "id": shelf})

    def render(self, style: Style = "full") -> str:
        """The playbook inside a prompt, one line per entry; empty if there is none.

        `full` groups by section and shows the counters. The others are `id: text` in the order of addition, so that a
        growing playbook keeps its prefix.
        """
        if style != "full":
            return "\n".join(f"{entry.id}: {entry.text}" for entry in self._entries.values())
        return "\n\n".join(
            f"## {_title(section)}\n" + "\n".join(_with_counters(entry) for entry in entries)
            for section, entries in self._by_section()
        )

    def to_markdown(self) -> str:
        """The playbook as a document for people, with the steps at which entries came and were last judged."""
        lines = [f"# Playbook ({len(self)} entries)"]
        for section, entries in self._by_section():
            lines += ["", f"## {_title(section)}", ""]
            lines += [f"{_with_counters(e)} _(step {e.created}, last tagged {e.last_tagged})_" for e in entries]
        return "\n".join(lines) + "\n"

    def beginning(self, step: int) -> dict[str, Any] | None:
        """The event with which the log of a run begins that goes on from here, after update `step`, without the log of
        what led here; None if nothing did."""
        return {"event": "start", "step": step, "state": self.state_dict()} if self._next > 1 else None

    def drain_events(self) -> list[dict[str, Any]]:
        """The events since the last call, oldest first."""
        events, self.events = self.events, []
        return events

    @classmethod
    def replay(cls, events: Iterable[Mapping[str, Any]]) -> "Playbook":
        """The state that wrote these events. Raises UserError if they are not a whole log from the first event on."""
        playbook = cls()
        for number, event in enumerate(events, 1):
            try:
                follows = playbook._repeat(event)
            except (KeyError, ValueError, TypeError, AttributeError):  # of a damaged event
                follows = False
            if not follows:
                raise UserError(
                    f"playbook event {number} does not follow from those before it: "
                    "give the whole playbook.jsonl of one run"
                )
        playbook.drain_events()
        return playbook

    def _knows(self, text: str) -> bool:
        if self.novelty == "word" and _words(text) <= set().union(*map(_words, self._ids_by_text)):
            return True
        return _normal(text) in self._ids_by_text

    def _repeat(self, event: Mapping[str, Any]) -> bool:
        """Makes one change; False, or an error of Python's, if the event does not describe one that was possible."""
        if event["event"] == "start":
            fresh = self._next == 1 and not self.events
            self.load_state_dict(event["state"])
            return fresh
        id, step = event["id"], event["step"]
        if type(step) is not int or not isinstance(id, str):
            return False
        if event["event"] == "add":
            parents = event["parents"]
            if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
                return False
            entry = self.add(event["section"], event["text"], step, parents)
            return entry is not None and (entry.id, entry.text) == (id, event["text"])
        if event["event"] == "turn":
            self.turn(id, step)
            return True
        if event["event"] == "tag":
            return event["tag"] in get_args(Tag) and self.tag(id, event["tag"], step)
        known = event["event"] == "remove" and id in self and isinstance(event["reason"], str)
        if known:
            self.remove(id, event["reason"], step)
        return known

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        state = {"next": self._next, "entries": _plain(self._entries.values())}
        if self.shelf:
            state |= {"shelf": self.shelf, "shelves": {name: _plain(them) for name, them in self._shelves.items()}}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._show(_entries(state["entries"]))
        self.shelf = state.get("shelf", "")
        self._shelves = {name: _entries(them) for name, them in state.get("shelves", {}).items()}
        self._next = state["next"]
        self.events = []

    def _show(self, entries: Iterable[Entry]) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._ids_by_text = {_normal(entry.text): id for id, entry in self._entries.items()}

    def _by_section(self) -> list[tuple[str, list[Entry]]]:
        grouped = [(s, [e for e in self._entries.values() if e.section == s]) for s in SECTIONS]
        return [(section, entries) for section, entries in grouped if entries]


def _plain(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [asdict(entry) | {"parents": list(entry.parents)} for entry in entries]


def _entries(state: Iterable[Mapping[str, Any]]) -> list[Entry]:
    return [Entry(**{**fields, "parents": tuple(fields["parents"])}) for fields in state]


def _title(section: str) -> str:
    return section.replace("_", " ").capitalize()


def _of(attempt: str | None) -> dict[str, str]:
    return {} if attempt is None else {"attempt": attempt}


def _with_counters(entry: Entry) -> str:
    return f"- {entry.id} (helpful {entry.helpful}, harmful {entry.harmful}): {entry.text}"
