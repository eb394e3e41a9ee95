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

scripts/mutmut_ways.py says how this differs from plain mutmut.
"""

import argparse
import hashlib
import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from mutmut import __main__ as mutmut
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key
from mutmut_ways import SURVIVORS, differ

KILLED = {"killed", "timeout", "segfault", "suspicious"}


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
    differ(arguments.seconds)
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
