"""A Manufactoria program and how it runs: a graph of nodes that reads a tape of colours as a queue.

Pullers take the front symbol and branch on it, painters append one, `end` accepts, `NONE` and undeclared ids reject,
and so does exhausting the budget of visits. `Program.walk` is that definition, visit by visit. A program without
painters is a finite automaton, whose verdict `Program.run` looks up symbol by symbol; it walks when asked for more.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

MAX_VISITS = 1000
PULLED = {"PULLER_RB": ("R", "B"), "PULLER_YG": ("Y", "G")}
PAINTED = {"PAINTER_RED": "R", "PAINTER_BLUE": "B", "PAINTER_YELLOW": "Y", "PAINTER_GREEN": "G"}

Halt = Literal["end", "none", "limit", "unknown_node"]
_HALTS: dict[str, Halt] = {"end": "end", "NONE": "none"}  # even when a node is declared under the id NONE


@dataclass(slots=True)
class Node:
    """A declared node: its type, the line of its header, and where each condition (`R` … `EMPTY`, `NEXT`) leads."""

    type: str
    line: int
    routes: dict[str, str]


class Walk(NamedTuple):
    """Why a run halted, the tape that was left, and the id of every visit, the one that halts included."""

    halt: Halt
    tape: str
    path: list[str]


class Trace:
    """The outcome of one tape: `accepted`, `halt`, the `tape` that is left, the number of `visits`, and their `path`.

    All but `accepted` are worked out when first asked for.
    """

    __slots__ = ("_input", "_max_visits", "_program", "_walk", "accepted")

    def __init__(self, program: "Program", tape: str, max_visits: int, accepted: bool | None = None) -> None:
        self._program, self._input, self._max_visits = program, tape, max_visits
        self._walk: Walk | None = None
        self.accepted = self.halt == "end" if accepted is None else accepted

    @property
    def walk(self) -> Walk:
        if self._walk is None:
            self._walk = self._program.walk(self._input, self._max_visits)
        return self._walk

    @property
    def halt(self) -> Halt:
        return self.walk.halt

    @property
    def tape(self) -> str:
        return self.walk.tape

    @property
    def path(self) -> list[str]:
        return self.walk.path

    @property
    def visits(self) -> int:
        return len(self.walk.path)

    def __repr__(self) -> str:
        return f"Trace(accepted={self.accepted}, halt={self.halt!r}, tape={self.tape!r}, visits={self.visits})"


class Program:
    """A parsed program. `nodes` maps ids to nodes, in the order of the source."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self._moves = None if any(node.type in PAINTED for node in nodes.values()) else Moves(nodes)

    def run(self, tape: str, max_visits: int = MAX_VISITS) -> Trace:
        """Runs `tape`, a string over RBYG; any other character is a symbol that no puller takes."""
        moves, target = self._moves, "start"
        if moves is None:
            return Trace(self, tape, max_visits)
        try:
            for symbol in tape:
                target = moves[target][symbol]
            accepted = moves[target][""] == "end"
        except KeyError:  # a foreign symbol
            return Trace(self, tape, max_visits)
        if accepted and moves.longest * (len(tape) + 1) > max_visits:
            return Trace(self, tape, max_visits)
        return Trace(self, tape, max_visits, accepted)

    def walk(self, tape: str, max_visits: int = MAX_VISITS) -> Walk:
        """Runs `tape` one visit after the other."""
        queue, target = deque(tape), "start"
        path: list[str] = []
        halt: Halt = "limit"
        for _ in range(max_visits):
            path.append(target)
            node = self.nodes.get(target)
            if node is None or target in _HALTS:
                halt = _HALTS.get(target, "unknown_node")
                break
            colours = PULLED.get(node.type)
            if not colours:
                queue.extend(PAINTED.get(node.type, ""))
                target = node.routes["NEXT"]
            elif queue and queue[0] in colours:
                target = node.routes.get(queue.popleft(), "NONE")
            else:
                target = node.routes.get("EMPTY", "NONE")
        return Walk(halt, "".join(queue), path)


class Moves(dict[str, dict[str, str]]):
    """The automaton of a program without painters: by node and symbol the node that is reached with it consumed.

    The symbol "" stands for the empty tape. Where a run halts, all symbols lead to `end` when it accepts, else to NONE;
    circling through EMPTY for ever rejects, too. Rows are made when first needed. `longest` is the largest number of
    visits that a move of the rows made so far takes: a run that stays within it needs no count of its visits.
    """

    def __init__(self, nodes: dict[str, Node]) -> None:
        super().__init__(_HALTED)
        self.nodes = nodes
        self.longest = 1

    def __missing__(self, start: str) -> dict[str, str]:
        nodes, target, visits = self.nodes, start, 0
        taken: dict[str, str] = {}
        for visits in range(1, len(nodes) + 2):
            node = nodes.get(target)
            if node is None or target in _HALTS:
                break
            for colour in PULLED.get(node.type, ()):
                if colour not in taken:
                    taken[colour] = node.routes.get(colour, "NONE")
            target = node.routes["NEXT"] if node.type == "START" else node.routes.get("EMPTY", "NONE")
        self.longest = max(self.longest, visits)
        self[start] = row = _HALTED["end" if target == "end" else "NONE"] | taken
        return row


_HALTED = {id_: dict.fromkeys(("", "R", "B", "Y", "G"), id_) for id_ in _HALTS}
