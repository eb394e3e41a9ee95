"""Environments written for the package `verifiers`, as tasks. See `task`."""

from resd.envs.verifiers.task import Verifiers

load = Verifiers

__all__ = ["Verifiers", "load"]
