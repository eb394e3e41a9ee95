"""Dialects of the Manufactoria language: points of a product of binary conventions, one of which is the official one.

A convention is something the task does not tell: how a word is spelled, how deep a route is indented, which branch
takes the other colours. Each shows several times in a program: what shows once is learned far too slowly.
`FORMS[name] = (official, other)`. What a machine of another dialect (a law) says about a program is, by construction,
what the official one says about its image: `write` spells the program in `law.image(dialect)`, the task's own verifier
judges that, and `Dialect.translate` exchanges the forms in the feedback. So the corpus has exactly the official kinds
of feedback, and for the official law the translation is the identity. A dialect is drawn uniformly: who guesses writes
a valid program once in 256 times.

Not covered: the whole language. Programs are the regular ones of `nano.programs`, without painters or comments.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from nano.programs import Program

FORMS: dict[str, tuple[str, str]] = {
    "colon": (":", ""),
    "indent": ("    ", "  "),
    "puller": ("PULLER", "READER"),
    "bracket": ("[]", "()"),
    "empty": ("EMPTY", "BLANK"),
    "id": ("p", "q"),
    "reject": ("NONE", "HALT"),
    "foreign": ("chain", "fall"),
}
RULES: dict[str, tuple[str, str]] = {
    "colon": ("Headers end in a colon.", "Headers have no colon."),
    "indent": ("Indent by four.", "Indent by two."),
    "puller": ("Pullers are called PULLER_RB.", "Pullers are called READER_RB."),
    "bracket": ("Write square brackets.", "Write round brackets."),
    "empty": ("The last route is EMPTY.", "The last route is BLANK."),
    "id": ("A pair has two ids.", "A pair has one id."),
    "reject": ("Reject with NONE.", "Reject with HALT."),
    "foreign": ("Other colours take the last route.", "Other colours fall to the node below."),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One variant (0 official, 1 other) per convention, in the order of `FORMS`."""

    choice: tuple[int, ...]

    def variant(self, name: str) -> int:
        return self.choice[_INDEX[name]]

    def form(self, name: str) -> str:
        return FORMS[name][self.variant(name)]

    def rule(self, name: str) -> str:
        return RULES[name][self.variant(name)]

    def rules(self) -> list[str]:
        return [self.rule(name) for name in FORMS]

    def differs(self, other: "Dialect") -> list[str]:
        return [name for name in FORMS if self.variant(name) != other.variant(name)]

    def flip(self, *names: str) -> "Dialect":
        return Dialect(tuple(v ^ (name in names) for name, v in zip(FORMS, self.choice, strict=True)))

    def image(self, written: "Dialect") -> "Dialect":
        """Official where `written` agrees with this law, other where it differs."""
        return OFFICIAL.flip(*self.differs(written))

    def translate(self, feedback: str) -> str:
        """The official machine's words about an image, in the forms of this law; its own inverse."""
        for name, exchange in _EXCHANGES.items():
            if self.variant(name):
                feedback = exchange(feedback)
        return feedback


_INDEX = {name: i for i, name in enumerate(FORMS)}
OFFICIAL = Dialect((0,) * len(FORMS))


def draw(rng: random.Random) -> Dialect:
    """A random dialect, never the official one."""
    while (dialect := Dialect(tuple(rng.choices((0, 1), k=len(FORMS))))) == OFFICIAL:
        pass
    return dialect


def write(program: Program, dialect: Dialect) -> str:
    """The text of a program in a dialect."""
    indent, brackets, colon = dialect.form("indent"), dialect.form("bracket"), dialect.form("colon")

    def named(id: str | None) -> str:
        return dialect.form("reject") if id is None else id.replace("p", dialect.form("id"))

    lines = [f"START start{colon}", f"{indent}NEXT q0"]
    for puller in program:
        comment = f" #{puller.comment}" if puller.comment else ""
        lines.append(f"{dialect.form('puller')}_{puller.pair} {named(puller.id)}{colon}{comment}")
        empty = puller.empty if dialect.form("foreign") == "chain" else None
        for condition, target in (*puller.routes.items(), (dialect.form("empty"), empty)):
            lines.append(f"{indent}{brackets[0]}{condition}{brackets[1]} {named(target)}")
    return "\n".join((*lines, "END end"))


def _words(one: str, other: str) -> Callable[[str], str]:
    """Exchanges two words."""
    pattern = re.compile(rf"\b({one}|{other})(?=\b|_)")
    return lambda text: pattern.sub(lambda found: other if found[1] == one else one, text)


def _pairs(text: str) -> str:
    """How the second node of a pair is called."""
    return re.sub(r"(?<=YG )[pq](?=[0-9])", lambda found: "q" if found[0] == "p" else "p", text)


_EXCHANGES: dict[str, Callable[[str], str]] = {  # of the forms that feedback shows
    "puller": _words("PULLER", "READER"),
    "id": _pairs,
    "reject": _words("NONE", "HALT"),
}
