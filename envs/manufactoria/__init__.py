"""Manufactoria: write a program of colour-sorting nodes that accepts exactly the tapes a sentence describes.

The task of the paper's main experiments. A problem and a correct program for it:

    Accept if the tape contains the subsequence RY (does not have to be consecutive); reject otherwise.

    START start:
        NEXT q0

    PULLER_RB q0:
        [R] q1
        [B] q0
        [EMPTY] p0

    PULLER_YG p0:
        [Y] q0
        [G] q0

    PULLER_RB q1:
        [R] q1
        [B] q1
        [EMPTY] p1

    PULLER_YG p1:
        [Y] end
        [G] q1

    END end

The package generates, grades and explains the 874 problems whose predicate is what a tape must contain, the problems
of eleven other families, some of which ask for an output (`families`), and any problem that comes with test cases.
Better than the original, and on by default: feedback that keeps the end of a trace and the expected verdict; on
request: a judge that goes beyond the test cases (`strict`).
"""

from resd.envs.manufactoria.grade import extract, grade
from resd.envs.manufactoria.parser import ParseError, parse
from resd.envs.manufactoria.problems import solution
from resd.envs.manufactoria.program import Program, Trace
from resd.envs.manufactoria.task import Manufactoria

load = Manufactoria

__all__ = ["Manufactoria", "ParseError", "Program", "Trace", "extract", "grade", "load", "parse", "solution"]
