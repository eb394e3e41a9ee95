"""The command that goes on with the run of this process, as a person would type it.

Not covered: what torchrun was told beyond the number of processes, which it tells none of them.
"""

import os
import shlex
import sys
from pathlib import Path

from resd.word import key_value

_run: list[Path] = []  # of this process, once it has a directory


def remember(run_dir: Path) -> None:
    """From here on this process has a run that can be gone on with."""
    _run[:] = [run_dir]


def forget() -> None:
    """Nothing of it is left."""
    _run.clear()


def advice() -> str:
    """The rest of a sentence about a process that ends early."""
    return f"go on where it was with: {command(_run[0])}" if _run else "there is nothing to go on with"


def command(run_dir: Path) -> str:
    """The command of this process with its real `run_dir`, quoted for a shell; `resume` is left out, for it is auto."""
    return _with("run_dir", run_dir, ("run_dir", "resume"))


def sweep(sweep_dir: Path) -> str:
    """The command of this process with its real `hydra.sweep.dir`: every job goes on."""
    return _with("hydra.sweep.dir", sweep_dir, ("hydra.sweep.dir",))


def _with(key: str, folder: Path, dropped: tuple[str, ...]) -> str:
    words = [word for word in sys.argv[1:] if key_value(word)[0] not in dropped]
    return f"{_program()} {shlex.join([*words, f'{key}={_value(str(folder))}'])}"


def _value(text: str) -> str:
    """As Hydra and `resd.commandline` read it: quoted, where it could be more than a text."""
    plain = all(letter.isalnum() or letter in "/._-:~" for letter in text)
    return text if plain and not text.replace(".", "").isdigit() else '"' + text.replace('"', r"\"") + '"'


def _program() -> str:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        nodes, local = int(os.environ.get("GROUP_WORLD_SIZE", "1")), os.environ.get("LOCAL_WORLD_SIZE", "1")
        where = " … (on each machine, as before)" if nodes > 1 else ""
        return f"torchrun{where}{'' if local == '1' else f' --nproc-per-node {local}'} -m resd.train"
    started = Path(sys.orig_argv[1]).name if len(sys.orig_argv) > 1 else ""
    return {"resd": "resd train"}.get(started, "python -m resd.train")
