"""A Manufactoria program and how it runs: a graph of nodes that reads a tape of colours as a queue.

Pullers take the front symbol and branch on it, painters append one, `end` accepts, `NONE` and undeclared ids reject,
and so does exhausting the budget of visits. `Program.walk` is that definition, visit by visit. A program without
painters is a finite automaton; `Program.accepts` looks its verdict up symbol by symbol.
"""

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

MAX_VISITS = 1000
PULLED = {"PULLER_RB": ("R", "B"), "PULLER_YG": ("Y", "G")}
PAINTED = {"PAINTER_RED": "R", "PAINTER_BLUE": "B", "PAINTER_YELLOW": "Y", "PAINTER_GREEN": "G"}

Halt = Literal["end", "none", "limit", "unknown_node"]
_HALTS: dict[str, Halt] = {"end": "end", "NONE": "none"}  # even when a node is declared under the id NONE
_HALTED = {id_: dict.fromkeys(("", "R", "B", "Y", "G"), id_) for id_ in _HALTS}


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
    """The outcome of one tape; every part is worked out when first asked for."""

    def __init__(self, program: "Program", tape: str, max_visits: int) -> None:
        self._program, self._tape, self._max_visits = program, tape, max_visits

    @property
    def accepted(self) -> bool:
        return self._program.accepts(self._tape, self._max_visits)

    @cached_property
    def walk(self) -> Walk:
        return self._program.walk(self._tape, self._max_visits)

    @property
    def halt(self) -> Halt:
        return self.walk.halt

    @property
    def tape(self) -> str:
        """What is left of the tape."""
        return self.walk.tape

    @property
    def path(self) -> list[str]:
        return self.walk.path

    @property
    def visits(self) -> int:
        return len(self.walk.path)


class Program:
    """A parsed program. `nodes` maps ids to nodes, in the order of the source.

    A tape is a string over RBYG; any other character is a symbol that no puller takes.
    """

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self._moves = None if any(node.type in PAINTED for node in nodes.values()) else Moves(nodes)

    def run(self, tape: str, max_visits: int = MAX_VISITS) -> Trace:
        """Runs `tape` as far as the questions to the trace demand."""
        return Trace(self, tape, max_visits)

    def accepts(self, tape: str, max_visits: int = MAX_VISITS) -> bool:
        """The verdict alone."""
        moves, target = self._moves, "start"
        if moves is None:
            return self.walk(tape, max_visits).halt == "end"
        try:
            for symbol in tape:
                target = moves[target][symbol]
            if moves[target][""] != "end":
                return False
        except KeyError:  # a foreign symbol
            return self.walk(tape, max_visits).halt == "end"
        return moves.longest * (len(tape) + 1) <= max_visits or self.walk(tape, max_visits).halt == "end"

    def walk(self, tape: str, max_visits: int = MAX_VISITS) -> Walk:
        """The run of `tape`, one visit after the other."""
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

    The symbol "" stands for the empty tape. A symbol that no puller takes leads to `end` when the run halts there, and
    to NONE when it halts elsewhere or circles for ever. Rows are made when first needed; `longest` bounds the visits
    that a move of the rows made so far takes, so that most runs need not count theirs.
    """

    def __init__(self, nodes: dict[str, Node]) -> None:
        super().__init__(_HALTED)
        self.nodes = nodes
        self.longest = 1

    def __missing__(self, start: str) -> dict[str, str]:
        nodes, target, visits = self.nodes, start, 1
        taken: dict[str, str] = {}
        while visits <= len(nodes) + 1:
            node = nodes.get(target)
            if node is None or target in _HALTS:
                break
            for colour in PULLED.get(node.type, ()):
                if colour not in taken:
                    taken[colour] = node.routes.get(colour, "NONE")
            target = node.routes["NEXT"] if node.type == "START" else node.routes.get("EMPTY", "NONE")
            visits += 1
        self.longest = max(self.longest, visits)
        self[start] = row = _HALTED["end" if target == "end" else "NONE"] | taken
        return row
