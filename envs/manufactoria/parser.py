"""From source text to a program: the grammar of the Manufactoria language, with errors that name a line.

A line that starts with a tab or with four blanks is a route of the node above it; every other line that is neither
blank nor a comment is a header. Lines are numbered from 1 after the text is stripped and an opening fence of three bare
backticks is dropped. The first error wins, node by node; what concerns the whole program is checked last.
"""

import re
from functools import lru_cache

from resd.envs.manufactoria.program import PAINTED, PULLED, Node, Program

_HEADER = re.compile(rf"({'|'.join(['START', 'END', *PULLED, *PAINTED])})\s+(\w+)(:?)\s*(?:#.*)?", re.DOTALL)
_ROUTE = re.compile(r"(?:\[(R|B|Y|G|EMPTY)\]|(NEXT))\s+(\w+)\s*(?:#.*)?", re.DOTALL)

# What a route may begin with, for its syntax and then for its meaning: a puller of the wrong pair is a later error.
_CONDITIONS = {"END": frozenset[str](), "START": frozenset({"NEXT"})}
_CONDITIONS |= dict.fromkeys(PAINTED, _CONDITIONS["START"]) | dict.fromkeys(PULLED, frozenset([*"RBYG", "EMPTY"]))
_OWN_CONDITIONS = _CONDITIONS | {type_: frozenset([*colours, "EMPTY"]) for type_, colours in PULLED.items()}


class ParseError(ValueError):
    """Why a text is not a program: `kind` is a short name, `line` a line number or None, `detail` a phrase."""

    def __init__(self, kind: str, line: int | None, detail: str) -> None:
        super().__init__(kind, line, detail)
        self.kind, self.line, self.detail = kind, line, detail

    def __str__(self) -> str:
        return self.detail if self.line is None else f"line {self.line}: {self.detail}"


def parse(source: str) -> Program:
    """The program that `source` describes. Raises ParseError for its first mistake."""
    lines = source.strip().split("\n")
    if lines[0].strip() == "```":
        del lines[0]
    if lines and lines[-1].strip() == "```":
        del lines[-1]
    nodes: dict[str, Node] = {}
    referrers: dict[str, int] = {}  # the header line of the node whose route mentions a target first
    node: Node | None = None
    n_routes = 0
    for number, line in enumerate(lines, 1):
        kind, word, name = _read(line if node else line.lstrip())  # the first header may be indented
        if kind == "route" and node:
            if word not in _CONDITIONS[node.type]:
                raise _bad_route(node, number, line)
            n_routes += 1
            node.routes.setdefault(word, name)  # the first of several routes for one condition counts
            referrers.setdefault(name, node.line)
        elif kind != "skip":
            if node:
                _check_routes(node, n_routes)
            if kind != "header":
                raise _bad_header(kind, number, line.strip())
            node, n_routes = _add_node(nodes, number, word, name), 0
    if not node:
        raise ParseError("empty_program", None, "the program is empty")
    _check_routes(node, n_routes)
    for id_ in ("start", "end"):
        if id_ not in nodes or nodes[id_].type != id_.upper():
            raise ParseError(f"no_{id_}", None, f"the program has no {id_.upper()} node")
    for target, referrer in referrers.items():
        if target not in nodes and target != "NONE" and target != "END":
            raise ParseError("undefined_target", referrer, f"a route leads to {target!r}, which is not declared")
    return Program(nodes)


@lru_cache(maxsize=1 << 14)  # the programs of one model repeat the same lines
def _read(line: str) -> tuple[str, str, str]:
    """What a line is by itself: (`skip`, "", ""), (`route`, condition, target) or (`header`, type, id).

    A malformed route has no condition. A malformed header is (kind of error, "", "").
    """
    text = line.strip()
    if not text or text.startswith("#"):
        return "skip", "", ""
    if line.startswith(("    ", "\t")):
        route = _ROUTE.fullmatch(text)
        return ("route", route[1] or route[2], route[3]) if route else ("route", "", "")
    header = _HEADER.fullmatch(text)
    if not header:
        return "bad_header", "", ""
    type_, id_, colon = header.groups()
    if (type_ == "END") == bool(colon):
        return "end_has_colon" if colon else "missing_colon", "", ""
    return "header", type_, id_


def _bad_header(kind: str, line: int, text: str) -> ParseError:
    """The error for a line in a header's place that is no header."""
    if kind == "end_has_colon":
        return ParseError(kind, line, "the END node takes no colon")
    if kind == "missing_colon":
        return ParseError(kind, line, f"a colon is missing after {text!r}")
    return ParseError(kind, line, f"expected a node such as 'PULLER_RB name:' but found {text!r}")


def _add_node(nodes: dict[str, Node], line: int, type_: str, id_: str) -> Node:
    if id_ in nodes:
        raise ParseError("duplicate_id", line, f"the id {id_!r} is declared twice")
    if type_ in ("START", "END") and id_ != type_.lower():
        raise ParseError(f"{type_.lower()}_wrong_id", line, f"the {type_} node must be called {type_.lower()!r}")
    nodes[id_] = node = Node(type_, line, {})
    return node


def _bad_route(node: Node, line: int, text: str) -> ParseError:
    """The error for a line in a route's place that is no route of `node`."""
    if node.type == "END":
        return ParseError("end_has_routes", line, f"the END node takes no routes but has {text.strip()!r}")
    if node.type in PULLED:
        form = " or ".join(f"'[{condition}] name'" for condition in (*PULLED[node.type], "EMPTY"))
        return ParseError("bad_puller_route", line, f"a {node.type} route must read {form}, not {text.strip()!r}")
    return ParseError("bad_next_route", line, f"a {node.type} route must read 'NEXT name', not {text.strip()!r}")


def _check_routes(node: Node, n_routes: int) -> None:
    """What is known about a node once its last route is read."""
    if not _OWN_CONDITIONS[node.type].issuperset(node.routes):
        foreign = next(condition for condition in node.routes if condition not in _OWN_CONDITIONS[node.type])
        raise ParseError("wrong_color_condition", node.line, f"a {node.type} node cannot have a [{foreign}] route")
    if node.type not in PULLED and node.type != "END" and n_routes != 1:
        kind = "start_route_count" if node.type == "START" else "painter_route_count"
        raise ParseError(kind, node.line, f"a {node.type} node takes exactly one NEXT route, not {n_routes}")
