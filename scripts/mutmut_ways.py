"""How scripts/mutants.py differs from plain mutmut: `differ` changes mutmut itself, before it begins.

Functions with decorators are changed too (registered divergences, properties), the fastest tests are asked first, every
test has a time limit of its own, what a shared fixture or a cached function calls counts for every test that uses it,
and a sample is asked in the order in which it was drawn, so that a part of it is one too.
"""

import gc
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import libcst as cst
from mutmut import __main__ as mutmut
from mutmut.configuration import Config, config
from mutmut.mutation import file_mutation
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.stats import calculate_summary_stats
from mutmut.workers.isolation import ForkServerRunner

SURVIVORS = Path("tests/survivors.txt")
PASSED = Path("mutants/passed.json")  # what each test was when it passed without mutants
LIMIT = 4  # what a test may take, as a multiple of what it took before


def differ(seconds: float) -> None:
    """`seconds`: what the tests of a mutant may take together."""
    mutate_decorated_functions()
    ask_fast_tests_first(seconds)
    warm_up_once()
    watch_tests()
    pass_once()
    forget_nothing()
    speak_little()


def mutate_decorated_functions() -> None:
    """The decorators stay on the function that chooses among the mutants; the mutants have none."""
    skip, arrange = file_mutation.MutationVisitor._skip_node_and_children, file_mutation.function_trampoline_arrangement

    def with_decorators(node: cst.CSTNode) -> bool:
        if not isinstance(node, cst.FunctionDef) or not node.decorators:
            return False
        names = [d.decorator.value for d in node.decorators if isinstance(d.decorator, cst.Name)]
        return len(node.decorators) > 1 or names not in (["staticmethod"], ["classmethod"])

    def skip_less(visitor: Any, node: cst.CSTNode) -> bool:
        return skip(visitor, node.with_changes(decorators=[]) if with_decorators(node) else node)

    def arrange_plain(function: cst.FunctionDef, *rest: Any, **named: Any) -> Any:
        if not with_decorators(function):
            return arrange(function, *rest, **named)
        before, nodes, after, names = arrange(function.with_changes(decorators=[]), *rest, **named)
        chooser, *mutants = nodes
        decorators = [*function.decorators, *chooser.decorators]
        return before, [chooser.with_changes(decorators=decorators), *mutants], after, names

    file_mutation.MutationVisitor._skip_node_and_children = skip_less
    file_mutation.function_trampoline_arrangement = arrange_plain


def ask_fast_tests_first(seconds: float) -> None:
    submit = ForkServerRunner.submit

    def sorted_submit(runner: Any, mutant: str, tests: list[str], *limits: Any) -> None:
        took = state().duration_by_test
        tests = sorted(tests, key=lambda test: (took[test], test))
        sums = accumulate(took[test] for test in tests)
        within = [test for test, so_far in zip(tests, sums, strict=True) if so_far <= seconds]
        submit(runner, mutant, within or tests[:1], *limits)

    ForkServerRunner.submit = sorted_submit


def warm_up_once() -> None:
    """What all children share: settings of algorithms as they are shipped, which no mutant changes. pytest collects
    garbage several times a session, which takes seconds over all that; and nothing here has to outlive the machine."""
    warm_up = PytestRunner.warm_up

    def warm_up_and_freeze(runner: PytestRunner) -> None:
        warm_up(runner)
        for file in Path("conf/algorithm").glob("*.yaml"):
            sys.modules["scripted"]._shipped(file.stem)
        os.fsync = lambda file: None
        gc.collect()
        gc.freeze()

    PytestRunner.warm_up = warm_up_and_freeze


class Shared:
    """What a test calls by way of others, beside mutmut's record: a shared fixture is set up by its first test alone,
    and a cache spares all tests but the first the call."""

    def __init__(self) -> None:
        self.called: dict[Any, set[str]] = {}

    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        before = set(state()._stats)
        state()._stats.clear()
        yield
        if fixturedef.scope != "function":
            self.called[fixturedef] = set(state()._stats)
        state()._stats.update(before)

    pytest_fixture_setup.hookwrapper = True  # type: ignore[attr-defined]

    def pytest_runtest_setup(self) -> None:
        modules = [module for name, module in sys.modules.items() if name.startswith("resd.")]
        for value in [value for module in modules for value in vars(module).values()]:
            if callable(getattr(value, "cache_clear", None)):
                value.cache_clear()

    def pytest_runtest_call(self, item: Any) -> None:
        for several in item._fixtureinfo.name2fixturedefs.values():
            state()._stats.update(*(self.called.get(each, ()) for each in several))


class Patience:
    """A mutant that never ends is found by the test that it hangs in, not by the sum of all limits; in time of the
    processor, for the machine may be busy with something else."""

    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        over = threading.Event()
        limit = LIMIT * (state().duration_by_test.get(item.nodeid, 0.0) + config().timeout_constant)
        threading.Thread(target=self._watch, args=(over, limit), daemon=True).start()
        yield
        over.set()

    pytest_runtest_protocol.hookwrapper = True  # type: ignore[attr-defined]

    def _watch(self, over: threading.Event, limit: float) -> None:
        used, begun = time.process_time(), time.monotonic()
        while not over.wait(1.0):
            if time.process_time() - used > limit or time.monotonic() - begun > 5 * limit:
                os.kill(os.getpid(), signal.SIGXCPU)


def watch_tests() -> None:
    stats, tests, execute = PytestRunner.run_stats, PytestRunner.run_tests, PytestRunner.execute_pytest
    watching: list[Any] = []

    def run_stats(runner: PytestRunner, **rest: Any) -> int:
        watching[:] = [Shared()]
        return stats(runner, **rest)

    def run_tests(runner: PytestRunner, **rest: Any) -> int:
        watching[:] = [Patience()] if rest["mutant_name"] else []
        return tests(runner, **rest)

    def execute_watched(runner: PytestRunner, params: list[str], **rest: Any) -> int:
        return execute(runner, params, plugins=[*rest.pop("plugins", []), *watching], **rest)

    PytestRunner.run_stats, PytestRunner.run_tests, PytestRunner.execute_pytest = run_stats, run_tests, execute_watched


def pass_once() -> None:
    """A test is run without mutants only where its file, or anything that is no test, has changed since it passed: the
    first pass, which sees what each test calls, is one."""
    collect, clean = ForkServerRunner.collect_stats, ForkServerRunner.run_clean_tests

    def fresh(tests: Iterable[str], code: int) -> int:
        if code == 0:
            known = json.loads(PASSED.read_text()) if PASSED.exists() else {}
            PASSED.write_text(json.dumps(known | fingerprints(tests)))
        return code

    def collect_once(runner: Any, tests: Iterable[str] | None) -> int:
        code = collect(runner, tests)
        return fresh(tests or state().duration_by_test, code)

    def clean_once(runner: Any, tests: Iterable[str]) -> int:
        known = json.loads(PASSED.read_text()) if PASSED.exists() else {}
        changed = [test for test, now in fingerprints(tests).items() if known.get(test) != now]
        return fresh(changed, clean(runner, changed)) if changed else 0

    ForkServerRunner.collect_stats, ForkServerRunner.run_clean_tests = collect_once, clean_once
    mutmut.run_forced_fail_test = lambda runner: None  # what the first pass has seen was called by way of mutants


def fingerprints(tests: Iterable[str]) -> dict[str, str]:
    """By test, a hash of its file and of all files that are no test."""
    files = [file for root in ("resd", "envs", "conf", "tests") for file in sorted(Path(root).rglob("*"))]
    kept = [file for file in files if file.is_file() and file != SURVIVORS and file.suffix != ".pyc"]
    content = {file: file.read_bytes() for file in kept}
    shared = b"".join(text for file, text in content.items() if not file.match("tests/test_*.py"))
    base = hashlib.sha256(shared)

    def of(test: str) -> str:
        whole = base.copy()
        whole.update(content.get(Path(test.partition("::")[0]), b""))
        return whole.hexdigest()

    return {test: of(test) for test in tests}


def forget_nothing() -> None:
    """A new test file in the selection would otherwise throw all results away."""
    Config.config_fingerprint = lambda config: {}


def speak_little() -> None:
    """No spinner; a line now and then."""

    def say(statistics: Any, force_output: bool = False) -> None:
        counts = calculate_summary_stats(statistics)
        done = counts.total - counts.not_checked
        if done % 20 == 0 or force_output:
            print(f"{done} of {counts.total} measured", flush=True)

    mutmut.print_status, mutmut.print_stats = lambda *_, **__: None, say
