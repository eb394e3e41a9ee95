"""What the machine of a dialect says about an attempt, and which convention the attempt broke first."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nano.dialects import FORMS, Dialect, write
from nano.programs import Program

from resd.envs.manufactoria.feedback import shortest_of_each
from resd.envs.manufactoria.goal import Goal
from resd.envs.manufactoria.grade import grade, run_cases
from resd.envs.manufactoria.parser import ParseError, parse
from resd.envs.manufactoria.suite import case, draw_cases

_CONVENTIONS = {
    "missing_colon": "colon",
    "start_route_count": "indent",
    "bad_header": "puller",
    "duplicate_id": "id",
}
LOGIC, FENCE = "logic", "fence"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`broken` is the convention of the first mistake, `logic` (wrong transitions), or `fence` (no program)."""

    passed: bool
    feedback: str
    broken: str


def judge(program: Program, written: Dialect, law: Dialect, goal: Goal, rng: random.Random) -> Judgement:
    """Grades a program spelled in `written` on freshly drawn cases by the machine of `law`."""
    image = law.image(written)
    text, cases = write(program, image), draw_cases(goal, str(rng.random()))
    verdict = grade(f"```manufactoria\n{text}\n```", cases, feedback="compact")
    if verdict.passed:
        return Judgement(True, "", "")
    return Judgement(False, law.translate(verdict.feedback), first_broken(text, cases))


def judge_cut(response: str) -> Judgement:
    """A response that ends before its fence is closed, which is the same under every law."""
    return Judgement(False, grade(response, [case("", False)], truncated=True, feedback="compact").feedback, FENCE)


def first_broken(text: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """What the official feedback on a failing program is about, read from the failure and not from the wording."""
    try:
        parsed = parse(text)
    except ParseError as error:
        line = text.strip().split("\n")[error.line - 1] if error.line else ""
        if error.kind == "bad_puller_route":
            return "bracket" if "(" in line else "empty" if FORMS["empty"][1] in line else LOGIC
        if error.kind == "undefined_target":
            return "reject" if FORMS["reject"][1] in error.detail else LOGIC
        return _CONVENTIONS.get(error.kind, LOGIC)
    shown = shortest_of_each(run_cases(parsed, cases))[0]
    trace = parsed.walk(shown.case["input"])
    stuck = trace.halt == "none" and trace.tape and parsed.nodes[trace.path[-2]].type == "PULLER_RB"
    return "foreign" if stuck else LOGIC
