"""A section of the configuration, and the kinds of values that several have."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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
