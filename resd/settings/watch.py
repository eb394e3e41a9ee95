"""The sections about what a run watches in its student."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from resd.settings.base import Section


class AlarmSettings(Section):
    """When answers or gradients count as changed for the worse (`resd.alarm`)."""

    reference: Annotated[int, Field(ge=4)]
    """first updates that later ones are compared with"""
    rollbacks: Annotated[int, Field(ge=0)]
    """how often a run may go back with on_alarm=rollback"""
    lr_factor: Annotated[float, Field(gt=0, lt=1)]
    """what the learning rate is multiplied with each time"""


class StyleSettings(Section):
    """How the student words its responses (`resd.context.style`)."""

    markers: list[str]
    """words and phrases of doubt that are counted; none: nothing is"""
    spare: bool
    """whether a teacher has no say about the tokens of markers"""

    @field_validator("markers")
    @classmethod
    def _words(cls, markers: list[str]) -> list[str]:
        if not all(marker.strip() for marker in markers):
            raise ValueError("style.markers has one without a word: leave it out")
        return markers

    @model_validator(mode="after")
    def _something(self) -> "StyleSettings":
        if self.spare and not self.markers:
            raise ValueError("style.spare wants markers to spare: write style.markers=[wait,hmm] or leave it out")
        return self
