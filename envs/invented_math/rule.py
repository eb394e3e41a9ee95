"""Invented operations: what a ∘ b is, in numbers and in words.

A rule is a sum of at most three terms, each a coefficient times a, b, ab, a², b² or 1. Its words name the steps one
after another, so that there is one way to understand them. Which part a rule belongs to is decided by a hash of its
terms, and of those with a and b exchanged, whatever sign it has and whatever is asked about it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any, Literal

Part = Literal["train", "validation", "test"]
Term = Literal["a", "b", "ab", "aa", "bb", "1"]

SIGNS = "∘⊕⊗⊙△◇★⊞♣☆□▽"
_OF, _TEST, _VALIDATION = 20, 4, 6  # of twenty rules, those below the first are for tests, then for validation
_NAMES: Mapping[Term, str] = {
    "a": "the first number",
    "b": "the second number",
    "ab": "the product of the two numbers",
    "aa": "the square of the first number",
    "bb": "the square of the second number",
}
_TIMES = {2: "twice", 3: "three times", 4: "four times", 5: "five times", 6: "six times"}
_SWAPPED: Mapping[Term, Term] = {"a": "b", "b": "a", "ab": "ab", "aa": "bb", "bb": "aa", "1": "1"}


@dataclass(frozen=True, slots=True)
class Rule:
    """`terms` are (coefficient, term) in the order of the words, the first coefficient above 0."""

    terms: tuple[tuple[Fraction, Term], ...]
    sign: str

    def __call__(self, a: Any, b: Any) -> Any:
        """The result, for two of whatever can be added and multiplied with fractions."""
        factors: dict[Term, Any] = {"a": a, "b": b, "ab": a * b, "aa": a * a, "bb": b * b, "1": 1}
        return sum(coefficient * factors[term] for coefficient, term in self.terms)

    def coefficient(self, term: Term) -> Fraction:
        return next((coefficient for coefficient, each in self.terms if each == term), Fraction(0))

    @property
    def words(self) -> str:
        """As a sentence."""
        (_, first), *rest = self.terms
        steps = [f"take {_amount(self.terms[0][0], first)}"]
        for coefficient, term in rest:
            steps.append(f"{'add' if coefficient > 0 else 'subtract'} {_amount(abs(coefficient), term)}")
        steps = steps if len(steps) == 1 else [*steps[:-1], f"then {steps[-1]}"]
        return f"To get a {self.sign} b, where a is the first number and b the second, {', '.join(steps)}."

    @property
    def part(self) -> Part:
        alike = min(
            sorted((name, str(coefficient)) for coefficient, name in terms)
            for terms in (self.terms, [(coefficient, _SWAPPED[term]) for coefficient, term in self.terms])
        )
        place = int.from_bytes(hashlib.sha256(str(alike).encode()).digest()[:8], "big") % _OF
        return "test" if place < _TEST else "validation" if place < _VALIDATION else "train"


def draw(random: Random) -> Rule:
    """Any rule in which a and b occur."""
    names: list[Term] = random.choice([["a", "b"], ["ab"], ["ab", "a"], ["ab", "b"], ["aa", "b"], ["a", "bb"]])
    terms = [(_coefficient(random), name) for name in names]
    return _ordered(terms, random)


def draw_linear(random: Random, repeats: tuple[int, ...]) -> Rule:
    """A rule of a, one of `repeats` times, of b and of 1."""
    second: list[tuple[Fraction, Term]] = [(Fraction(random.choice((-3, -2, -1, 1, 2, 3, 4, 5))), "b")]
    return _ordered([(Fraction(random.choice(repeats)), "a"), *second], random)


def _ordered(terms: list[tuple[Fraction, Term]], random: Random) -> Rule:
    """With a number besides, mostly, and a term above 0 in front."""
    if random.random() < 0.8:
        terms.append((Fraction(random.choice([n for n in range(-9, 10) if n])), "1"))
    random.shuffle(terms)
    terms.sort(key=lambda each: (each[0] < 0, each[1] == "1"))
    (coefficient, name), *rest = terms
    terms = [(abs(coefficient), name), *rest]
    return Rule(tuple(terms), random.choice(SIGNS))


def _coefficient(random: Random) -> Fraction:
    return Fraction(random.choice(("1", "1", "2", "3", "4", "1/2", "-1", "-2", "-3")))


def _amount(coefficient: Fraction, term: Term) -> str:
    if term == "1":
        return str(coefficient)
    if coefficient == 1:
        return _NAMES[term]
    times = "half of" if coefficient == Fraction(1, 2) else _TIMES[int(coefficient)]
    return f"{times} {_NAMES[term]}"
