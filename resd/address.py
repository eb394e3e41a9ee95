"""An HTTP address that speaks the OpenAI dialect: asked several things at once, with bounded patience.

A busy server (429, 5xx) and a broken connection are tried again, after what `Retry-After` says or a doubling pause; any
other refusal is an answer. Nothing raises once a run has begun: what was not answered is `Failed`, with a reason. The
key of an address, if it wants one, is in the environment. Not covered: streams of tokens, redirects.
"""

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from resd.settings import RemoteSettings
from resd.types import UserError

LONGEST_PAUSE = 60.0  # seconds between two tries, whatever the server asks for
CONNECT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Failed:
    """What comes instead of an answer."""

    reason: str


class _Busy(Exception):
    """Worth another try, after `pause` seconds if the server says so."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class _Refused(Exception):
    """Not worth another try."""


class Address:
    """`whose` (teacher, author) names the settings and the key's variable. `retried` counts tries after the first."""

    def __init__(self, whose: str, url: str, model: str | None, patience: RemoteSettings) -> None:
        self.name = f"{whose}.url={url}"
        self.variable = f"RESD_{whose.rpartition('.')[2].upper()}_KEY"
        self.url, self.model, self.patience = url, model, patience
        self.retried = 0
        self._gone = threading.Event()
        self._lock = threading.Lock()
        key = os.environ.get(self.variable)
        self.client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(patience.timeout, connect=min(CONNECT, patience.timeout)),
            limits=httpx2.Limits(max_connections=patience.at_once),
        )

    def open(self) -> Mapping[str, Any]:
        """What the server says about its model. Raises UserError if it does not answer, or has no such model."""
        try:
            answer = self._once("models", None)
            cards = {card["id"]: card for card in answer["data"]}
            first = next(iter(cards))
        except (_Busy, _Refused, httpx2.TransportError, httpx2.InvalidURL) as error:
            raise UserError(
                f"{self.name} does not answer ({_said(error)}): start the server there, or write http://HOST:PORT/v1 "
                f"(a key is read from {self.variable})"
            ) from None
        except (KeyError, TypeError, AttributeError, StopIteration):
            raise UserError(f"{self.name}/models names no model: write the http://HOST:PORT/v1 of a server") from None
        if self.model is not None and self.model not in cards:
            raise UserError(f"{self.name} has no model {self.model}: write one of {', '.join(map(str, cards))}")
        self.model = self.model or first
        return cards[self.model]

    def ask(self, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | Failed]:
        """The answers to all of them, in order."""
        self._gone.clear()
        with ThreadPoolExecutor(self.patience.at_once) as threads:
            try:
                return list(threads.map(lambda body: self._patiently(path, body), bodies))
            except BaseException:
                self._gone.set()
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def take_retried(self) -> int:
        """How many tries followed a first one since the last call."""
        retried, self.retried = self.retried, 0
        return retried

    def close(self) -> None:
        self.client.close()

    def _patiently(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | Failed:
        tries = 0
        while True:
            tries += 1
            try:
                return self._once(path, {"model": self.model, **body})
            except _Refused as refused:
                return Failed(_said(refused))
            except (_Busy, httpx2.TransportError) as busy:
                reason, pause = _said(busy), getattr(busy, "pause", None)
                connected = isinstance(busy, _Busy)
            if tries > self.patience.retries or self._gone.is_set():
                if not connected:
                    self._gone.set()  # nobody is there: the others need not wait as long to find out
                return Failed(f"{reason}, {tries} tries")
            with self._lock:
                self.retried += 1
            self._gone.wait(min(2.0 ** (tries - 1) if pause is None else pause, LONGEST_PAUSE))

    def _once(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        content, deadline = bytearray(), time.monotonic() + self.patience.timeout
        with self.client.stream("GET" if body is None else "POST", f"{self.url}/{path}", json=body) as response:
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > deadline:  # the client's own limit is one of each read
                    raise _Busy(f"no whole answer in {self.patience.timeout:g} s")
        status = response.status_code
        if status in (408, 429) or status >= 500:
            raise _Busy(f"status {status}", _pause(response.headers.get("retry-after")))
        if not response.is_success:
            raise _Refused(f"status {status}: {_first_line(content)}")
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise _Refused("half an answer")
        return answer


def _pause(header: str | None) -> float | None:
    """Seconds from a `Retry-After`: a number of them, or a date."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _first_line(content: bytes | bytearray) -> str:
    """What an error says, for a sentence."""
    text = content.decode("utf-8", "replace")
    try:
        said = json.loads(text)
        said = said.get("error", said)
        text = said["message"] if isinstance(said, dict) else str(said)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return next((line.strip()[:200] for line in str(text).splitlines() if line.strip()), "no reason given")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
