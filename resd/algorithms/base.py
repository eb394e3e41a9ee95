"""What the training loop asks of an algorithm."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from resd.types import Attempt, Problem


class Algorithm(Protocol):
    """Constructed as `Algorithm(run, settings)`; its state is JSON and goes into every checkpoint."""

    def update(self, problems: Sequence[Problem]) -> tuple[list[Attempt], dict[str, float]]:
        """One update (number `run.step`) on these problems: its attempts and metrics."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...
