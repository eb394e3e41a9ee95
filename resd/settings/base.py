"""A section of the configuration, and the kinds of values that several have."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

ROOT = Path(__file__).resolve().parents[2]


def shipped(path: str) -> str:
    path = os.path.expanduser(path)
    beside = ROOT / path
    return str(beside) if not Path(path).is_dir() and beside.is_dir() else path


def _address(url: str) -> str:
    if not re.match(r"https?://[^/\s]", url):
        raise ValueError(f"{url} is no address: write http://HOST:PORT/v1")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_address)]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Placement = Literal["template", "system", "before", "after", "turn"]


class Section(BaseModel):
    """A part of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: Any) -> Any:
        """As a text it is refused with the words for a text that is none."""
        if not isinstance(values, dict):
            return values
        types = {name: _types(field.annotation) for name, field in cls.model_fields.items()}
        numbers = [name for name, found in types.items() if {int, float} & found and bool not in found]
        wrong = {name for name in numbers if isinstance(values.get(name), bool)}
        return {name: str(value).lower() if name in wrong else value for name, value in values.items()}


def _types(annotation: Any) -> set[Any]:
    return {annotation}.union(*map(_types, get_args(annotation)))
