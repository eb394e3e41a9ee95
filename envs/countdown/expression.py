"""Arithmetic expressions, read into a tree of our own and computed in fractions; nothing of a text is ever run.

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/") factor)*
    factor  = number | "(" sum ")"

A number is a run of the digits 0 to 9; blanks stand anywhere between the parts. There are no signs in front of a
number, no powers, no decimals. Length and depth are bounded, so that any text is answered in bounded time and memory.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 1000  # of an expression
MAX_DEPTH = 64  # of its tree, and of its parentheses

_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"[0-9]+")


class Unreadable(Exception):
    """Why a text is no expression, as one sentence; `kind` is a short word for it."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class DividesByZero(Exception):
    """The offset of the sign."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Number:
    value: int
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    sign: str
    left: "Tree"
    right: "Tree"
    offset: int
    depth: int


Tree = Number | Operation


def parse(text: str) -> Tree:
    """The tree of a text. Raises Unreadable."""
    if len(text) > MAX_CHARS:
        raise Unreadable("too_long", f"The expression has more than {MAX_CHARS} characters.")
    reader = _Reader(text)
    tree = reader.sum(0)
    if reader.peek():
        raise reader.unexpected("an operator or the end")
    return tree


def evaluate(tree: Tree) -> Fraction:
    """Its exact value. Raises DividesByZero."""
    if isinstance(tree, Number):
        return Fraction(tree.value)
    left, right = evaluate(tree.left), evaluate(tree.right)
    match tree.sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    if not right:
        raise DividesByZero(tree.offset)
    return left / right


def leaves(tree: Tree) -> Iterator[int]:
    """The numbers of a tree from left to right."""
    if isinstance(tree, Number):
        yield tree.value
    else:
        yield from leaves(tree.left)
        yield from leaves(tree.right)


def signs(tree: Tree) -> Iterator[str]:
    """The signs of its operations."""
    if isinstance(tree, Operation):
        yield from signs(tree.left)
        yield tree.sign
        yield from signs(tree.right)


def normal(tree: Tree) -> str:
    """One text for all trees that differ in order and parentheses alone."""
    if isinstance(tree, Number):
        return str(tree.value)
    chain = "+-" if tree.sign in "+-" else "*/"
    return f"({' '.join(chain[turned] + member for turned, member in sorted(_members(tree, chain)))})"


def _members(tree: Tree, chain: str, turned: bool = False) -> Iterator[tuple[bool, str]]:
    """What is added or multiplied in a chain of such signs; `turned`: subtracted, or divided by."""
    if isinstance(tree, Operation) and tree.sign in chain:
        yield from _members(tree.left, chain, turned)
        yield from _members(tree.right, chain, turned != (tree.sign == chain[1]))
    else:
        yield turned, normal(tree)


class _Reader:
    """Reads from left to right; `depth` counts the parentheses that are open."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def sum(self, depth: int) -> Tree:
        return self._chain("+-", self._product, depth)

    def _product(self, depth: int) -> Tree:
        return self._chain("*/", self._factor, depth)

    def _factor(self, depth: int) -> Tree:
        if self.peek() == "(":
            if depth == MAX_DEPTH:
                raise self._too_deep()
            self.at += 1
            tree = self.sum(depth + 1)
            if self.peek() != ")":
                raise self.unexpected("an operator or )")
            self.at += 1
            return tree
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            raise self.unexpected("a number or (")
        self.at = found.end()
        return Number(int(found[0]))

    def _chain(self, among: str, operand: Callable[[int], Tree], depth: int) -> Tree:
        tree = operand(depth)
        while (sign := self.peek()) and sign in among:
            offset = self.at
            self.at += 1
            right = operand(depth)
            tree = Operation(sign, tree, right, offset, 1 + max(tree.depth, right.depth))
            if tree.depth > MAX_DEPTH:
                raise self._too_deep()
        return tree

    def peek(self) -> str:
        """The next character that is no blank, or "" at the end."""
        blank = _BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at
        return self.text[self.at : self.at + 1]

    def unexpected(self, expected: str) -> Unreadable:
        found = repr(self.text[self.at]) if self.at < len(self.text) else "the end"
        return Unreadable(
            "parse", f"The expression cannot be read at offset {self.at}: expected {expected}, found {found}."
        )

    def _too_deep(self) -> Unreadable:
        return Unreadable("too_deep", f"The expression is nested more than {MAX_DEPTH} deep at offset {self.at}.")
