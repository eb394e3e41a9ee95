"""Mutation testing: `make mutants [ARGS="[--again] FILE-OR-FOLDER …"]`; what to change and whom to ask: pyproject.toml.

Every mutant is one small change of a function. mutmut writes them all into `mutants/`, runs for each the selected tests
that call this function, and keeps the results there: an interrupted run continues. A function whose text changes is
measured again; `--again` also asks about mutants that no test has killed so far, after tests have been added.

`--sample 500` asks about so many, drawn at random from all (the same ones each time), which is an unbiased estimate of
the share in a fraction of the hours. `--seconds 10` asks only the fastest tests of each mutant, which together took so
long before: the share is then a lower bound.

At the end: the share killed of each file, and the survivors that tests/survivors.txt gives no reason for. There, an
entry is a function, the lines that the mutant changes, and the reason, after a blank line. Nobody is asked about those:
they count as survivors.

Differs from plain mutmut: functions with decorators are changed too (registered divergences, properties), the fastest
tests are asked first, every test has a time limit of its own, what a shared fixture or a cached function calls counts
for every test that uses it, and a sample is asked in the order in which it was drawn, so that a part of it is one too.
"""

import argparse
import gc
import hashlib
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import libcst as cst
from mutmut import __main__ as mutmut
from mutmut.configuration import Config, config
from mutmut.mutation import file_mutation
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.stats import calculate_summary_stats, status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key
from mutmut.workers.isolation import ForkServerRunner

SURVIVORS = Path("tests/survivors.txt")
PASSED = Path("mutants/passed.json")  # what each test was when it passed without mutants
LIMIT = 4  # what a test may take, as a multiple of what it took before
KILLED = {"killed", "timeout", "segfault", "suspicious"}


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


def generate() -> None:
    """The mutants of every file, and with them the results that still hold."""
    mutmut.set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    with mutmut.CatchOutput():
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        refresh()
        mutmut.create_mutants(1)


def refresh() -> None:
    """mutmut copies what is missing: a prompt that has changed since would stay as it was."""
    for file in (f for root in ("resd", "conf") for f in Path(root).rglob("*") if f.is_file() and f.suffix != ".py"):
        copy = "mutants" / file
        if copy.is_file() and copy.read_bytes() != file.read_bytes():
            shutil.copyfile(file, copy)


def measured(paths: Iterable[str]) -> Iterator[SourceFileMutationData]:
    """The files with mutants that are, or lie under, one of `paths`; all without any."""
    wanted = [Path(path) for path in paths]
    for path in sorted(walk_mutatable_files()):
        if not wanted or any(w == path or w in path.parents for w in wanted):
            data = SourceFileMutationData(path=path)
            data.load()
            if data.exit_code_by_key:
                yield data


def change(file: Path, mutant: str) -> tuple[str, ...]:
    """What names a mutant for people and does not depend on its number: function, lines out, lines in."""
    name, of = orig_function_and_class_names_from_key(mutant)
    lines = get_diff_for_mutant(mutant, path=file).splitlines()[2:]
    changed = [f"{line[0]} {line[1:].strip()}" for line in lines if line[0] in "+-"]
    return (f"{file}: {of + '.' if of else ''}{name}", *changed)


def reasons() -> dict[tuple[str, ...], str]:
    """Why a change may survive, by `change`."""
    found = {}
    text = SURVIVORS.read_text() if SURVIVORS.exists() else ""
    for entry in text.split("\n\n"):
        lines = [line for line in entry.strip().splitlines() if not line.startswith("#")]
        if lines:
            found[tuple(lines[:-1])] = lines[-1]
    return found


def settle(drawn: Collection[str]) -> set[str]:
    """Lets those survive that may, and says which."""
    settled, accepted = set(), reasons()
    functions = {what[0] for what in accepted}
    for data in measured(()):
        for mutant in data.exit_code_by_key.keys() & drawn:
            name, of = orig_function_and_class_names_from_key(mutant)
            known = f"{data.path}: {of + '.' if of else ''}{name}" in functions
            if known and change(Path(data.path), mutant) in accepted:
                data.exit_code_by_key[mutant] = 0
                settled.add(mutant)
        data.save()
    return settled


def report(paths: Iterable[str]) -> int:
    """Prints shares and survivors; how many survivors have no reason."""
    accepted, rows, unexplained = reasons(), [], []
    for data in measured(paths):
        counts: dict[str, int] = defaultdict(int)
        for mutant, code in data.exit_code_by_key.items():
            status = status_by_exit_code[code]
            counts["killed" if status in KILLED else status] += 1
            if status in ("survived", "no tests"):
                what = change(Path(data.path), mutant)
                counts["accepted"] += what in accepted
                if what not in accepted:
                    unexplained.append((mutant, status, what))
        rows.append((str(data.path), counts))
    print("\nwithout a reason:")
    for mutant, status, what in unexplained:
        print(f"\n{what[0]}    [{status}, {mutant}]", *what[1:], sep="\n")
    print(f"\n{'file':<44}{'mutants':>8}{'measured':>10}{'killed':>8}{'accepted':>10}{'open':>6}{'killed':>9}")
    total: dict[str, int] = defaultdict(int)
    for name, counts in [*rows, ("all", total)]:
        known = counts["killed"] + counts["survived"] + counts["no tests"]
        every = counts["all"] if name == "all" else known + counts["not checked"]
        opened = known - counts["killed"] - counts["accepted"]
        share = f"{100 * counts['killed'] / known:.1f} %" if known else "–"
        cells = (every, known, counts["killed"], counts["accepted"], opened)
        print(f"{name:<44}{cells[0]:>8}{cells[1]:>10}{cells[2]:>8}{cells[3]:>10}{cells[4]:>6}{share:>9}")
        if name != "all":
            for key in counts:
                total[key] += counts[key]
            total["all"] += every
    return len(unexplained)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="files or folders; all without any")
    parser.add_argument("--again", action="store_true", help="also ask about mutants that survived")
    parser.add_argument("--sample", type=int, help="only so many of them, drawn at random")
    parser.add_argument("--seconds", type=float, default=math.inf, help="what the tests of a mutant may take")
    parser.add_argument("--report", action="store_true", help="only print what is known")
    parser.add_argument("--children", type=int, default=1, help="processes at work at once")
    arguments = parser.parse_args()
    mutate_decorated_functions()
    ask_fast_tests_first(arguments.seconds)
    warm_up_once()
    watch_tests()
    pass_once()
    forget_nothing()
    speak_little()
    if not arguments.report:
        generate()
        drawn = sample(arguments.paths, arguments.sample)
        ask = {"not checked"} | ({"survived", "no tests"} if arguments.again else set())
        settled = settle(drawn)
        names = [
            mutant
            for data in measured(arguments.paths)
            for mutant, code in data.exit_code_by_key.items()
            if mutant in drawn and mutant not in settled and status_by_exit_code[code] in ask
        ]
        if arguments.sample:
            mutmut.estimated_worst_case_time = drawn.index  # what mutmut sorts by
        if names:
            mutmut._run(names, arguments.children)
    return min(1, report(arguments.paths))


def sample(paths: Iterable[str], size: int | None) -> list[str]:
    """The names of so many mutants, in the order of their hashes; all of them without a size."""
    names = [mutant for data in measured(paths) for mutant in data.exit_code_by_key]
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:size]


if __name__ == "__main__":
    sys.exit(main())
