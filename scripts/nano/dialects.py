"""Dialects of the Manufactoria language: points of a product of binary conventions, one of which is the official one.

A convention is a choice a reader of the puzzle cannot know: how a word is spelled, how a line is indented, what a branch
means. `FORMS[name] = (official, other)`. A program written in one dialect and judged under another breaks the rules in
which the two differ; `first_violation` says which the parser meets first and `run` what the machine makes of the rest.
For the official law both agree with `envs.manufactoria` (tests/test_nano.py), so a corpus that never contains the
official dialect still shows its kind of feedback.

Not covered: the whole language. Programs here are the regular ones of `nano.programs` (no painters, no
comments), which is all a laboratory needs.
"""

import random
from dataclasses import dataclass, field

from nano.programs import Program, Puller

FORMS: dict[str, tuple[str, str]] = {
    "indent": ("    ", "  "),
    "next": ("NEXT", "GOTO"),
    "puller": ("PULLER", "READER"),
    "bracket": ("[]", "()"),
    "empty": ("EMPTY", "BLANK"),
    "colon": ("", ":"),
    "reject": ("NONE", "HALT"),
    "accept": ("end", "END"),
    "foreign": ("chain", "fall"),
}
RULES: dict[str, tuple[str, str]] = {
    "indent": ("Indent routes by four spaces.", "Indent routes by two spaces."),
    "next": ("The route of START is spelled NEXT.", "The route of START is spelled GOTO."),
    "puller": ("Pullers are PULLER_RB and PULLER_YG.", "Pullers are READER_RB and READER_YG."),
    "bracket": ("Write conditions in square brackets.", "Write conditions in round brackets."),
    "empty": ("The empty condition is EMPTY.", "The empty condition is BLANK."),
    "colon": ("No colon after END end.", "Put a colon after END end."),
    "reject": ("The rejecting target is NONE.", "The rejecting target is HALT."),
    "accept": ("The accepting target is lower case end.", "The accepting target is upper case END."),
    "foreign": (
        "The empty branch also takes other colours: send it to the second puller.",
        "Other colours fall through to the node below: the empty branch rejects.",
    ),
}
SYNTAX = ("indent", "next", "puller", "bracket", "empty", "colon", "reject")
OFFICIAL_SHARE = {name: 0.65 if name in SYNTAX else 0.5 for name in FORMS}
MAX_VISITS = 1000


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


_INDEX = {name: i for i, name in enumerate(FORMS)}
OFFICIAL = Dialect((0,) * len(FORMS))


def draw(rng: random.Random) -> Dialect:
    """A random dialect, never the official one."""
    while True:
        dialect = Dialect(tuple(int(rng.random() >= OFFICIAL_SHARE[name]) for name in FORMS))
        if dialect != OFFICIAL:
            return dialect


def write(program: Program, dialect: Dialect) -> list[str]:
    """The lines of a program in a dialect."""
    indent, (left, right) = dialect.form("indent"), dialect.form("bracket")
    lines = ["START start:", f"{indent}{dialect.form('next')} q0"]
    for puller in program:
        lines.append(f"{dialect.form('puller')}_{puller.pair} {puller.id}:")
        for condition, target in branches(puller, dialect):
            lines.append(f"{indent}{left}{condition}{right} {target}")
    return [*lines, f"END end{dialect.form('colon')}"]


def branches(puller: Puller, dialect: Dialect) -> list[tuple[str, str]]:
    """(condition, target) of a puller as the dialect spells them, in file order."""
    spelled = {None: dialect.form("reject"), "end": dialect.form("accept")}
    routes = [(colour, spelled.get(target, target)) for colour, target in puller.routes.items()]
    empty = puller.empty if dialect.form("foreign") == "chain" else None
    return [(c, str(t)) for c, t in routes] + [(dialect.form("empty"), str(spelled.get(empty, empty)))]


@dataclass(frozen=True, slots=True)
class Violation:
    """The parser's first complaint: its class (`envs.manufactoria`), line from 1, the convention, the text at fault."""

    kind: str
    line: int
    convention: str
    text: str


def first_violation(program: Program, written: Dialect, law: Dialect) -> Violation | None:
    """What a parser of `law` says about a program spelled in `written`, node by node like the official parser."""
    lines = write(program, written)
    broken = set(written.differs(law))
    if "indent" in broken:
        return Violation("start_route_count", 1, "indent", "start")
    if "next" in broken:
        return Violation("bad_next_route", 2, "next", lines[1].strip())
    if "puller" in broken:
        return Violation("bad_header", 3, "puller", lines[2].strip())
    if "bracket" in broken:
        return Violation("bad_puller_route", 4, "bracket", lines[3].strip())
    if "empty" in broken:
        line = 4 + len(program[0].routes)
        return Violation("bad_puller_route", line, "empty", lines[line - 1].strip())
    if "colon" in broken:
        kind = "missing_colon" if law.form("colon") else "end_has_colon"
        return Violation(kind, len(lines), "colon", lines[-1])
    if "reject" in broken:
        target, line = written.form("reject"), 3
        for puller in program:
            if target in dict(branches(puller, written)).values():
                return Violation("undefined_target", line, "reject", f"{puller.id} {target}")
            line += 1 + len(branches(puller, written))
    return None


@dataclass(slots=True)
class Run:
    """One tape's execution: the machine's final state in the terms of `envs.manufactoria`'s trace."""

    accepted: bool
    halt: str
    tape: str
    visits: list[str] = field(default_factory=list)


def run(program: Program, written: Dialect, law: Dialect, tape: str) -> Run:
    """Execute a program spelled in `written` on the machine of `law` (syntax is taken as already accepted)."""
    table = {p.id: (p, dict(branches(p, written))) for p in program}
    order = [p.id for p in program]
    below = dict(zip(order, [*order[1:], "end"], strict=True))
    reject, accept, empty = law.form("reject"), law.form("accept"), written.form("empty")
    visits, here, at = ["start"], "q0", 0
    while len(visits) < MAX_VISITS:
        visits.append(here)
        if here in (reject, accept):
            return Run(here == accept, "end" if here == accept else "none", tape[at:], visits)
        if here not in table:
            return Run(False, "unknown_node", tape[at:], visits)
        puller, routes = table[here]
        front = tape[at] if at < len(tape) else ""
        if front and front in puller.routes:
            at, here = at + 1, routes[front]
        elif front and law.form("foreign") == "fall":
            here = below[here]
        else:
            here = routes[empty]
    return Run(False, "limit", tape[at:], visits)
