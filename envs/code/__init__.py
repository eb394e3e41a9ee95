"""Small Python functions, written by the model and judged in the sandbox. See `task`."""

from resd.envs.code.task import Code

load = Code

__all__ = ["Code", "load"]
