"""A control for RESD: every reflection is that of the next failed attempt in the batch.

Everything else is RESD, so what is lost against it is what a reflection says about its own attempt. Batches with a
single failure are left as they are.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from resd.algorithms import resd
from resd.context.playbook import Playbook
from resd.context.reflect import Reflector
from resd.types import Attempt, Reflection

if TYPE_CHECKING:
    from resd.observe.run import Run


class Settings(resd.Settings):
    """Those of RESD."""

    name: Literal["resd_swapped"]  # type: ignore[assignment]


class Swapped(Reflector):
    """Hands the reflections of a batch round by one place."""

    def reflect(self, attempts: Sequence[Attempt], playbook: Playbook) -> list[Reflection | None]:
        reflections = super().reflect(attempts, playbook)
        return reflections[1:] + reflections[:1]


class Algorithm(resd.Algorithm):
    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.reflector = Swapped(self.writer, run.prompts, self.writer.budget)
