"""The directory of one run: who owns it, what it holds when a run begins or goes on, and what its disk says.

Opening for a run that goes on after update `step` leaves nothing in it that comes later: rows, attempts and playbook
events that the run will write again are cut off. If there are later checkpoints too (`resume=` an older one, or damaged
ones), that branch is kept whole in `abandoned/after_step_…`, itself laid out as a run directory. A kill in between
leaves a state from which the same command goes on. `rollbacks.json` says how a run went back by itself, and is written
before it does. Rank 0 does all of it; `lock` says which owners it can keep apart.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resd import again, dist, files
from resd.storage.lock import Lock
from resd.types import UserError

ROLLBACKS = "rollbacks.json"
FOLDERS = ("attempts", "evaluations")  # of one file an update
LOGS = ("metrics.jsonl", "playbook.jsonl")
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)


class RunDir:
    """Held by this process group until `close`. Collective. Raises UserError if another process holds it."""

    def __init__(self, path: str) -> None:
        self.path = Path(dist.broadcast(path))
        self.notes: list[str] = []  # for people, rank 0's
        self.lock: Lock | None = None
        dist.on_first(self._own)

    def _own(self) -> None:
        with self.told():
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = Lock(self.path, lambda text: print(text, flush=True))
            if not self.lock.held:
                self.notes.append("this file system has no locks: let no second run write here")

    def close(self) -> None:
        if self.lock is not None:
            self.lock.close()

    def rollbacks(self) -> list[dict[str, Any]]:
        """How the run went back so far: `to` which update, with what part of the learning rate (`lr_scale`), and
        whether that is `done`. Collective."""
        return dist.on_first(self._rollbacks)

    def _rollbacks(self) -> list[dict[str, Any]]:
        file = self.path / ROLLBACKS
        try:
            records = json.loads(file.read_bytes()) if file.exists() else []
            return [{"to": int(r["to"]), "lr_scale": float(r["lr_scale"]), "done": bool(r["done"])} for r in records]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file} is not what a run writes: restore it, or remove it") from None

    def add_rollback(self, to: int, lr_scale: float) -> None:
        """Note that the run goes back; a process that is killed before it has does so when it is started again."""
        records = [*self.rollbacks(), {"to": to, "lr_scale": lr_scale, "done": False}]
        dist.on_first(lambda: files.replace(self.path / ROLLBACKS, json.dumps(records)))

    def check(self, start: Path | None, step: int, *, fresh: bool) -> None:
        """Raises UserError if it holds another run than `start`, after update `step`, belongs to. Collective.

        `fresh` wants no run in it.
        """
        dist.on_first(lambda: self._check(start, step, fresh))

    def _check(self, start: Path | None, step: int, fresh: bool) -> None:
        if fresh and (self.path / "metrics.jsonl").exists():
            raise UserError(f"run_dir={self.path} holds a run already: write resume=auto, or choose another run_dir")
        if start is not None and start.resolve().parent != (self.path / "checkpoints").resolve():
            self._refuse_other_history(start, step)

    def begin(self, step: int | None, settings: str) -> None:
        """Make it ready for a run that goes on after update `step`, or begins (None). Collective."""
        dist.barrier()  # every rank has read what an earlier process left
        dist.on_first(lambda: self._begin(-1 if step is None else step, settings))

    def _begin(self, step: int, settings: str) -> None:
        with self.told():
            for folder in ("checkpoints", *FOLDERS):
                (self.path / folder).mkdir(exist_ok=True)
            for leftover in (self.path / "checkpoints").glob(".step_*"):
                files.remove(leftover)
            self._abandon(max(step, 0))
            for file in self._later(step):
                file.unlink()
            for name in LOGS:
                unread = files.cut(self.path / name, step)
                if unread:
                    self.notes.append(f"{unread} line(s) of {self.path / name} could not be read and were dropped")
            files.replace(self.path / "config.yaml", settings)
            records = self._rollbacks()
            if any(not record["done"] for record in records):
                files.replace(self.path / ROLLBACKS, json.dumps([{**record, "done": True} for record in records]))

    def _refuse_other_history(self, start: Path, step: int) -> None:
        """What the directory says of updates up to `step` is not what led to a checkpoint from elsewhere."""
        rows = files.steps(self.path / "metrics.jsonl")
        if any(number <= step for number in [*files.numbered(self.path / "checkpoints"), *rows]):
            raise UserError(
                f"resume={start} is not a checkpoint of the run in run_dir={self.path}: "
                f"write resume={self.path}/checkpoints/step_N, or choose another run_dir"
            )

    def _abandon(self, step: int) -> None:
        """Move what comes after `step` away, if that is more than what a killed process had written since."""
        part = self.path / "abandoned" / ".part"
        later = [p for n, p in files.numbered(self.path / "checkpoints").items() if n > step]
        if not later and not part.exists():
            return
        for name in ("checkpoints", *FOLDERS):
            (part / name).mkdir(parents=True, exist_ok=True)
        for name in (*LOGS, "config.yaml", "playbook.md"):
            files.copy(self.path / name, part / name)
        files.sync_tree(part)
        for path in (*reversed(later), *reversed(self._later(step))):
            path.rename(part / path.parent.name / path.name)
        final = part.rename(files.free(part.with_name(f"after_step_{step:06d}")))
        files.sync(final.parent)
        self.notes.append(f"what was made after update {step} is kept in {final}")

    def _later(self, step: int) -> list[Path]:
        """Files of attempts after `step`."""
        numbered = (files.numbered(self.path / folder, ".jsonl") for folder in FOLDERS)
        return [path for found in numbered for number, path in found.items() if number > step]

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what the disk of this directory refuses into a UserError."""
        try:
            yield
        except OSError as error:
            here = str(error.filename or "").startswith(str(self.path))
            if not here and error.errno not in DISK:
                raise
            whole = list(files.numbered(self.path / "checkpoints")) if self.path.is_dir() else []
            kept = f"everything up to update {whole[-1]} is kept, and " if whole else ""
            raise UserError(
                f"run_dir={self.path} cannot be written ({files.reason(error)}): make room or mend this; "
                f"{kept}go on with: {again.command(self.path)}"
            ) from error
