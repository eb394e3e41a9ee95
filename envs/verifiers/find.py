"""Finds an environment by its name and says which interface it has. Everything that goes wrong here is a UserError.

A name is that of an installed package, with dashes or without, or `owner/name` as hubs write it, or the path of a
module, or `module:function` where the function that makes the environment has another name than `load_environment`.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from resd.envs.verifiers.environment import Environment, exported, reason, signals_kept
from resd.named import named
from resd.types import UserError

NEEDED = "task=verifiers needs its package: run pip install 'verifiers>=0.3,<0.5'"


def load(env: str, args: Mapping[str, Any]) -> Environment:
    """The environment `env`, made with `args`. Raises UserError when it cannot be used."""
    try:
        library = importlib.import_module("verifiers")
    except ImportError:
        raise UserError(NEEDED) from None
    with signals_kept():
        if ":" in env:
            _need_classic(library, env)
            return _classic(env, named("env", env), args)
        module = _module(library, env)
        if _exports_taskset(module):
            from resd.envs.verifiers.taskset import Taskset

            return Taskset(env, module, args)
        if not hasattr(module, "load_environment"):
            raise UserError(f"env={env}: {module.__name__} has neither load_environment nor a Taskset in its __all__")
        _need_classic(library, env)
        return _classic(env, module.load_environment, args)


def _classic(env: str, make: Any, args: Mapping[str, Any]) -> Environment:
    from resd.envs.verifiers.classic import Classic, quiet

    try:
        with quiet():
            made = make(**args)
    except UserError:
        raise
    except Exception as error:  # no network, no key, a wrong argument: a package may raise anything
        raise UserError(f"env={env} cannot be made with args={dict(args)}: {reason(error)}") from None
    return Classic(env, made)


def _module(library: ModuleType, env: str) -> ModuleType:
    name = env.rsplit("/", 1)[-1].split("@", 1)[0].replace("-", "_")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(
                f"env={env}: there is no module {name}: install the environment's package, or write package.module "
                "if it is called otherwise"
            ) from None
        raise UserError(f"env={env} needs the package {error.name}: run pip install {error.name}") from None
    except Exception as error:
        advice = "" if _has_classic(library) else "; if it is written for verifiers before 0.4, pip install that"
        raise UserError(f"env={env} cannot be imported: {reason(error)}{advice}") from None


def _exports_taskset(module: ModuleType) -> bool:
    """Whether a module has the newer interface."""
    try:
        from verifiers.v1 import Taskset
    except (ImportError, AttributeError):  # an older one
        return False
    return bool(exported(module, Taskset))


def _has_classic(library: ModuleType) -> bool:
    return hasattr(library, "SingleTurnEnv")


def _need_classic(library: ModuleType, env: str) -> None:
    if not _has_classic(library):
        raise UserError(
            f"env={env} is written for the interface that verifiers had before 0.4 (load_environment), and "
            f"{getattr(library, '__version__', 'yours')} is installed: run pip install 'verifiers>=0.3,<0.4'"
        )
