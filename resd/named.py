"""What a setting names by its path: `package.module:name`, or `file.py:name` for a file wherever it lies.

Layer 0. A module is found where Python finds it: installed, or where it was started. The folder of a file is added to
where Python looks, so that processes which a run starts find it too.
"""

import importlib
import os
import sys
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from resd.types import UserError

MAIN = 'put what a script does behind if __name__ == "__main__"'


def named(key: str, path: str, kind: str = "function", advice: str = "") -> Any:
    """The thing of this `kind` at `path`. Raises UserError, which says that it is the value of `key`, whatever the
    module raises: it is a user's own. `advice` is what to do about a path that leads nowhere."""
    module, _, name = path.rpartition(":")
    advice = advice or f"write package.module:{kind} or file.py:{kind}"
    what = f"{key}={path!r} cannot be imported"
    folder, words = os.getcwd(), sys.argv
    sys.argv = [module or name]  # the run's words are not for a file that parses some at its import
    try:
        found = _module(module or name)
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise UserError(f"{what} ({place}: {error.msg}): mend that line") from None
    except SystemExit as error:  # a script without a main guard
        raise UserError(f"{what} (it exits with status {error.code}): {MAIN}") from None
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        there = missing is None or not f"{module}.".startswith(f"{missing}.")
        remedy = "mend or install what it imports" if there and module else advice
        said = str(error) if isinstance(error, ImportError | ValueError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{what} ({' '.join(said.split())}): {remedy}") from None
    finally:
        sys.argv = words
        os.chdir(folder)  # relative paths of the run stay what they are
    try:
        return attrgetter(name)(found)
    except AttributeError as error:
        raise UserError(f"{what} ({error}): {advice}") from None


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    file = Path(name).expanduser().resolve()
    if not file.is_file():
        raise ModuleNotFoundError(f"there is no file {file}", name=name)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    module = importlib.import_module(file.stem)
    if Path(module.__file__ or "").resolve() != file:
        raise ModuleNotFoundError(f"Python has another module {file.stem}, rename the file", name=name)
    return module
