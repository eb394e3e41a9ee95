"""A control for RESD: the playbook is given (`algorithm.entries`) and stays as it is.

With rules of another task it tells what a misleading playbook costs; with the right rules, what a perfect one gains.
Reflections are written and read by the teacher as in RESD; nothing is curated or removed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from resd.algorithms import resd
from resd.context.concise import Removals
from resd.context.curate import Curation, Curator
from resd.context.playbook import UNNAMED, Playbook
from resd.settings import Asked
from resd.types import Attempt

if TYPE_CHECKING:
    from resd.observe.run import Run


class Settings(resd.Settings):
    """Those of RESD, and the entries."""

    name: Literal["resd_fixed"]  # type: ignore[assignment]
    entries: Annotated[tuple[str, ...], Field(min_length=1)]
    """the playbook from start to end: ["first rule","second rule"]"""

    def asks(self, problems: int) -> list[Asked]:
        return [each for each in super().asks(problems) if each.phase != "curate"]


class Silent(Curator):
    """Adds nothing."""

    def curate(self, attempts: Sequence[Attempt], playbook: Playbook, step: int) -> Curation:
        return Curation()


class Algorithm(resd.Algorithm):
    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.curator = Silent(self.writer, run.prompts)
        for entry in settings.entries:
            self.playbook.add(UNNAMED, entry, step=0)

    def _open(self, part: str) -> None:
        pass

    def _remove(self, removals: Removals) -> None:
        pass
