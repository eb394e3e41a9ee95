"""Invented mathematics by other means: the rule out of its words, questions and answers by Python's arithmetic.

Nothing is shared with the task but the texts of its problems. Also answers that are right, nearly right, or damaged.
"""

import contextlib
import math
import operator
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from resd.types import Problem


class Number:
    """A fraction in a question, in which @ stands for the invented sign."""

    def __init__(self, value: Any, rule: Callable[[Any, Any], Any]) -> None:
        self.value, self.rule = Fraction(value), rule

    def _with(self, value: Fraction) -> "Number":
        return Number(value, self.rule)

    def __matmul__(self, other: "Number") -> "Number":
        return self._with(self.rule(self.value, other.value))

    def __add__(self, other: "Number") -> "Number":
        return self._with(self.value + other.value)

    def __sub__(self, other: "Number") -> "Number":
        return self._with(self.value - other.value)

    def __truediv__(self, other: "Number") -> "Number":
        return self._with(self.value / other.value)

    def __neg__(self) -> "Number":
        return self._with(-self.value)


TIMES = {"half of": Fraction(1, 2), "twice": 2, "three times": 3, "four times": 4, "five times": 5, "six times": 6}
THINGS: dict[str, Callable[[Any, Any], Any]] = {
    "the first number": lambda a, b: a,
    "the second number": lambda a, b: b,
    "the product of the two numbers": lambda a, b: a * b,
    "the square of the first number": lambda a, b: a**2,
    "the square of the second number": lambda a, b: b**2,
}


def rule_of(statement: str) -> tuple[str, Callable[[Any, Any], Any]]:
    """The sign of a problem and what it does, out of its words alone."""
    found = re.match(r"To get a (.) b, where a is the first number and b the second, (.*)\.\n\n", statement)
    assert found, statement
    steps = []
    for part in re.split(r", (?:then )?", found[2]):
        verb, _, amount = part.partition(" ")
        times = next((times for times in TIMES if amount.startswith(times)), "")
        thing = amount.removeprefix(times).strip()
        make = THINGS.get(thing) or (lambda a, b, n=thing: Fraction(n))
        steps.append((operator.sub if verb == "subtract" else operator.add, TIMES.get(times, 1), make))

    def rule(a: Any, b: Any) -> Any:
        total = Fraction(0)
        for how, times, make in steps:
            total = how(total, times * make(a, b))
        return total

    return found[1], rule


def asked(statement: str, text: str, x: Fraction = Fraction(0)) -> Fraction:
    """The value of a part of a question."""
    sign, rule = rule_of(statement)
    python = re.sub("([0-9]+)", r"N('\1')", text.replace(sign, "@"))
    return eval(python, {"N": lambda digits: Number(digits, rule), "x": Number(x, rule)}).value


def repeated(statement: str, start: str, others: list[str]) -> Fraction:
    sign, _ = rule_of(statement)
    text = start
    for other in others:
        text = f"({text}) {sign} {other}"
    return asked(statement, text)


def right_values(problem: Problem, source: random.Random) -> Iterator[tuple[Fraction, Fraction]]:
    """Numbers for the letter, and what the answer has to be there, worked out from the statement."""
    question = problem.statement.partition("\n\n")[2]
    sign = re.escape(rule_of(problem.statement)[0])
    match problem.family:
        case "value":
            yield Fraction(0), asked(problem.statement, question.removeprefix("What is ").removesuffix("?"))
        case "expression":
            text = question.removeprefix("Write ").partition(" as an expression")[0]
            for _ in range(6):
                x = Fraction(source.randint(-99, 99), source.randint(1, 7))
                yield x, asked(problem.statement, text, x)
        case "sequence":
            found = re.match(rf"Begin with (-?\d+) and put {sign} (\(?-?\d+\)?) behind", question)
            assert found
            for n in (0, 1, 2, 3, 6, 9, 12):
                yield Fraction(n), repeated(problem.statement, f"({found[1]})", [found[2]] * n)
        case "chain":
            found = re.match(rf"What is (\(?-?\d+\)?) {sign} 1", question)
            assert found
            for n in (1, 2, 3, 5, 8, 13, 21):
                yield Fraction(n), repeated(problem.statement, found[1], [str(k + 1) for k in range(n)])


def solutions(problem: Problem) -> set[Fraction]:
    """Those of an equation of degree 2 at most, from its values at three numbers."""
    text = problem.statement.rpartition("solve ")[2].removesuffix("?")
    left, right = text.split(" = ")
    at = [asked(problem.statement, left, Fraction(x)) - asked(problem.statement, right, Fraction(x)) for x in (0, 1, 2)]
    a, c = (at[2] - 2 * at[1] + at[0]) / 2, at[0]
    b = at[1] - a - c
    if not a:
        return {-c / b} if b else set()
    square = b * b - 4 * a * c
    root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
    assert root**2 == square
    return {(-b + root) / (2 * a), (-b - root) / (2 * a)}


def computed(text: str, letter: str, number: Fraction) -> Fraction | None:
    """A text by Python's arithmetic, None where it has no value. Texts are made here, of a few signs."""
    if not re.fullmatch(rf"(?:[0-9]+(?:\.[0-9]+)?|[-+*/^() {letter}])+", text):
        raise SyntaxError
    text = re.sub(rf"(?<=[0-9{letter})])\s*(?=[{letter}(])" if letter else r"(?<=[0-9)])\s*(?=\()", "*", text)
    text = re.sub(r"([0-9]+(?:\.[0-9]+)?)", r" F('\1')", text.replace("^", "**").strip()).strip()
    with contextlib.suppress(ZeroDivisionError):
        value = eval(text, {"F": Fraction, letter or "_": number})
        if type(value) is not Fraction:
            raise SyntaxError
        return value
    return None


def oracle(answer: str, problem: Problem, source: random.Random) -> bool:
    try:
        if problem.family == "equation":
            inside = answer[1:-1] if answer[:1] == "{" and answer[-1:] == "}" else answer
            parts = inside.split(",") if inside.strip() else []
            assert parts or answer.startswith("{")
            values = [computed(part, "", Fraction(0)) for part in parts]
            return None not in values and set(values) == solutions(problem)
        letter = {"value": "", "expression": "x"}.get(problem.family, "n")
        pairs = [(computed(answer, letter, at), right) for at, right in right_values(problem, source)]
    except (SyntaxError, AssertionError, TypeError, OverflowError):  # the last: a root, too large for a float
        return False
    found = [(given, right) for given, right in pairs if given is not None]
    return bool(found) and all(given == right for given, right in found)


def mutated(text: str, letter: str, source: random.Random) -> str:
    """An answer written otherwise, or after an accident."""
    for _ in range(source.choice((1, 1, 2, 3))):
        k = source.randint(2, 9)
        numbers = [*re.finditer("[0-9]+", text)]
        match source.randrange(12):
            case 0:
                text = f"({text})"
            case 1:
                text = f"{k} + ({text}) - {k}"
            case 2:
                text = f"{k} * ({text}) / {k}"
            case 3:
                text = f"-(-({text}))"
            case 4:
                text = text.replace(" ", "").replace("**", "^")
            case 5 if letter:
                text = f"({text}) * ({letter} + {k}) / ({k} + {letter})"
            case 6 if letter:
                text = text.replace(letter, f"({letter} + 1 - 1)")
            case 7 if letter:
                text = f"({text}) + {source.choice((0, 1))} * {letter}"
            case 8 if numbers:
                chosen = source.choice(numbers)
                text = f"{text[: chosen.start()]}{int(chosen[0]) + source.choice((-1, 1, 10))}{text[chosen.end() :]}"
            case 9:
                at = source.randrange(len(text) + 1)
                text = text[:at] + source.choice("0123456789+-*/() .=x") + text[at + source.choice((0, 1)) :]
            case 10 if letter == "n":
                text = re.sub(r"(\(-\d\)|\d)\^n", rf"\1^(n + {k % 4}) / \1^{k % 4}", text)
            case 11:
                text = source.choice((f"{text} + 1/{k}", f"-({text})", f"({text}) / ({k} - {k})", f"{text}.0"))
    return text


def mutated_set(answers: list[str], source: random.Random) -> str:
    parts = [mutated(part, "", source) if source.random() < 0.4 else part for part in answers]
    match source.randrange(6):
        case 0:
            parts = parts[::-1]
        case 1 if parts:
            parts = [*parts, source.choice(parts)]
        case 2:
            parts = parts[1:]
        case 3:
            parts = [*parts, str(source.randint(-9, 9))]
    return ", ".join(parts) if parts and source.random() < 0.2 else "{" + ", ".join(parts) + "}"
