"""A Manufactoria program and how it runs: a graph of nodes that reads a tape of colours as a queue.

Pullers take the front symbol and branch on it, painters append one, `end` accepts, `NONE` and undeclared ids reject, and
so does exhausting the budget of visits. `Program.walk` is that definition, visit by visit. `Program.run` gives the same
outcome faster: it compiles, when first needed, what happens from a node under a given front symbol until that symbol is
gone, and falls back to `walk` when the budget could matter.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

MAX_VISITS = 1000
PULLED = {"PULLER_RB": ("R", "B"), "PULLER_YG": ("Y", "G")}
PAINTED = {"PAINTER_RED": "R", "PAINTER_BLUE": "B", "PAINTER_YELLOW": "Y", "PAINTER_GREEN": "G"}

Halt = Literal["end", "none", "limit", "unknown_node"]


@dataclass(slots=True)
class Node:
    """A declared node: its type, the line of its header, and where each condition (`R` … `EMPTY`, `NEXT`) leads."""

    type: str
    line: int
    routes: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Trace:
    """The outcome of one tape. `tape` is what is left, `visits` counts every visited id including the one that halts.

    `path` lists those ids; it is empty unless the trace comes from `Program.walk`.
    """

    accepted: bool
    halt: Halt
    tape: str
    visits: int
    path: tuple[str, ...] = ()


class State(dict[str, "Step"]):
    """The compiled steps from one node, by front symbol ("" when the tape is empty); filled when first needed.

    A step lasts until the front symbol is consumed, or something is painted on an empty tape, or the program halts.
    """

    def __init__(self, program: "Program", target: str) -> None:
        super().__init__()
        self.program, self.target = program, target

    def __missing__(self, front: str) -> "Step":
        self[front] = step = self.program.step(self.target, front)
        return step


Event = tuple[str, Halt | None]  # colours painted, and why the program halts if it does
Step = tuple[State, int, Event | None]  # the next state, visits taken, and what happens besides consuming the front

_FOREVER = 1 << 60


class Program:
    """A parsed program. `nodes` maps ids to nodes, in the order of the source."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self._states: dict[str, State] = {}

    def run(self, tape: str, max_visits: int = MAX_VISITS) -> Trace:
        """Runs `tape`, a string over RBYG; any other character is a symbol that no puller takes."""
        state, visits, queue = self._state("start"), 0, list(tape)
        halt: Halt | None = None
        while not halt:
            fronts = iter(queue)
            for front in fronts:
                state, cost, event = state[front]
                visits += cost
                if event:
                    painted, halt = event
                    queue += painted  # `fronts` reaches it in turn
                    if halt or visits > max_visits:
                        break
            else:
                front = ""
                state, cost, event = state[front]
                visits += cost
                painted, halt = event or ("", None)
                queue = list(painted)
            if visits > max_visits:
                return self.walk(tape, max_visits)
        rest = front + "".join(fronts)
        return Trace(halt == "end", halt, rest, max_visits if halt == "limit" else visits)

    def walk(self, tape: str, max_visits: int = MAX_VISITS) -> Trace:
        """What `run` does, one visit after the other; records the path."""
        queue, target = deque(tape), "start"
        path: list[str] = []
        while len(path) < max_visits:
            path.append(target)
            if halt := self._halt(target):
                return Trace(halt == "end", halt, "".join(queue), len(path), tuple(path))
            node = self.nodes[target]
            if node.type not in PULLED:
                queue.extend(PAINTED.get(node.type, ""))
                target = node.routes["NEXT"]
            elif queue and queue[0] in PULLED[node.type]:
                target = node.routes.get(queue.popleft(), "NONE")
            else:
                target = node.routes.get("EMPTY", "NONE")
        return Trace(False, "limit", "".join(queue), len(path), tuple(path))

    def step(self, target: str, front: str) -> Step:
        """Follows nodes from `target` until the next event that depends on more than the front symbol."""
        painted = ""
        for visits in range(1, len(self.nodes) + 2):
            if halt := self._halt(target):
                return self._state(target), visits, (painted, halt)
            node = self.nodes[target]
            if node.type in PULLED:
                if front in PULLED[node.type]:
                    event = (painted, None) if painted else None
                    return self._state(node.routes.get(front, "NONE")), visits, event
                target = node.routes.get("EMPTY", "NONE")
            else:
                target = node.routes["NEXT"]
                painted += PAINTED.get(node.type, "")
                if painted and not front:
                    return self._state(target), visits, (painted, None)
        # A node came up twice: the program circles for ever. Only what it paints meanwhile depends on the budget.
        return self._state(target), _FOREVER if painted else 0, ("", "limit")

    def _halt(self, target: str) -> Halt | None:
        """Why a robot sent to `target` stops there, or None when it goes on."""
        if target == "NONE":
            return "none"
        if target == "end":
            return "end"
        return None if target in self.nodes else "unknown_node"

    def _state(self, target: str) -> State:
        if target not in self._states:
            self._states[target] = State(self, target)
        return self._states[target]
