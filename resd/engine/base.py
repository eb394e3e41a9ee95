"""What an engine is: it turns token ids into token ids and can be given new weights (design sections 2 and 4.7)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol

from torch import Tensor

from resd.types import Completion, Request

# From where an engine holds an answer to a schema. Thinking must stay free; if its end is no token of its own, nothing
# can tell when to begin.
Guidance = Literal["from the start", "after thinking", "never"]

# Gives further requests. Asked with True, by an engine that has nothing else to do, it waits; then none means the end.
More = Callable[[bool], Sequence[Request]]


class Engine(Protocol):
    """Generates on this rank. Nothing here speaks of text: ids in, ids out.

    Ranks of the same `replica` are one engine and are asked the same; `replicas` engines share out the work.
    """

    replica: int
    replicas: int

    def generate(self, requests: Sequence[Request], more: More | None = None) -> Iterator[tuple[int, Completion]]:
        """Yield `(index into requests, completion)` as completions finish, in any order, each index exactly once.

        `more` is asked between steps for requests that have come up meanwhile; they are numbered on, and start after
        those that wait already.

        The tokens of a request depend on the weights and on that request alone (its seed included), not on the other
        requests, up to floating-point tolerance of the logits. A prompt that leaves no room for a token, or is empty,
        gives an empty truncated completion. Exhaust or drop the iterator before any other call.
        """
        ...

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace every weight: full tensors by Hugging Face parameter name, cast to the engine's dtype.

        Either name of a tied pair will do. An unknown or missing name or a wrong shape is a ValueError, after which the
        engine's weights are undefined until the next complete sync.
        """
        ...

    def sleep(self) -> None:
        """Free the memory that generation needs, weights included, until the next `sync`."""
        ...

    def close(self) -> None:
        """Release everything; the engine is not used again."""
        ...
