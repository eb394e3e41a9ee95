"""Environments written for the package `verifiers`, as tasks of one turn. See `task`."""

from resd.envs.verifiers.task import Verifiers

load = Verifiers

__all__ = ["Verifiers", "load"]
