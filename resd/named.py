"""What a setting names by its path: `package.module:name`, or `file.py:name` for a file wherever it lies.

Layer 0. A module is found where Python finds it: installed, or where it was started. The folder of a file is added to
where Python looks, so that processes which a run starts find it too.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from resd.types import UserError


def named(key: str, path: str, kind: str = "function") -> Any:
    """The thing of this `kind` at `path`. Raises UserError, which says that it is the value of `key`."""
    module, _, name = path.rpartition(":")
    try:
        return getattr(_module(module or name), name)
    except Exception as error:  # a user's module may raise anything
        reason = str(error) if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: {error}"
        reason = " ".join(reason.split())
        write = f"write package.module:{kind} or file.py:{kind}"
        raise UserError(f"{key}={path!r} cannot be imported ({reason}): {write}") from None


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    file = Path(name).expanduser().resolve()
    if not file.is_file():
        raise ImportError(f"there is no file {file}")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    module = importlib.import_module(file.stem)
    if Path(module.__file__ or "").resolve() != file:
        raise ImportError(f"Python has another module {file.stem}, rename the file")
    return module
