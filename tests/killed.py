"""Train in forked children that kill themselves at the n-th operation on files of their run directory.

    python killed.py PLAN.json     # {"arguments": [...], "run_dir": "...", "kills": [12, 40], "count": "FILE" or null}

Children are killed one after the other by SIGKILL, in the same directory; a last one runs to the end. Before an append
to a log the killed child leaves half a line, as a kill in the middle of a write would. A child that reaches its end
before its kill counts as ended. Prints one JSON object: how each child ended, and how many operations the last one did.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

import resd.session  # noqa: F401 imported once, before the children part
from resd.config import CONF, validate
from resd.train import train

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}


def watch(run_dir: str, kill_at: int | None, report: int) -> None:
    """Count what changes files of `run_dir`, and kill this process at number `kill_at`."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in CHANGES:
            return
        path = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else ""
        if not str(path).startswith(run_dir):
            return
        count += 1
        os.pwrite(report, f"{count:08}".encode(), 0)
        if count == kill_at:
            if event == "open" and arguments[2] & os.O_APPEND and str(path).endswith(".jsonl"):
                descriptor = os.open(os.fsencode(path) + b"", os.O_WRONLY | os.O_APPEND)
                os.write(descriptor, b'{"step": 1, "ki\xff')
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(plan: dict[str, Any], kill_at: int | None, report: int) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            with initialize_config_dir(str(CONF), version_base="1.3"):
                config = validate(compose("config", plan["arguments"]))
            watch(plan["run_dir"], kill_at, report)
            train(config)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    report = os.open(sys.argv[1] + ".count", os.O_RDWR | os.O_CREAT)
    ends = [child(plan, kill_at, report) for kill_at in [*plan["kills"], None]]
    print(json.dumps({"ends": ends, "operations": int(os.pread(report, 8, 0))}))


if __name__ == "__main__":
    main()
