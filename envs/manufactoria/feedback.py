"""What a failed attempt is told: one text for the reflector, the curator and the teacher.

`official` carries what the released system's feedback carries, in other words: one run-time error, or else the two
shortest wrong answers, with a trace cut to ten lines, so that a long trace loses its end and the expected verdict.
`full` loses neither, counts the passing tests, and shows a wrong rejection as well as a wrong acceptance. `compact` is
one line, for models with a short context: for a text that does not parse it tells the line and the kind of the mistake,
but not the right form. None of them shows the criteria or a test that passed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from resd.envs.manufactoria.parser import ParseError
from resd.envs.manufactoria.program import Program, Trace

FeedbackKind = Literal["full", "official", "compact"]

_PATH_SHOWN = 16
_SHORT_KINDS = {  # what `compact` says of a mistake whose name would give the right form away
    "bad_next_route": "bad route",
    "bad_puller_route": "bad route",
    "end_has_colon": "bad colon",
    "missing_colon": "bad colon",
    "start_route_count": "no route",
}
_WIDTH = 250


@dataclass(slots=True)
class Failure:
    """A failed test: its position among the tests, its record in the columns of the data, and what the program did."""

    index: int
    case: Mapping[str, Any]
    accepted: bool
    trace: Trace

    @property
    def cause(self) -> str | None:
        """Why the program rejected what it should accept (`none`, `limit`, `unknown_node`); None when it accepted."""
        return None if self.accepted else self.trace.halt


def no_answer(truncated: bool) -> str:
    """Feedback for a response without a program."""
    if truncated:
        return "The response was cut off at its maximum length before a complete program; be briefer."
    return "No program was found: put it between a line ```manufactoria and a line ```."


def not_parsed(error: ParseError, kind: FeedbackKind) -> str:
    """Feedback for a text that is no program. Nothing was run, so it tells nothing about tests."""
    if kind == "official":
        return f"Runtime error\nDSL parse error: {_cut(str(error))}\nLast executed input:\nNone"
    if kind == "compact":
        what = _SHORT_KINDS.get(error.kind, error.kind.replace("_", " "))
        return f"Parse error: {what}." if error.line is None else f"Parse error in line {error.line}: {what}."
    return f"The program could not be parsed, so no test was run. Parse error: {_cut(str(error))}."


def failed(program: Program, failures: Sequence[Failure], n_cases: int, kind: FeedbackKind) -> str:
    """Feedback for a program that fails at least one of `n_cases` tests."""
    if kind == "official":
        return official(program, failures)
    passing = f"{n_cases - len(failures)} of {n_cases} tests pass."
    shown = shortest_of_each(failures)
    if kind == "compact":
        return f"{passing} {_verdict(program, shown[0])}"
    return "\n\n".join([passing, *(_full(program, failure) for failure in shown)])


def shortest_of_each(failures: Sequence[Failure]) -> list[Failure]:
    """The wrong rejection and the wrong acceptance (or output) with the shortest tapes, as far as there are any."""
    groups = [[f for f in failures if not f.accepted], [f for f in failures if f.accepted]]
    return [min(group, key=_input_length) for group in groups if group]


def official_selection(failures: Sequence[Failure]) -> list[Failure]:
    """The first wrong rejection; without any, the two failures with the shortest input and output together."""
    for failure in failures:
        if not failure.accepted:
            return [failure]
    return sorted(failures, key=lambda failure: _input_length(failure) + len(failure.trace.tape))[:2]


def official(program: Program, failures: Sequence[Failure]) -> str:
    """The released system's facts in its order, with its cuts: 250 characters a tape, 10 debug lines, 2000 in all."""
    shown = official_selection(failures)
    if shown[0].cause:
        parts = ["Runtime error", _reason(program, shown[0]), "Last executed input:"]
        text = "\n".join([*parts, _cut(shown[0].case.get("input", "")), *_debug(program, shown[0])])
    else:
        text = "\n\n".join("\n".join(_wrong_answer(program, failure)) for failure in shown)
    return text[:2000]


def _wrong_answer(program: Program, failure: Failure) -> list[str]:
    lines = [f"Test case {failure.index + 1}: wrong answer", "Input:", _cut(failure.case.get("input", ""))]
    lines += ["Output:", _cut(failure.trace.tape)]
    if expected := failure.case.get("expected_output", ""):
        lines += ["Expected output:", _cut(expected)]
    return lines + _debug(program, failure)


def _debug(program: Program, failure: Failure) -> list[str]:
    trace = failure.trace
    front = trace.tape[:1] or "EMPTY"
    if trace.halt == "limit":
        lines = [f"Last node: {_node(program, trace.path[-1])}", f"Front symbol: {front}", f"Tape: {trace.tape}"]
    else:
        first = max(len(trace.path) - 15, 0)
        lines = ["Trace:", f"({first} earlier visits omitted)"] if first else ["Trace:"]
        lines += [f"{number}. {id_}" for number, id_ in enumerate(trace.path[first:], first + 1)]
        if not failure.accepted:
            lines.append(f"Rejected: {_reason(program, failure)}")
        if trace.halt == "none":
            lines += [f"Rejecting node: {_node(program, trace.path[-2])}", f"Front symbol at rejection: {front}"]
    lines += [f"Finished: {failure.accepted}", f"Actual output: {trace.tape}"]
    if failure.case.get("check_output", True):
        lines.append(f"Expected output: {failure.case.get('expected_output', '')}")
    lines.append(f"Expected accepted: {failure.case.get('expected_accepted', True)}")
    lines = [line[:300] for line in lines]
    return lines if len(lines) <= 10 else [*lines[:10], f"({len(lines) - 10} lines cut)"]


def _reason(program: Program, failure: Failure) -> str:
    if failure.cause == "none":
        return "the robot was routed to NONE"
    if failure.cause == "limit":
        return "the limit of visits was reached, possibly an endless loop"
    return f"the node {failure.trace.path[-1]!r} does not exist"


def _full(program: Program, failure: Failure) -> str:
    trace = failure.trace
    omitted = max(len(trace.path) - _PATH_SHOWN, 0)
    path = " -> ".join(_id(id_) for id_ in trace.path[omitted:])
    path = f"(after {omitted} visits) {path}" if omitted else path
    hint = "\nThe END node is called end." if trace.path[-1] == "END" else ""
    return f"{_verdict(program, failure)}{hint}\nTape left: {_tape(trace.tape)}\nPath: {path}"


def _verdict(program: Program, failure: Failure) -> str:
    """The failing tape, what was expected of it and what happened to it, in one sentence."""
    case, trace = failure.case, failure.trace
    wanted = "be accepted" if case.get("expected_accepted", True) else "be rejected"
    if case.get("check_output", True):
        wanted += f" with output {_tape(case.get('expected_output', ''))}"
    if failure.accepted:
        actual = "is accepted" + (f" with output {_tape(trace.tape)}" if case.get("check_output", True) else "")
    elif trace.halt == "none":
        node, front = _node(program, trace.path[-2]), trace.tape[:1]
        actual = f"is rejected: {node} sends it to NONE, " + (f"with {front} in front" if front else "the tape empty")
    elif trace.halt == "limit":
        actual = (
            f"is rejected: it circles, last at {_node(program, trace.path[-1])}, until {trace.visits} visits are used"
        )
    else:
        actual = f"is rejected: {_node(program, trace.path[-2])} sends it to {_id(trace.path[-1])}, not a node"
    return f"Tape {_tape(case.get('input', ''))} must {wanted} but {actual}."


def _input_length(failure: Failure) -> int:
    return len(failure.case.get("input", ""))


def _node(program: Program, id_: str) -> str:
    return f"{program.nodes[id_].type} {_id(id_)}"


def _id(id_: str) -> str:
    return id_ if len(id_) <= 40 else id_[:40] + "…"


def _tape(tape: str) -> str:
    return _cut(tape) or "(empty)"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}… ({len(text) - _WIDTH} more)"
