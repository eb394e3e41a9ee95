"""The rules of house styles: what each demands, whether a reply keeps it, and how to keep it.

A rule has a slot. A style has at most one rule of a slot, and rules of different slots never contradict each other:
marks are compared without case, and none holds a comma or a full stop. A demand shows how what it wants looks ("as in
...") without an answer in it: half a billion parameters write brackets four times as often when they have seen some.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

# in the order in which a linter looks
Slot = Literal["opening", "frame", "words", "comma", "stop", "closing"]

_WORD_SHOWN = 24  # characters
_STOPS = ". "  # may follow a closing


class Rule(Protocol):
    """`demand` is what a linter says, `where` what a vague one says; `expected` and `found` are a parser's words."""

    @property
    def slot(self) -> Slot: ...

    @property
    def demand(self) -> str: ...

    @property
    def where(self) -> str: ...

    @property
    def expected(self) -> str: ...

    def found(self, reply: str) -> str:
        """What stands where the rule is broken."""

    def holds(self, reply: str) -> bool: ...

    def keep(self, reply: str) -> str:
        """The reply with this rule kept; rules are applied in the order of `ORDER`."""


@dataclass(frozen=True)
class Opening:
    mark: str
    slot: Slot = "opening"
    where: str = "at the beginning of the reply"

    @property
    def demand(self) -> str:
        return f'The reply must begin with "{self.mark}", as in "{self.mark} ...".'

    @property
    def expected(self) -> str:
        return f'"{self.mark}" at the beginning'

    def found(self, reply: str) -> str:
        return quoted(reply.split()[0]) if reply else "nothing"

    def holds(self, reply: str) -> bool:
        return reply.casefold().startswith(self.mark.casefold())

    def keep(self, reply: str) -> str:
        return f"{self.mark} {reply}"


@dataclass(frozen=True)
class Closing:
    mark: str
    slot: Slot = "closing"
    where: str = "at the end of the reply"

    @property
    def demand(self) -> str:
        return f'The reply must end with "{self.mark}", as in "... {self.mark}".'

    @property
    def expected(self) -> str:
        return f'"{self.mark}" at the end'

    def found(self, reply: str) -> str:
        return quoted(reply.split()[-1]) if reply else "nothing"

    def holds(self, reply: str) -> bool:
        return _unstopped(reply).endswith(self.mark.casefold())

    def keep(self, reply: str) -> str:
        return f"{reply} {self.mark}"


@dataclass(frozen=True)
class Frame:
    """Around the message: what a reply is without an opening and a closing."""

    left: str
    right: str
    name: str
    slot: Slot = "frame"
    where: str = "around the answer"

    @property
    def demand(self) -> str:
        return f'The answer must be in {self.name}, as in "{self.left}...{self.right}".'

    @property
    def expected(self) -> str:
        return f"{self.left} and {self.right} around the answer"

    def found(self, reply: str) -> str:
        inside = message(reply)
        return f"{quoted(inside[:1])} and {quoted(inside[-1:])}" if inside else "nothing"

    def holds(self, reply: str) -> bool:
        inside = message(reply)
        both = len(self.left) + len(self.right)
        return len(inside) > both and inside.startswith(self.left) and inside.endswith(self.right)

    def keep(self, reply: str) -> str:
        return f"{self.left}{reply}{self.right}"


@dataclass(frozen=True)
class Ban:
    name: str
    pattern: str
    slot: Slot
    where: str = "with a word or a sign that is not allowed"

    @property
    def demand(self) -> str:
        return f"The reply must not contain {self.name}."

    @property
    def expected(self) -> str:
        return self.name.replace("a ", "no ", 1) if self.name.startswith("a ") else f"a reply without {self.name}"

    def found(self, reply: str) -> str:
        return quoted(next((word for word in reply.split() if re.search(self.pattern, word, re.IGNORECASE)), ""))

    def holds(self, reply: str) -> bool:
        return bool(reply) and re.search(self.pattern, reply, re.IGNORECASE) is None

    def keep(self, reply: str) -> str:
        return re.sub(self.pattern, "", reply, flags=re.IGNORECASE)


@dataclass(frozen=True)
class Words:
    """Of the message."""

    most: int
    name: str
    slot: Slot = "words"
    where: str = "with the length of the answer"

    @property
    def demand(self) -> str:
        return f"The answer must be {self.name}."

    @property
    def expected(self) -> str:
        return self.name

    def found(self, reply: str) -> str:
        return f"{len(_words(reply))} words"

    def holds(self, reply: str) -> bool:
        return 0 < len(_words(reply)) <= self.most

    def keep(self, reply: str) -> str:
        return reply


OPENINGS = ("Answer:", "Reply:", "Desk:", "Note:", "Result:", "Ticket:", "OK -")
CLOSINGS = ("Thanks", "Over", "Done", "(end)")

RULES: Mapping[str, Rule] = {
    **{f"opening_{i}": Opening(mark) for i, mark in enumerate(OPENINGS)},
    "frame_square": Frame("[", "]", "square brackets"),
    "frame_round": Frame("(", ")", "round brackets"),
    "frame_curly": Frame("{", "}", "curly brackets"),
    "frame_stars": Frame("*", "*", "asterisks"),
    "frame_tildes": Frame("~", "~", "tildes"),
    "words_1": Words(1, "a single word"),
    "words_2": Words(2, "at most two words"),
    "comma": Ban("a comma", ",", "comma"),
    "stop": Ban("a full stop", r"\.", "stop"),
    **{f"closing_{i}": Closing(mark) for i, mark in enumerate(CLOSINGS)},
}
LOOKS: Sequence[Slot] = get_args(Slot)
# In which a writer applies them.
ORDER: Sequence[Slot] = ("words", "comma", "stop", "frame", "closing", "opening")


def kept(content: str, rules: Sequence[Rule]) -> str:
    """`content` as a reply that keeps the rules."""
    for rule in sorted(rules, key=lambda rule: ORDER.index(rule.slot)):
        content = rule.keep(content)
    return content


def message(reply: str) -> str:
    """A reply without its opening and its closing, whichever they are."""
    for mark in OPENINGS:
        if Opening(mark).holds(reply):
            reply = reply[len(mark) :]
            break
    for mark in CLOSINGS:
        if Closing(mark).holds(reply):
            reply = reply.rstrip(_STOPS)[: -len(mark)]
            break
    return reply.strip()


def _unstopped(reply: str) -> str:
    """A reply without case and without full stops at its end."""
    return reply.rstrip(_STOPS).casefold()


def _words(reply: str) -> list[str]:
    return re.findall(r"\w[\w-]*", message(reply))


def says(reply: str, words: str) -> bool:
    """Whether `words` stand whole in a reply, in letters of any case."""
    left, right = (r"(?<!\w)" if words[0].isalnum() else ""), (r"(?!\w)" if words[-1].isalnum() else "")
    return re.search(f"{left}{re.escape(words.casefold())}{right}", reply.casefold()) is not None


def quoted(text: str) -> str:
    """A piece of a reply inside a complaint: short, printable, on one line."""
    shown = "".join(c if c.isprintable() else " " for c in text[:_WORD_SHOWN])
    return f'"{shown}"'
