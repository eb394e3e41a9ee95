"""The page of runs that go on, on this machine alone: `python -m resd.report RUN --live`.

It is served on 127.0.0.1 under an address with a random token, and an event tells the page when there is more to draw.
Nothing else is there to be had: no path leads to a file, and one without the token is refused.
"""

import hashlib
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from resd.report.groups import group_runs
from resd.report.html import ANSWERS_BYTES, ATTEMPTS_BYTES, policy, render
from resd.report.read import WORTH, read_runs
from resd.types import UserError

WATCHED = ("metrics.jsonl", "playbook.jsonl", "config.yaml", WORTH, "attempts", "evaluations")
LOOKS = 0.5  # seconds between two looks at the files
SIGN_OF_LIFE = 10.0  # seconds
SHARE = 0.25  # of one processor, at most, that drawing pages may take


class Live:
    """The newest page about some runs, made when it is asked for. Raises UserError if a path is not a run directory."""

    def __init__(self, paths: Sequence[Path], title: str, across: Sequence[str]) -> None:
        self.paths, self.title, self.across = list(paths), title, list(across)
        self.lock = threading.Lock()
        self.made = ""
        self.rested = 0.0
        self.page = b""
        self.newest()

    @property
    def version(self) -> str:
        """Another text after every change of the files."""
        return hashlib.sha256(
            repr([_looks(path / name) for path in self.paths for name in WATCHED]).encode()
        ).hexdigest()

    def newest(self) -> bytes:
        """The page. One that cannot be made, because a file is half there, leaves the one before."""
        with self.lock:
            version, start = self.version, time.thread_time()
            if version != self.made:
                try:
                    groups = group_runs(read_runs(self.paths), self.across)
                    texts = {"attempts_bytes": ATTEMPTS_BYTES, "answers_bytes": ANSWERS_BYTES}
                    self.page = render(groups, title=self.title, version=version, **texts).encode("utf-8", "replace")
                except (UserError, OSError):
                    if not self.page:
                        raise
                self.made = version
                self.rested = time.monotonic() + (time.thread_time() - start) / SHARE
            return self.page

    def changed(self, version: str) -> str | None:
        """Whether there is more to draw than what had this version, and it is time to: its version."""
        newest = self.version
        return newest if newest != version and time.monotonic() >= self.rested else None


class Server(ThreadingHTTPServer):
    """Serves one page at `address` until it is shut down."""

    daemon_threads = True

    def __init__(self, live: Live) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.live = live
        self.token = secrets.token_urlsafe(24)
        self.ended = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes while it is answered is no matter."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def shutdown(self) -> None:
        self.ended.set()
        super().shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "resd", ""

    def do_GET(self) -> None:
        token, _, rest = self.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode("utf-8", "surrogateescape"), self.server.token.encode()):
            self._answer(HTTPStatus.FORBIDDEN, b"This address lacks the token that the command has printed.\n")
        elif not rest and self.path.endswith("/"):
            self._answer(HTTPStatus.OK, self.server.live.newest(), "text/html; charset=utf-8")
        elif rest.startswith("events/"):
            self._tell(rest.removeprefix("events/"))
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"There is only the page.\n")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self._head(status, kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _head(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", f"{policy(live=True)}; frame-ancestors 'none'")

    def _tell(self, version: str) -> None:
        """Events, until the browser goes or the server ends."""
        self._head(HTTPStatus.OK, "text/event-stream")
        self.end_headers()
        said = time.monotonic()
        try:
            while not self.server.ended.wait(LOOKS):
                if newest := self.server.live.changed(version):
                    version = newest
                    self.wfile.write(f"data: {version}\n\n".encode())
                    said = time.monotonic()
                elif time.monotonic() - said > SIGN_OF_LIFE:  # without it nobody notices that the browser has gone
                    self.wfile.write(b": still there\n\n")
                    said = time.monotonic()
        except OSError:
            pass

    def log_message(self, format: str, *args: object) -> None:
        pass


def _looks(path: Path) -> tuple[int, int] | None:
    """Of a file or a folder; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def serve(live: Live) -> None:
    """Say where the page is, and serve it until Ctrl-C."""
    with Server(live) as server:
        print(f"{server.address} is drawn as the run goes on; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.ended.set()
            print("\nended" if sys.stdout.isatty() else "ended")
