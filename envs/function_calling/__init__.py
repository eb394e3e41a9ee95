"""Function calling: answer a request with calls of everyday services, generated or from rows. See `task`."""

from resd.envs.function_calling.task import FunctionCalling

load = FunctionCalling

__all__ = ["FunctionCalling", "load"]
