"""What a failed attempt is told: one text for the reflector, the curator and the teacher.

`official` carries what the released system's feedback carries, in other words, and with it the true positions of up to
three of the times that count, which a program could repeat. `full` gives no true position away: it says of every test
whether it passes and about how far off the balls are, to 10 m; and of the first wrong one, which balls are wrong, what
is impossible about where the program puts them, and what they had truly met by then. `compact` is one line of that.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from resd.envs.bouncingsim.grade import FUNCTION, Case, Result
from resd.envs.bouncingsim.simulator import Facts, Scene, trace

FeedbackKind = Literal["full", "official", "compact"]

_RIGHT = 10.0  # m: a ball nearer than that counts as right
_OUTSIDE = 1.0  # m: what rounding may put outside


def no_answer(truncated: bool) -> str:
    """Feedback for a response without a program."""
    if truncated:
        return "The response was cut off at its maximum length before a complete program; be briefer."
    return "No program was found: put it between a line ```python and a line ```."


def failed(results: Sequence[Result], kind: FeedbackKind) -> str:
    """Feedback for a program that fails at least one test."""
    if kind == "official":
        return official(results)
    passing = f"{sum(result.passed for result in results)} of {len(results)} tests pass."
    wrong = [result for result in results if not result.passed]
    if kind == "compact":
        return f"{passing} t={wrong[0].case.time}: {_briefly(wrong[0])}"
    tolerance = f"A test passes if the mean distance from the true positions is at most {wrong[0].case.tolerance:g} m."
    lines = [f"{passing} {tolerance}", f"By time: {_by_time(results)}."]
    if off := next((result for result in wrong if not result.error), None):
        lines += _off(off)
    if broken := next((result for result in wrong if result.error), None):
        lines += [f"{FUNCTION}({broken.case.time}) gave no positions ({_named(broken)}):", broken.detail]
    return "\n".join(lines)


def _by_time(results: Sequence[Result]) -> str:
    """What happened when, runs of the same put together."""
    parts = []
    for state, run in groupby(results, _state):
        times = [str(result.case.time) for result in run]
        parts.append(f"{times[0]} {state}" if len(times) == 1 else f"{times[0]} to {times[-1]} {state}")
    return ", ".join(parts)


def _state(result: Result) -> str:
    if result.error:
        return _named(result)
    return "right" if result.passed else f"off by {_about(result.mean)}"


def _named(result: Result) -> str:
    return (result.error or "").replace("_", " ")


def _about(distance: float) -> str:
    return "under 10 m" if distance < 10 else f"about {round(distance, -1):.0f} m"


def _briefly(result: Result) -> str:
    if result.error:
        return f"{_named(result)}: {result.detail.splitlines()[0]:.100}"
    worst = max(range(len(result.distances)), key=result.distances.__getitem__)
    return f"ball {worst + 1} is off by {_about(result.distances[worst])}."


def _off(result: Result) -> list[str]:
    """What is wrong at one time, in some lines."""
    balls = [
        f"ball {number} is {'right' if distance < _RIGHT else f'off by {_about(distance)}'}"
        for number, distance in enumerate(result.distances, 1)
    ]
    lines = [f"At t = {result.case.time}, the first time that is off, {', '.join(balls)}."]
    if facts := result.case.facts:
        lines += _impossible(facts, result.value) + _met(facts, result)
    return lines


def _impossible(facts: Facts, positions: Sequence[Sequence[float]]) -> list[str]:
    """What cannot be about positions, whatever the motion."""
    scene, lines = Scene(facts), []
    for number, (x, y, *_) in enumerate(positions):
        beyond = max(least[number] - nx * x - ny * y for nx, ny, least in scene.walls)
        if beyond > _OUTSIDE:
            lines.append(f"Ball {number + 1} is then beyond a wall, by {_about(beyond)}, where the program puts it.")
    for i, j, sides in scene.pairs:
        x, y = positions[i][0] - positions[j][0], positions[i][1] - positions[j][1]
        if all(level - nx * x - ny * y > _OUTSIDE for nx, ny, level in sides):
            lines.append(f"Balls {i + 1} and {j + 1} then overlap, where the program puts them.")
    return lines


def _met(facts: Facts, result: Result) -> list[str]:
    """What the balls that are wrong had met by then."""
    contacts = trace(facts, [result.case.time])[1]
    lines = []
    for ball, distance in enumerate(result.distances):
        if distance >= _RIGHT:
            met = [_other(contact.first, contact.second, ball) for contact in contacts]
            lines.append(f"Ball {ball + 1} had truly met by then: {', then '.join(filter(None, met)) or 'nothing'}.")
    return lines


def _other(first: int, second: int | None, ball: int) -> str:
    if second is None:
        return "a wall" if first == ball else ""
    return f"ball {first + second - ball + 1}" if ball in (first, second) else ""


def official(results: Sequence[Result]) -> str:
    """The released system's facts in its order, cut at 2000 characters."""
    wrong = [number for number, result in enumerate(results) if not result.passed]
    right = [number for number, result in enumerate(results) if result.passed]
    first, last = results[wrong[0]], results[wrong[-1]]
    lines = [f"Passed tests: {len(right)}/{len(results)}"]
    if right:
        lines.append(
            f"Largest time that passes: {results[right[-1]].case.time:.2f} (test {right[-1] + 1}); "
            f"smallest that fails: {first.case.time:.2f} (test {wrong[0] + 1})"
        )
    for number in wrong:
        if results[number].error:
            return "\n".join([*lines, "", *_broken(results[number], number)])[:2000]
    if last.mean > 2 * first.mean:
        lines.append(
            f"The mean error grows from {first.mean:.3f} (t = {first.case.time:.2f}) to {last.mean:.3f} "
            f"(t = {last.case.time:.2f}): check how bounces are handled"
        )
    for number in wrong[:3]:
        lines += ["", *_wrong(results[number], number)]
    return "\n".join(lines)[:2000]


def _broken(result: Result, number: int) -> list[str]:
    kind = "Time limit exceeded" if result.error == "timeout" else "Runtime error"
    lines = [f"Test {number + 1}: {kind}", result.detail]
    if result.error == "timeout":
        lines.append("There is probably a loop without end.")
    lines += [f"t = {result.case.time:.2f}", f"Test: {_assertion(result.case)}"[:400]]
    return lines if result.value is None else [*lines, f"Returned: {result.value}"[:300]]


def _wrong(result: Result, number: int) -> list[str]:
    time, tolerance = result.case.time, result.case.tolerance
    lines = [f"Test {number + 1}: wrong, mean distance {result.mean:.3f} > {tolerance}", f"t = {time:.2f}"]
    for ball, distance in enumerate(result.distances):
        found, true = result.value[ball], result.case.positions[ball]
        lines.append(f"Ball {ball + 1}: distance {distance:.3f}, got {found}, expected {list(true)}"[:300])
    lines.append(f"Returned: {result.value}"[:300])
    if min(result.distances) < 10 and max(result.distances) > 100:
        lines.append("Some balls probably flew straight through a wall: check every edge, and the ends of the segment.")
    return lines


def _assertion(case: Case) -> str:
    positions = [list(position) for position in case.positions]
    return f"assert check_distance({FUNCTION}({case.time:.2f}), {positions}) <= {case.tolerance}"
