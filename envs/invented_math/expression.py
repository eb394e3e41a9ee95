"""Answers read into exact rational functions; nothing of a text is ever run.

A text is cut into numbers, letters and signs; only what consists of these is given to Python's parser, and of its tree
only sums, differences, products, quotients, powers, signs in front, whole numbers and the one letter that a problem has
are known. They are computed step by step in SymPy's polynomials: a value is a quotient of two polynomials in the letter
and in 2^n, 3^n, … for each small prime, which are independent of each other, so that two answers are equal for all
numbers exactly if the cross products of these polynomials are. A power of a negative number is computed twice, for even
and for odd n. No simplification is searched for, so none can fail or last: every step counts toward a fixed effort, and
degrees, digits, exponents, depth and length are bounded.

A quotient is the same as one in which a common factor is cancelled, though the latter may have a value at more places.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

from sympy import QQ, ring

MAX_CHARS = 400  # of an answer
MAX_DEPTH = 64  # of its tree
_DIGITS = 30  # of a number in a text
_BITS = 4000  # of a coefficient
_EXPONENT = 100
_DEGREE = 60
_EFFORT = 20_000  # products of terms, for a whole answer
_PRIMES = (2, 3, 5, 7, 11, 13)

_RING, _N, *_POWERS = ring(["n", *(f"p{prime}" for prime in _PRIMES)], QQ)
_POWER: Mapping[int, Any] = dict(zip(_PRIMES, _POWERS, strict=True))
_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<letter>[a-z])|(?P<sign>\*\*|[-+*/^()]))")
_ALIKE = str.maketrans({"−": "-", "–": "-", "·": "*", "×": "*", "⋅": "*", "÷": "/"})


class Unreadable(Exception):
    """Why a text has no value, as one sentence; `kind` is a short word for it."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Value:
    """`even` and `odd`: (numerator, denominator) for even and for odd values of the letter, the same where it has no
    powers of negative numbers."""

    even: tuple[Any, Any]
    odd: tuple[Any, Any]

    def equals(self, other: "Value") -> bool:
        pairs = ((self.even, other.even), (self.odd, other.odd))
        return all(a * d == c * b for (a, b), (c, d) in pairs)

    @property
    def number(self) -> Fraction | None:
        """None unless it is the same number everywhere."""
        top, bottom = self.even
        ratio = Fraction(0) if not top else _fraction(top.LC / bottom.LC)
        constant = all(a == b * _rational(ratio) for a, b in (self.even, self.odd))
        return ratio if constant else None

    def at(self, number: int) -> Fraction | None:
        """The value for a number in the place of the letter, None where there is none."""
        place = [(_N, number), *((symbol, QQ(prime) ** number) for prime, symbol in _POWER.items())]
        top, bottom = (_RING.ground_new(0) + part.evaluate(place) for part in (self.odd if number % 2 else self.even))
        return _fraction(top.LC / bottom.LC) if bottom else None


def read(text: str, letter: str = "") -> Value:
    """The value of a text, in which `letter` stands for any number; "" if no letter may occur. Raises Unreadable."""
    if len(text) > MAX_CHARS:
        raise Unreadable("too_long", f"The answer has more than {MAX_CHARS} characters.")
    tree = _tree(_spelled(text, letter))
    even, odd = (_Reader(sign).value(tree, 0) for sign in (1, -1))
    return Value(even, odd)


def _spelled(text: str, letter: str) -> str:
    """The text as Python writes it, with every sign of multiplication."""
    text = text.translate(_ALIKE).rstrip()
    parts, at, ends = [], 0, False
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise Unreadable("parse", f"The answer cannot be read at offset {at}, before {text[at : at + 10]!r}.")
        part = found[found.lastgroup or 0]
        if found.lastgroup == "letter" and part != letter:
            known = f"only {letter}" if letter else "only numbers"
            raise Unreadable("unknown_name", f"The answer has the letter {part}, where {known} can stand.")
        if found.lastgroup == "number" and len(part) > _DIGITS:
            raise Unreadable("too_large", f"The answer has a number of more than {_DIGITS} digits.")
        if ends and (part == "(" or found.lastgroup == "letter"):
            parts.append("*")
        parts.append(_number(part) if found.lastgroup == "number" else "**" if part == "^" else part)
        ends = part == ")" or found.lastgroup in ("letter", "number")
        at = found.end()
    return " ".join(parts)


def _number(part: str) -> str:
    value = Fraction(part)
    return str(value) if value.denominator == 1 else f"({value})"


def _tree(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise Unreadable("parse", "The answer cannot be read: it is no expression.") from None


class _Reader:
    """Computes a tree; `sign` is what -1 to the power of the letter is."""

    def __init__(self, sign: int) -> None:
        self.sign, self.effort = sign, 0

    def value(self, node: ast.AST, depth: int) -> tuple[Any, Any]:
        """(numerator, denominator)."""
        if depth > MAX_DEPTH:
            raise Unreadable("too_deep", f"The answer is nested more than {MAX_DEPTH} deep.")
        match node:
            case ast.Constant(value=int() as number):
                return _RING.ground_new(number), _RING.ground_new(1)
            case ast.Name():
                return _N, _RING.ground_new(1)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
                top, bottom = self.value(inner, depth + 1)
                return (-top if isinstance(node.op, ast.USub) else top), bottom
            case ast.BinOp(left=left, op=op, right=right):
                return self._operation(op, self.value(left, depth + 1), self.value(right, depth + 1))
        raise Unreadable("parse", "The answer cannot be read: it is no expression.")

    def _operation(self, op: ast.operator, left: tuple[Any, Any], right: tuple[Any, Any]) -> tuple[Any, Any]:
        (a, b), (c, d) = left, right
        match op:
            case ast.Add():
                return self._times(a, d) + self._times(c, b), self._times(b, d)
            case ast.Sub():
                return self._times(a, d) - self._times(c, b), self._times(b, d)
            case ast.Mult():
                return self._times(a, c), self._times(b, d)
            case ast.Div():
                if not c:
                    raise Unreadable("division_by_zero", "The answer divides by zero.")
                return self._times(a, d), self._times(b, c)
            case ast.Pow():
                return self._power(left, right)
        raise Unreadable("parse", "The answer cannot be read: it is no expression.")

    def _power(self, base: tuple[Any, Any], exponent: tuple[Any, Any]) -> tuple[Any, Any]:
        slope, shift = _line(exponent)
        powers = [self._whole(base, shift)]
        if slope:
            number = _constant(base)
            if not number:
                raise Unreadable("exponent", "Only a number other than 0 can have an exponent with a letter.")
            if number < 0 and self.sign < 0 and slope % 2:
                powers.append((_RING.ground_new(-1), _RING.ground_new(1)))
            for part, way in ((abs(number.numerator), 1), (number.denominator, -1)):
                powers += [self._whole((_POWER[prime], _RING.ground_new(1)), way * slope) for prime in _factors(part)]
        return reduce(lambda left, right: (self._times(left[0], right[0]), self._times(left[1], right[1])), powers)

    def _whole(self, base: tuple[Any, Any], exponent: int) -> tuple[Any, Any]:
        """A power with a whole exponent."""
        if exponent < 0:
            if not base[0]:
                raise Unreadable("division_by_zero", "The answer divides by zero.")
            base = base[::-1]
        top = bottom = _RING.ground_new(1)
        for _ in range(abs(exponent)):
            top, bottom = self._times(top, base[0]), self._times(bottom, base[1])
        return top, bottom

    def _times(self, left: Any, right: Any) -> Any:
        """A product within bounds."""
        self.effort += max(1, len(left)) * max(1, len(right))
        degree = sum(max(map(sum, part.keys()), default=0) for part in (left, right))
        bits = sum(max((_size(each) for each in part.values()), default=0) for part in (left, right))
        if self.effort > _EFFORT or degree > _DEGREE or bits > _BITS:
            raise Unreadable("too_large", "The answer is too large: its powers or its numbers are.")
        return left * right


def _size(coefficient: Any) -> int:
    return int(coefficient.numerator).bit_length() + int(coefficient.denominator).bit_length()


def _constant(value: tuple[Any, Any]) -> Fraction | None:
    """The number that a quotient is, None if it is none."""
    return Value(value, value).number


def _line(exponent: tuple[Any, Any]) -> tuple[int, int]:
    """An exponent as `slope` times the letter plus `shift`. Raises Unreadable for any other and for large ones."""
    top, bottom = exponent
    whole = bottom.is_ground and set(top.keys()) <= {_N.LM, _RING.zero_monom}
    numbers = [_fraction(top.get(term, QQ(0)) / bottom.LC) for term in (_N.LM, _RING.zero_monom)] if whole else []
    if not whole or any(each.denominator > 1 or abs(each) > _EXPONENT for each in numbers):
        raise Unreadable(
            "exponent",
            f"An exponent must be a whole number up to {_EXPONENT}, or the letter times one plus or minus one.",
        )
    return int(numbers[0]), int(numbers[1])


def _factors(number: int) -> list[int]:
    """Its prime factors. Raises Unreadable for one that has larger ones than are known."""
    found = []
    for prime in _PRIMES:
        while number % prime == 0:
            found.append(prime)
            number //= prime
    if number > 1:
        raise Unreadable("exponent", f"The base of a power with a letter has a prime factor above {_PRIMES[-1]}.")
    return found


def _fraction(value: Any) -> Fraction:
    return Fraction(int(value.numerator), int(value.denominator))


def _rational(value: Fraction) -> Any:
    return QQ(value.numerator, value.denominator)
