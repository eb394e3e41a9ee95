"""Programs from machines: a state reads the front symbol, paints some symbols at the back, and goes to the next state.

Every problem of these families is solved by one. Known-good answers for tests of the judges come from here; they are
made to be right on tapes of any length, as far as the limit of visits reaches, not to be short.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

State = Hashable | None

_PAINTERS = {"R": "PAINTER_RED", "B": "PAINTER_BLUE", "Y": "PAINTER_YELLOW", "G": "PAINTER_GREEN"}


@dataclass(frozen=True, slots=True)
class Machine:
    """`paint` is painted first, then `start` is entered; the state None accepts.

    `step(state)` maps a front symbol, or "" for the empty tape, to what is painted and the next state. The symbol is
    removed; one that is missing there rejects.
    """

    paint: str
    start: State
    step: Callable[[Any], Mapping[str, tuple[str, State]]]


def acceptor(start: State, step: Callable[[Any], Mapping[str, State]]) -> Machine:
    """A machine that paints nothing: a finite automaton, which accepts at "" where it may end."""
    return Machine("", start, lambda state: {symbol: ("", next_) for symbol, next_ in step(state).items()})


def assemble(machine: Machine) -> str:
    """The source of a program that does what `machine` does."""
    ids: dict[tuple[str, State], str] = {("", None): "end"}
    todo: list[tuple[str, State]] = []

    def node(text: str, state: State) -> str:
        """The id of the node that paints `text` and then enters `state`."""
        if (text, state) not in ids:
            ids[text, state] = f"{'w' if text else 'q'}{len(ids) - 1}"
            todo.append((text, state))
        return ids[text, state]

    blocks = [f"START start:\n    NEXT {node(machine.paint, machine.start)}"]
    for text, state in todo:  # grows while it is walked
        id_ = ids[text, state]
        if text:
            blocks.append(f"{_PAINTERS[text[0]]} {id_}:\n    NEXT {node(text[1:], state)}")
            continue
        routes = {symbol: f"    [{symbol or 'EMPTY'}] {node(*move)}" for symbol, move in machine.step(state).items()}
        primary = [routes[symbol] for symbol in "RB" if symbol in routes]
        others = [routes[symbol] for symbol in ("Y", "G", "") if symbol in routes]
        if others:
            primary.append(f"    [EMPTY] {id_}_yg")
            blocks.append("\n".join([f"PULLER_YG {id_}_yg:", *others]))
        blocks.append("\n".join([f"PULLER_RB {id_}:", *primary]))
    return "\n\n".join([*blocks, "END end"])
