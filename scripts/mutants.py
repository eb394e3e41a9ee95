"""Mutation testing: `make mutants [ARGS="[--again] FILE-OR-FOLDER …"]`; what to change and whom to ask: pyproject.toml.

Every mutant is one small change of a function. mutmut writes them all into `mutants/`, runs for each the selected tests
that call this function, and keeps the results there: an interrupted run continues. A function whose text changes is
measured again; `--again` also asks about mutants that no test has killed so far, after tests have been added.

`--sample 500` asks about so many, drawn at random from all (the same ones each time), which is an unbiased estimate of
the share in a fraction of the hours.

At the end: the share killed of each file, and the survivors that tests/survivors.txt gives no reason for. There, an
entry is a function, the lines that the mutant changes, and the reason, after a blank line.

Differs from plain mutmut: functions with decorators are changed too (registered divergences, properties), and the
fastest tests are asked first.
"""

import argparse
import gc
import hashlib
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import libcst as cst
from mutmut import __main__ as mutmut
from mutmut.configuration import Config
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


def ask_fast_tests_first() -> None:
    submit = ForkServerRunner.submit

    def sorted_submit(runner: Any, mutant: str, tests: list[str], *limits: Any) -> None:
        submit(runner, mutant, sorted(tests, key=lambda test: (state().duration_by_test[test], test)), *limits)

    ForkServerRunner.submit = sorted_submit


def warm_up_once() -> None:
    """pytest collects garbage several times a session, which takes seconds over all that the children share."""
    warm_up = PytestRunner.warm_up

    def warm_up_and_freeze(runner: PytestRunner) -> None:
        warm_up(runner)
        gc.collect()
        gc.freeze()

    PytestRunner.warm_up = warm_up_and_freeze


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
    parser.add_argument("--report", action="store_true", help="only print what is known")
    parser.add_argument("--children", type=int, default=1, help="processes at work at once")
    arguments = parser.parse_args()
    mutate_decorated_functions()
    ask_fast_tests_first()
    warm_up_once()
    forget_nothing()
    speak_little()
    if not arguments.report:
        generate()
        drawn = sample(arguments.paths, arguments.sample)
        ask = {"not checked"} | ({"survived", "no tests"} if arguments.again else set())
        names = [
            mutant
            for data in measured(arguments.paths)
            for mutant, code in data.exit_code_by_key.items()
            if mutant in drawn and status_by_exit_code[code] in ask
        ]
        if names:
            mutmut._run(sorted(names, key=drawn.index) if arguments.sample else names, arguments.children)
    return min(1, report(arguments.paths))


def sample(paths: Iterable[str], size: int | None) -> list[str]:
    """The names of so many mutants, in the order of their hashes; all of them without a size."""
    names = [mutant for data in measured(paths) for mutant in data.exit_code_by_key]
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:size]


if __name__ == "__main__":
    sys.exit(main())
