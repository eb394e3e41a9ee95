"""Answers to the task of small functions: mutants of right programs, what they give by Python itself, hostile programs.

In each program of `HOSTILE`, `f` stands for the name that is asked for. What is right is nowhere in them.
"""

import ast
import copy
import json
import os
import random
import resource
import sys
from collections.abc import Iterator
from fractions import Fraction
from types import FrameType
from typing import Any

from resd.types import Problem

LINES = 20_000  # that a call of a mutant may run through
SECONDS = (
    5  # of a processor for all calls; a line can take for ever, too, as with numbers that are squared again and again
)


class Endless(Exception):
    """A call runs for longer than a right one would."""


# --------------------------------------------------------------------------------------------------------- mutants


class Mutator(ast.NodeTransformer):
    """Changes the place number `at`, counted over all that could be changed."""

    def __init__(self, at: int, source: random.Random) -> None:
        self.at, self.seen, self.source = at, 0, source

    def _chosen(self) -> bool:
        self.seen += 1
        return self.seen - 1 == self.at

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool) or not self._chosen():
            return node
        if isinstance(node.value, int):
            return ast.Constant(node.value + self.source.choice((-1, 1, 2)))
        return ast.Constant(node.value + "s") if isinstance(node.value, str) else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        kinds = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
        return ast.Compare(node.left, [self.source.choice(kinds)()], node.comparators[:1]) if self._chosen() else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        kinds = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.Div)
        return ast.BinOp(node.left, self.source.choice(kinds)(), node.right) if self._chosen() else node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        wrap = "V + 0|V * 1.0|float(V)|str(V)|[*V]|(*V,)|bool(V)|(V)|[V]|iter(V)|None|V[::-1]|V or V|-V|{0: V}|set(V)"
        text = self.source.choice(wrap.split("|"))
        return ast.Return(_with(text, node.value)) if self._chosen() else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return ast.IfExp(node.test, node.orelse, node.body) if self._chosen() else node


def _with(text: str, value: ast.expr | None) -> ast.expr:
    tree = ast.parse(text, mode="eval").body
    return ast.fix_missing_locations(
        type(
            "Put", (ast.NodeTransformer,), {"visit_Name": lambda self, node: value if node.id == "V" else node}
        )().visit(tree)
    )


def program(problem: Problem) -> str:
    """The right one."""
    return problem.privileged.removeprefix("```python\n").removesuffix("\n```")


def mutant(problem: Problem, source: random.Random) -> str:
    """A right program with none, one or two changes."""
    text = program(problem)
    for _ in range(source.choice((0, 1, 1, 1, 2))):
        counter = Mutator(-1, source)
        counter.visit(ast.parse(text))
        if counter.seen:
            tree = Mutator(source.randrange(counter.seen), source).visit(ast.parse(text))
            text = ast.unparse(ast.fix_missing_locations(tree))
    return text


# ------------------------------------------------------------------------------------------------------ the oracle


def right_calls(text: str, problem: Problem) -> list[bool]:
    """Which calls are right, by running the program in a fork of this process. Raises Endless; programs are mutants of
    ours."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        failed = True
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            os.write(write, bytes(_right_calls(text, problem)))
            failed = False
        except Endless:
            failed = False
        finally:
            os._exit(failed)
    os.close(write)
    with open(read, "rb") as answer:
        found = answer.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 1, text
    if not found:
        raise Endless
    return list(map(bool, found))


def _right_calls(text: str, problem: Problem) -> list[bool]:
    scope: dict[str, Any] = {}
    name = problem.statement.partition("(")[0].removeprefix("def ")
    with _counted():
        exec(compile(text, "<mutant>", "exec"), scope)
        return [_is(_called(scope[name], case.arguments), case.expected) for case in problem.cases]


def _called(function: Any, arguments: Any) -> str:
    try:
        return _written(function(*copy.deepcopy(list(arguments))))
    except Endless:
        raise
    except Exception as error:
        return f"! {error!r}"


def _written(value: Any) -> str:
    """A value as JSON, which keeps 1, 1.0, true and "1" apart; objects of other kinds are none."""
    _plain(value)
    return json.dumps(value, allow_nan=False)


def _plain(value: Any) -> None:
    if isinstance(value, (list, tuple)):
        for each in value:
            _plain(each)
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 10**300:
            raise ValueError(value)
    elif not (value is None or isinstance(value, (bool, float, str))) or (isinstance(value, str) and len(value) > 1000):
        raise TypeError(value)


def _is(found: str, expected: Any) -> bool:
    if isinstance(expected, float):
        try:
            number = json.loads(found, parse_int=Fraction, parse_float=Fraction)
        except ValueError:
            return False
        close = Fraction(1, 10**9) * max(1, abs(Fraction(expected)))
        return isinstance(number, Fraction) and abs(number - Fraction(expected)) <= close
    return found == json.dumps(expected)


class _counted:
    """Ends what runs through too many lines."""

    def __enter__(self) -> None:
        self.left = LINES

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            self.left -= 1
            if self.left < 0 and frame.f_code.co_filename == "<mutant>":
                raise Endless
            return trace

        self.before = sys.gettrace()
        sys.settrace(trace)

    def __exit__(self, *_: Any) -> None:
        sys.settrace(self.before)


# --------------------------------------------------------------------------------------------------------- hostile

_EQUAL = """
class Equal{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __le__ = __ge__ = __eq__
    __hash__ = None
"""


def _equal(base: str, made: str) -> str:
    return _EQUAL.replace("{base}", base) + f"def f(*a): return {made}"


HOSTILE = {
    "endless loop": "def f(*a):\n    while True: pass",
    "endless loop at the start": "while True: pass",
    "endless loop that catches everything": "def f(*a):\n    while True:\n        try:\n            while True: pass\n"
    "        except BaseException: pass",
    "sleep": "import time\ndef f(*a): time.sleep(1000)",
    "a number that takes for ever": "def f(*a): return 3 ** 10 ** 9",
    "a pattern that takes for ever": "import re\ndef f(*a): return re.match('(a+)+b', 'a' * 99)",
    "a list for ever": "def f(*a): return list(iter(int, 1))",
    "ten gigabytes": "def f(*a): return bytearray(10 * 2 ** 30)",
    "a huge text": "def f(*a): return 'x' * 2 ** 40",
    "more and more memory": "kept = []\ndef f(*a):\n    while True: kept.append(bytearray(2 ** 24))",
    "fork": "import os\ndef f(*a):\n    while True: os.fork()",
    "a thread": "import threading\ndef f(*a): threading.Thread(target=f).start()",
    "exit": "import sys\nsys.exit(0)",
    "exit in a call": "def f(*a): raise SystemExit(0)",
    "exit at once": "import os\ndef f(*a): os._exit(0)",
    "interrupt": "def f(*a): raise KeyboardInterrupt",
    "deep recursion": "def f(*a): return f(*a)",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(2 ** 31 - 1)\nclass R:\n"
    "    def __repr__(self): return repr(self)\ndef f(*a): return repr(R())",
    "equal to everything": _equal("", "Equal()"),
    "an equal number": _equal("(int)", "Equal(3)"),
    "an equal float": _equal("(float)", "Equal(3)"),
    "an equal text": _equal("(str)", "Equal('x')"),
    "an equal list": _equal("(list)", "Equal([1])"),
    "an equal number in a list": _equal("(int)", "[Equal(1)]"),
    "a patched comparison": "import builtins, operator\noperator.eq = lambda a, b: True\n"
    "builtins.all = lambda x: True\nbuiltins.isinstance = lambda a, b: True\ndef f(*a): return 123456",
    "patched modules": "import sys\nfor m in list(sys.modules.values()):\n    for n in ('same', 'plain', 'dumps'):\n"
    "        try: setattr(m, n, lambda *a, **k: True)\n        except Exception: pass\ndef f(*a): return 123456",
    "a patched judge": "import sys\nsys.modules['resd.envs.code.grade'] = sys\ndef f(*a): return 123456",
    "prints answers": "print('1')\ndef f(*a): print(a)",
    "writes a reply": "import os\nos.write(3, b'{\"value\": 123456}')\ndef f(*a): return 123456",
    "writes many replies": "import os\nfor _ in range(50): os.write(3, b'{\"value\": true}')\ndef f(*a): return 123456",
    "writes damaged replies": "import os\nfor _ in range(50): os.write(3, b'{\"val')\ndef f(*a): return 123456",
    "writes half a character": 'import os\nos.write(3, b\'{"value": "\\\\ud800"}\')\ndef f(*a): return 123456',
    "reads a file": "def f(*a): return open('/etc/passwd').read()",
    "looks for what is right": "import gc, sys\ndef f(*a):\n    found = [o for o in gc.get_objects() "
    "if isinstance(o, dict)]\n    frame = sys._getframe()\n    while frame:\n        found.append(frame.f_locals)\n"
    "        frame = frame.f_back\n    return next((d['expected'] for d in found if 'expected' in d), None)",
    "true": "def f(*a): return True",
    "true in a list": "def f(*a): return [True]",
    "not a number": "def f(*a): return float('nan')",
    "infinity": "def f(*a): return float('inf')",
    "nan in a list": "def f(*a): return [float('nan')]",
    "a huge number": "def f(*a): return 10 ** 4000",
    "a number of a million digits": "def f(*a): return 1 << 4_000_000",
    "a long text": "def f(*a): return 'x' * 5000",
    "half a character": "def f(*a): return '\\ud800'",
    "a generator": "def f(*a): yield 1",
    "a generator of everything": "def f(*a): return (x for x in a)",
    "a coroutine": "async def f(*a): return 1",
    "a class": "class f:\n    def __init__(self, *a): pass",
    "itself": "def f(*a): return f",
    "a list in itself": "def f(*a):\n    x = []\n    x.append(x)\n    return x",
    "a deep list": "def f(*a):\n    x = [1]\n    for _ in range(99999): x = [x]\n    return x",
    "a dictionary": "def f(*a): return {'value': 1}",
    "bytes": "def f(*a): return b'1'",
    "a complex number": "def f(*a): return 1j",
    "a fraction": "from fractions import Fraction\ndef f(*a): return Fraction(1)",
    "empties its arguments": "def f(*a):\n    [x.clear() for x in a if isinstance(x, list)]\n    return 123456",
    "an error with an error": "class E(BaseException):\n    def __str__(self): raise E()\n    __repr__ = __str__\n"
    "def f(*a): raise E()",
    "an error that colours a terminal": "def f(*a): raise ValueError(chr(27) + '[31m' + '\\ud800' * 5000)",
    "a syntax error": "def f(*a) return 1",
    "a null byte": "def f(*a): return 1\0",
    "a surrogate": "def f(*a): return '\ud800'",
    "another name": "def g(*a): return 1",
    "no function": "f = 3",
    "no program": "Sure, here it is!",
    "megabytes": "def f(*a): return 1\n" + "#" * 2_000_000,
    "brackets": "def f(*a): return " + "(" * 5000 + "1" + ")" * 5000,
}


def hostile(problem: Problem) -> Iterator[tuple[str, str]]:
    """(name, response)"""
    name = problem.statement.partition("(")[0].removeprefix("def ")
    for kind, text in HOSTILE.items():
        for before, after in (("def f(", f"def {name}("), ("class f:", f"class {name}:"), ("f = 3", f"{name} = 3")):
            text = text.replace(before, after)
        text = text.replace("return f(*a)", f"return {name}(*a)").replace("target=f", f"target={name}")
        yield kind, f"```python\n{text.replace('return f', f'return {name}') if kind == 'itself' else text}\n```"
