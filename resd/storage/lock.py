"""One owner for a folder: a file in it that the kernel keeps locked for a process until that process is gone.

Not covered: other machines where the file system does not share `flock` (NFS before version 4, mounts with `nolock`);
file systems without `flock`, where nothing is locked and `Lock.held` is False; and folders with two names that are two
mounts of one disk.
"""

import datetime
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from resd.types import UserError

NAME = ".lock"
PATIENCE = 5.0  # seconds for an owner that is just ending


class Lock:
    """Held from here to `close`, or to the end of the process however it ends; forked children do not keep it."""

    def __init__(self, folder: Path, say: Callable[[str], None], patience: float | None = None) -> None:
        """Raises UserError, after `patience` seconds, if another process holds it."""
        self.file = (folder / NAME).open("a+")
        self.held = True
        patience = PATIENCE if patience is None else patience
        os.register_at_fork(after_in_child=self.file.close)
        deadline, waiting = time.monotonic() + patience, False
        while not self._take():
            if time.monotonic() > deadline:
                owner = self._owner()
                self.file.close()
                raise UserError(
                    f"run_dir={folder} belongs to a run that is still going ({owner}): "
                    "wait for it, end it, or choose another run_dir"
                )
            if not waiting:
                say(f"waiting up to {patience:g} s for the owner of {folder} ({self._owner()})")
            waiting = True
            time.sleep(0.1)
        if self.held:
            self.file.truncate(0)
            since = datetime.datetime.now().isoformat(" ", "seconds")
            self.file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n")
            self.file.flush()

    def _take(self) -> bool:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            self.held = False  # this file system knows no locks
        return True

    def _owner(self) -> str:
        try:
            self.file.seek(0)
            owner = json.loads(self.file.read())
            return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        except (ValueError, KeyError, TypeError):
            return "it has not said who it is"

    def close(self) -> None:
        self.file.close()
