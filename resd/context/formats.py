"""The formats in which a model writes reflections, tags and playbook operations, by name.

Every format reads any text without raising: each bad part is counted and skipped, and the good ones survive.
"""

from collections.abc import Callable, Mapping

from resd.context.json_format import JsonFormat
from resd.context.lines_format import LinesFormat
from resd.context.parts import Format

FORMATS: Mapping[str, Callable[[bool], Format]] = {"json": JsonFormat, "lines": LinesFormat}
