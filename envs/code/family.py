"""Families of small functions: a reference of ours, its statement, and the arguments that it is tried on.

    family = Bank()

    @family(k=(2, 3))
    def multiples(xs: Ints, *, k: int) -> int:
        '''Return how many numbers in `xs` are divisible by {k}.'''
        return sum(x % k == 0 for x in xs)

is a family of two functions: parameters after `*` are constants, which only the statement tells. A whole family belongs
to one part, by a hash of its name or of the name of one that does the same to another type (`family("distinct")`), so
that no function of training has a twin among the tests.
"""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from random import Random
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from resd.envs.code.arguments import Kind

Part = Literal["train", "validation", "test"]
Reference = TypeVar("Reference", bound=Callable[..., Any])

_OF, _TEST, _VALIDATION = 20, 5, 7  # of twenty families, those below the first are for tests, then for validation
_DRAWS = 60  # of arguments, from which those are chosen that tell functions apart
_EDGES = 6  # of hidden tests, the most on arguments such as an empty list


@dataclass(frozen=True)
class Function:
    """A member of a family."""

    reference: Callable[..., Any]
    constants: Mapping[str, Any]
    number: int

    def __call__(self, *arguments: Any) -> Any:
        """What is right for these arguments, which stay as they are."""
        return self.reference(*deepcopy(arguments), **self.constants)

    @property
    def name(self) -> str:
        return self.reference.__name__

    @property
    def label(self) -> str:
        """The name with its number in the family."""
        return f"{self.name}-{self.number}"

    @property
    def statement(self) -> str:
        told = " ".join((self.reference.__doc__ or "").split())
        return told.format(**self.constants)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """How each argument is drawn."""
        hints = get_type_hints(self.reference, include_extras=True)
        return {name: hint.__metadata__[0] for name, hint in hints.items() if name not in (*self.constants, "return")}

    @property
    def signature(self) -> str:
        """As the first line of a definition."""
        hints = get_type_hints(self.reference)
        shown = {name: str(hint) if get_args(hint) else hint.__name__ for name, hint in hints.items()}
        arguments = ", ".join(f"{name}: {shown[name]}" for name in self.kinds)
        return f"def {self.name}({arguments}) -> {shown['return']}:"

    @property
    def source(self) -> str:
        """A program with the function, which needs nothing else."""
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(self.reference))).body
        assert isinstance(tree, ast.FunctionDef)
        values = [f"{name} = {value!r}" for name, value in self.constants.items()]
        lines = [*values, *map(ast.unparse, tree.body[1:])]
        return "\n".join([self.signature, textwrap.indent("\n".join(lines), "    ")])

    def tests(self, count: int, examples: int, random: Random) -> list[tuple[Any, ...]]:
        """Arguments of `count` calls, no two alike, the first `examples` of them to be shown.

        Results take turns, so that no constant answer is right often; edges of the kinds are among those not shown.
        """
        edges = self._edges(random)
        groups: dict[str, list[tuple[Any, ...]]] = {}
        for _ in range(_DRAWS):
            drawn = tuple(kind.draw(random) for kind in self.kinds.values())
            alike = groups.setdefault(repr(self(*drawn)), [])
            if drawn not in alike and drawn not in edges:
                alike.append(drawn)
        drawn_in_turn = _turns(list(groups.values()))
        shown = list(islice(drawn_in_turn, examples))
        return list(islice(_chain(shown, edges[:_EDGES], drawn_in_turn), count))

    def _edges(self, random: Random) -> list[tuple[Any, ...]]:
        """Arguments one of which is an edge of its kind, the first edge of the first argument in front."""
        edges: list[tuple[Any, ...]] = []
        for place, kind in enumerate(self.kinds.values()):
            for edge in kind.edges:
                drawn = [each.draw(random) for each in self.kinds.values()]
                drawn[place] = deepcopy(edge)
                if tuple(drawn) not in edges:
                    edges.append(tuple(drawn))
        return edges[:1] + random.sample(edges[1:], len(edges) - 1)


@dataclass(frozen=True)
class Family:
    """Functions that differ in constants; `kin` names the family that decides which part it belongs to."""

    functions: tuple[Function, ...]
    kin: str

    @property
    def part(self) -> Part:
        digest = hashlib.sha256(self.kin.encode()).digest()
        place = int.from_bytes(digest[:8], "big") % _OF
        return "test" if place < _TEST else "validation" if place < _VALIDATION else "train"


class Bank(list[Family]):
    """Families, to which its decorator adds."""

    def __call__(self, kin: str = "", **constants: tuple[Any, ...]) -> Callable[[Reference], Reference]:
        """A family of as many functions as there are choices of the constants; `kin` names one much like it."""
        choices = [dict(zip(constants, chosen, strict=True)) for chosen in product(*constants.values())]

        def add(reference: Reference) -> Reference:
            functions = (Function(reference, each, number) for number, each in enumerate(choices, 1))
            self.append(Family(tuple(functions), kin or reference.__name__))
            return reference

        return add


def _turns(groups: list[list[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
    """One of each group, then one more of each, and so on."""
    for turn in range(max(map(len, groups), default=0)):
        yield from (group[turn] for group in groups if turn < len(group))


def _chain(*parts: Any) -> Iterator[tuple[Any, ...]]:
    for part in parts:
        yield from part
