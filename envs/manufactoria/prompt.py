"""How a problem is asked: a `full` description of the machine, or a `compact` line for tiny models.

`full` tells what the published prompt tells, in other words, and ends with the criteria. Like it, it keeps silent about
the visit limit, about how deep a route must be indented, and about targets named END, so that results stay comparable.
`compact` names the task and the criteria; what the language looks like must then come from training.
"""

from typing import Literal

from resd.types import Messages, Problem

PromptKind = Literal["full", "compact"]

_FULL = """\
# Manufactoria

You program a factory that inspects robots. Every robot carries a tape: a string of colours, possibly empty. The main
colours are R (red) and B (blue); Y (yellow) and G (green) occur as well. Your factory is a network of nodes. A robot
begins at the START node and is passed from node to node. A node can take the colour at the front of the tape, add a
colour at the back, or only send the robot on.

## What counts

{verdict}

## The language

A program is a list of nodes. A node is a header, which gives its type and its id, and below it the indented routes that
say where the robot goes next. Every program has one START node and one END node:

START start:
    NEXT <id>

END end

Pullers look at the front of the tape. When they find one of their two colours they remove it and take the route of
that colour. The EMPTY route is taken when the tape is empty, and also when the front is a colour of the other pair;
nothing is removed then. A branch that is left out means NONE: the robot is rejected.

PULLER_RB <id>:
    [R] <id>
    [B] <id>
    [EMPTY] <id>

PULLER_YG <id>:
    [Y] <id>
    [G] <id>
    [EMPTY] <id>

Painters add their colour to the back of the tape and go on:

PAINTER_RED <id>:
    NEXT <id>

PAINTER_BLUE <id>:
    NEXT <id>

PAINTER_YELLOW <id>:
    NEXT <id>

PAINTER_GREEN <id>:
    NEXT <id>

## Rules

- An id consists of letters, digits and underscores, and no two nodes share one.
- A line that begins with # is a comment.
- Indent routes, always in the same way, with spaces or with a tab.
- Colours are written in upper case.
- A route to NONE rejects the robot; a route to the END node accepts it.
- Put your final program between triple backticks, as below.

## Example

This program accepts the tape that is exactly one red, and rejects every other.

```manufactoria
START start:
    NEXT first

PULLER_RB first:
    [R] rest
    [B] NONE
    [EMPTY] NONE

PULLER_RB rest:
    [R] NONE
    [B] NONE
    [EMPTY] rest_other

PULLER_YG rest_other:
    [Y] NONE
    [G] NONE
    [EMPTY] end

END end
```

# Your task

{criteria}"""

_ACCEPTANCE = """\
A robot is accepted when it reaches the END node. It is rejected when it does not: because it was sent to NONE, or
because it walks in circles for ever."""

_OUTPUT = """\
A robot is accepted when it reaches the END node with the tape that the task asks for. It is rejected when it does not
reach END: because it was sent to NONE, or because it walks in circles for ever."""


def ask(problem: Problem, kind: PromptKind = "full") -> Messages:
    """One user message whose last line is the criteria."""
    if kind == "compact":
        text = f"Write a Manufactoria program.\n{problem.statement}"
    else:
        checks_output = any(case.get("check_output", True) for case in problem.cases)
        text = _FULL.format(verdict=_OUTPUT if checks_output else _ACCEPTANCE, criteria=problem.statement)
    return [{"role": "user", "content": text}]
