"""Runs commands of users in one process that never imported torch, and prints what each ended with, a JSON line each.

    python tests/mistaken.py < COMMANDS      # one JSON list of words a line: ["train", "steps=0"]

Every command goes the way of `resd COMMAND …` (`resd.__main__`), with a Hydra of its own, in a folder of its own beside
those that are here. Not covered: torchrun, and what only the end of a process does.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    home = Path.cwd()
    for number, line in enumerate(sys.stdin):
        here = home / f"command_{number}"
        here.mkdir()
        for path in home.glob("[!c]*"):
            (here / path.name).symlink_to(path)
        os.chdir(here)
        before = {path.name for path in here.iterdir()}
        ended = run(json.loads(line))
        left = sorted({path.name for path in here.iterdir()} - before)
        print(json.dumps({**ended, "left": left, "torch": "torch" in sys.modules}), flush=True)


def run(words: list[str]) -> dict[str, Any]:
    """Exit status and what was said, by this process and those that it started."""
    from resd.__main__ import main as resd

    sys.argv = ["resd", *words]
    path, status = list(sys.path), 0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = [os.dup(1), os.dup(2)]
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            status = int(resd() or 0)
        except SystemExit as ended:
            status = int(ended.code or 0)
        except BaseException as error:
            status = 1
            print(f"Traceback: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            sys.path[:] = path
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, before in enumerate(kept, start=1):
                os.dup2(before, number)
                os.close(before)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    return {"status": status, "out": said[0], "err": said[1]}


if __name__ == "__main__":
    main()
