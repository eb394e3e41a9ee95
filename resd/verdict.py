"""What counts as a verdict. A wrong one is refused with the reason; numbers of numpy or torch become Python's."""

from math import isfinite
from typing import Any

from resd.task import OWN_SCORES, scalar, share
from resd.types import UserError, Verdict


def checked(given: object) -> Verdict:
    """A verdict of Python's own numbers and of texts that can be encoded. Raises UserError if it is none."""
    if not isinstance(given, Verdict):
        name = type(given).__name__
        article = "an" if name[0] in "aeiouAEIOU" else "a"
        raise UserError(f"returned {'None' if given is None else f'{article} {name}'}, not a Verdict")
    reward = share(_number("reward", given.reward))
    _require(reward is not None, "reward", given.reward, "a number from 0 to 1")
    assert reward is not None
    passed = scalar(given.passed)
    _require(isinstance(passed, int) and passed in (0, 1), "passed", given.passed, "True or False")
    right, total = scalar(given.cases_passed), scalar(given.cases_total)
    for name, count in (("cases_passed", right), ("cases_total", total)):
        _require(isinstance(count, int) and count >= 0, name, count, "a whole number from 0")
    _require(right <= total, "cases_passed", right, f"at most cases_total, {total}")
    _require(isinstance(given.feedback, str), "feedback", given.feedback, 'a text ("" if there is nothing to say)')
    for name in ("answer", "error", "ballot"):
        text = getattr(given, name)
        _require(text is None or isinstance(text, str), name, text, "a text or None")
    _require(hasattr(given.scores, "items"), "scores", given.scores, "a mapping of names to numbers")
    scores = {}
    for name, value in given.scores.items():
        _require(isinstance(name, str), "a name in scores", name, "a text")
        _require(name not in OWN_SCORES, "a name in scores", name, f"another one than {', '.join(OWN_SCORES)}")
        scores[readable(name)] = _number(f"scores[{name!r:.40}]", value)
    return Verdict(
        reward,
        bool(passed),
        int(right),
        int(total),
        readable(given.feedback),
        None if given.answer is None else readable(given.answer),
        None if given.error is None else readable(given.error),
        scores,
        None if given.ballot is None else readable(given.ballot),
    )


def readable(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair that stands alone."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _number(name: str, given: object) -> float:
    value = scalar(given)
    _require(isinstance(value, (int, float)) and abs(value) < 1e300 and isfinite(value), name, given, "a finite number")
    return float(value)


def _require(holds: bool, name: str, given: Any, wanted: str) -> None:
    if not holds:
        raise UserError(f"returned a Verdict whose {name} is {given!r:.80}, not {wanted}")
