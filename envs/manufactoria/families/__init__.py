"""The families of Manufactoria besides `has`: what they demand, how their cases are drawn, and a solution of each.

    rule = read("Accept if the tape ends with RB; reject otherwise.")
    rule.expected("BRB")          # True; a family that checks the output gives the output

`sequences`, `numbers` and `patterns` hold the families, `sets` the published collections of their problems.
"""

from dataclasses import replace

from resd.envs.manufactoria.families.machine import assemble
from resd.envs.manufactoria.families.numbers import NumericalComparison, NumericalMaxMin, NumericalOperation
from resd.envs.manufactoria.families.patterns import RegexPattern, RegexSameNumber
from resd.envs.manufactoria.families.rule import TWO_COLOURS, Rule
from resd.envs.manufactoria.families.sequences import (
    AppendSequence,
    EndsWith,
    ExactSequence,
    NotContains,
    PrependSequence,
    StartsWith,
)

RULES: tuple[type[Rule], ...] = (
    StartsWith,
    ExactSequence,
    AppendSequence,
    EndsWith,
    NumericalComparison,
    NumericalOperation,
    NumericalMaxMin,
    PrependSequence,
    RegexPattern,
    RegexSameNumber,
    NotContains,
)


def read(text: str) -> Rule | None:
    """The rule that a problem's criteria state, or None when they state none of these families."""
    colours = "RB" if TWO_COLOURS.strip() in text else "RBYG"
    for kind in RULES:
        if (colours == "RB" or not kind.binary) and (rule := kind.read(text)):
            return rule if rule.colours == colours else replace(rule, colours=colours)
    return None


def solve(rule: Rule) -> str:
    """A correct program."""
    return assemble(rule.machine())


__all__ = ["RULES", "Rule", "read", "solve"]
