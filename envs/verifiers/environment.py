"""What `task` asks of an environment, whichever of the two interfaces of `verifiers` it is written for.

Rows are plain data, so that a problem can be sent to a process that judges; the environment itself is not sent but
loaded there again.
"""

import asyncio
import signal
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol, TypeVar

from resd.task import Split
from resd.types import Messages, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One task of an environment: `data` is its own row, `privileged` a text that only a teacher may read.

    `number` counts the rows of a data set from 1.
    """

    number: int
    messages: Messages
    data: dict[str, Any]
    family: str = ""
    privileged: str = ""


@dataclass(frozen=True)
class Reply:
    """A response as a server would hand it over: what was said, and what was thought before, if that is apart."""

    content: str
    thinking: str | None = None
    truncated: bool = False


@dataclass(frozen=True)
class Scored:
    """What an environment gave: the weighted sum, each value by name, and a text of its own if it left one.

    `weighted` names the values that the sum is made of; the others are metrics.
    """

    total: float
    values: Mapping[str, float]
    weighted: frozenset[str]
    said: str = ""


class Environment(Protocol):
    """`weights` are those of its reward functions by name; `several` says that it answers, turn by turn."""

    several: bool

    @property
    def weights(self) -> Mapping[str, float]: ...

    def rows(self, split: Split, most: int | None) -> list[Row] | None:
        """The rows of a split, None where it has no such split; `most` of them where they have no end."""

    def follow(self, data: dict[str, Any], *replies: Reply) -> Messages:
        """What it says after these replies; nothing when it is over. Raises what it raises."""

    def score(self, data: dict[str, Any], *replies: Reply) -> Scored:
        """Raises what a reward function raises."""


class Loop:
    """One event loop for all answers of a process, since what an environment makes may belong to its first one."""

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Puts handlers back that an environment replaces when it is made: an interrupt belongs to the run."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def plain(messages: Any, place: str) -> Messages:
    """Chat messages with a role and a text alone, from a text or from messages of either interface.

    Raises UserError, which names `place`, for what is no text, such as an image.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{place} has no prompt: only environments whose rows open the conversation can be trained on")
    return [_plain(message, place) for message in messages]


def _plain(message: Any, place: str) -> dict[str, str]:
    given = message if isinstance(message, Mapping) else message.model_dump()
    role, content = given.get("role"), given.get("content")
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "\n".join(part.get("text") or "" for part in content)
    if role not in ("system", "user", "assistant") or not isinstance(content, str):
        raise UserError(f"{place}: its prompt has a message that is no text of a role ({given!r:.60}): choose another")
    return {"role": role, "content": content}


def exported(module: ModuleType, base: type) -> list[type]:
    """The classes below `base` that a module names in its `__all__`."""
    found = [getattr(module, name, None) for name in getattr(module, "__all__", ())]
    return [each for each in found if isinstance(each, type) and issubclass(each, base) and each is not base]


def solution(answer: Any) -> str:
    """The answer that a row comes with, as a text that a teacher may read; "" where it is no text or number."""
    return str(answer) if isinstance(answer, (str, int, float)) and not isinstance(answer, bool) else ""


def reason(error: Exception) -> str:
    """One line about what a package raised, which may be anything."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'it does not say why':.300}"


def refuse(env: str, problem: str) -> None:
    """Raises UserError, if there is a problem."""
    if problem:
        raise UserError(f"env={env} cannot be used: {problem}; choose one that judges single responses by code")
