"""What is asked about a rule: a value, an expression, an equation, a chain, a sequence; each with its right answer.

Right answers are computed from the rule in fractions and in SymPy's polynomials, not by the reader of answers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any, Literal

from sympy import QQ, ring

from resd.envs.invented_math.rule import Rule, draw, draw_linear

Form = Literal["number", "set", "expression"]

LARGEST = 10_000  # numerator or denominator of an answer
_, _x = ring("x", QQ)

Side = tuple[str, Callable[[Rule, Any, Fraction, Fraction], Any]]
_SIDES: list[Side] = [
    ("x {s} {c}", lambda rule, x, c, d: rule(x, c)),
    ("{c} {s} x", lambda rule, x, c, d: rule(c, x)),
    ("x {s} x", lambda rule, x, c, d: rule(x, x)),
    ("(x {s} {c}) {s} {d}", lambda rule, x, c, d: rule(rule(x, c), d)),
    ("{d} {s} ({c} {s} x)", lambda rule, x, c, d: rule(d, rule(c, x))),
    ("x {s} (x {s} {c})", lambda rule, x, c, d: rule(x, rule(x, c))),
    ("(x + {c}) {s} (x - {d})", lambda rule, x, c, d: rule(x + c, x - d)),
]


@dataclass(frozen=True, slots=True)
class Item:
    """A question about `rule`.

    answers: texts of the right value, or of every solution
    letter: that an expression may have, otherwise ""
    hint: a first step of a value, as a sentence
    """

    rule: Rule
    question: str
    form: Form
    answers: tuple[str, ...]
    letter: str = ""
    hint: str = ""


def value(random: Random, depth: int) -> Item | None:
    """Two to `depth` operations on numbers."""
    rule = draw(random)
    text, result, hint = _nested(rule, random.randint(2, depth), random)
    return _item(rule, f"What is {_bare(text)}?", "number", (result,), hint=hint)


def equation(random: Random, depth: int) -> Item | None:
    """An equation of degree 1 or 2 that a number drawn here solves, or one of degree 1 that may have no solution."""
    rule = draw(random)
    root, c, d = (Fraction(random.randint(-9, 9)) for _ in range(3))
    text, left = random.choice(_SIDES)
    if random.random() < 0.3:
        other, right = random.choice(_SIDES[:2])
        told = _shown(other, rule, d, c)
        solutions = _solutions(left(rule, _x, c, d) - right(rule, _x, d, c), None)
    else:
        wanted = left(rule, root, c, d)
        told = str(wanted)
        solutions = _solutions(left(rule, _x, c, d) - wanted, root)
    if solutions is None:
        return None
    return _item(rule, f"Which numbers x solve {_shown(text, rule, c, d)} = {told}?", "set", solutions)


def expression(random: Random, depth: int) -> Item | None:
    """An expression in x."""
    rule = draw(random)
    c, d = (Fraction(random.randint(-9, 9)) for _ in range(2))
    text, result = random.choice(_SIDES[2:])
    polynomial = result(rule, _x, c, d)
    if polynomial.is_ground:
        return None
    question = f"Write {_shown(text, rule, c, d)} as an expression in x, without {rule.sign}."
    return _item(rule, question, "expression", (str(polynomial.as_expr()),), "x")


def sequence(random: Random, depth: int) -> Item | None:
    """The same operation n times: a power of a number, or a straight line where that number is 1; never a constant."""
    rule = draw_linear(random, (-3, -2, -1, 1, 2, 3, 4, 5))
    start, each = random.randint(-5, 9), random.randint(-5, 9)
    factor = rule.coefficient("a")
    step = rule.coefficient("b") * each + rule.coefficient("1")
    s, e = _signed(Fraction(start)), _signed(Fraction(each))
    twice = f"({s} {rule.sign} {e}) {rule.sign} {e}"
    question = (
        f"Begin with {start} and put {rule.sign} {e} behind it n times, with parentheses around what was there before: "
        f"for n = 0 the value is {start}, for n = 2 it is {twice}. Which expression in n is the value?"
    )
    if factor == 1 and step:
        return _item(rule, question, "expression", (f"{start} + {_signed(step)} * n",), "n")
    fixed = step / (1 - factor) if factor != 1 else Fraction(start)
    if start == fixed:
        return None
    return _item(
        rule, question, "expression", (f"{_signed(start - fixed)} * {_signed(factor)}^n + {_signed(fixed)}",), "n"
    )


def chain(random: Random, depth: int) -> Item | None:
    """A number and then 1, 2, …, n, from the left."""
    rule = draw_linear(random, (1,))
    start = random.randint(-5, 9)
    s, q, r = _signed(Fraction(start)), rule.coefficient("b"), rule.coefficient("1")
    question = (
        f"What is {s} {rule.sign} 1 {rule.sign} 2 {rule.sign} … {rule.sign} n, from the left, as an expression in n? "
        f"For n = 2 it is ({s} {rule.sign} 1) {rule.sign} 2."
    )
    return _item(rule, question, "expression", (f"{start} + {_signed(q)} * n * (n + 1) / 2 + {_signed(r)} * n",), "n")


FAMILIES: Mapping[str, Callable[[Random, int], Item | None]] = {
    "value": value,
    "equation": equation,
    "expression": expression,
    "sequence": sequence,
    "chain": chain,
}


def _item(
    rule: Rule, question: str, form: Form, answers: tuple[Any, ...], letter: str = "", hint: str = ""
) -> Item | None:
    """None where an answer is too large to be asked for."""
    if any(max(abs(each.numerator), each.denominator) > LARGEST for each in answers if isinstance(each, Fraction)):
        return None
    return Item(rule, question, form, tuple(map(str, answers)), letter, hint)


def _nested(rule: Rule, operations: int, random: Random) -> tuple[str, Fraction, str]:
    """A text with parentheses around it, its value, and its first step from the left that has only numbers."""
    if not operations:
        number = Fraction(random.randint(-9, 9))
        return _signed(number), number, ""
    before = random.randrange(operations)
    left, a, hint = _nested(rule, before, random)
    right, b, second = _nested(rule, operations - 1 - before, random)
    result = rule(a, b)
    text = f"({left} {rule.sign} {right})"
    return text, result, hint or second or f"{_bare(text)} is {result}."


def _solutions(polynomial: Any, root: Fraction | None) -> tuple[Fraction, ...] | None:
    """All of them, in order; None where they are not known to be finitely many fractions."""
    c, b, a = (_fraction(polynomial.get((power,), QQ(0))) for power in range(3))
    if polynomial.degree() > 2 or (a and root is None) or not (a or b or c):
        return None
    if not a:
        return (-c / b,) if b else ()
    assert root is not None
    return tuple(sorted({root, -b / a - root}))


def _bare(text: str) -> str:
    return text[1:-1]


def _signed(number: Fraction) -> str:
    """With parentheses around a negative one."""
    return str(number) if number >= 0 else f"({number})"


def _shown(text: str, rule: Rule, c: Fraction, d: Fraction) -> str:
    return text.format(s=rule.sign, c=_signed(c), d=_signed(d))


def _fraction(value: Any) -> Fraction:
    return Fraction(int(value.numerator), int(value.denominator))
