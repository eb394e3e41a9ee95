"""How long a user waits for the sentence about a mistake: every command of `tests/test_mistakes.py`, as a process.

    python scripts/bench_mistakes.py [--repeats 3] [--kind words]

Prints seconds of wall time (the median of the repeats): of a bare `python -c pass`, of each kind the median and the
most, and every command that took more than a second. What only a model can tell (kind `models`) imports
torch and is told apart.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from test_mistakes import MISTAKES, environment, laid


def seconds(command: list[str], desk: Path, repeats: int) -> float:
    """The median of so many times."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=desk, env=environment(desk), capture_output=True, check=False)
        times.append(time.perf_counter() - began)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kind", choices=MISTAKES, action="append")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        desk = laid(Path(folder))
        print(f"python alone: {seconds(['-c', 'pass'], desk, arguments.repeats):.2f} s")
        for kind in arguments.kind or MISTAKES:
            took = {c: seconds(["-m", "resd", *shlex.split(c)], desk, arguments.repeats) for c in MISTAKES[kind]}
            slowest = max(took, key=took.__getitem__)
            print(
                f"{kind}: {len(took)}, median {median(took.values()):.2f} s, at most {took[slowest]:.2f} s ({slowest})"
            )
            for command in sorted(took, key=took.__getitem__):
                if took[command] > 1:
                    print(f"  {took[command]:.2f} s  {command}", flush=True)


if __name__ == "__main__":
    main()
