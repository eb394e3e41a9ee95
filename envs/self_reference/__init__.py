"""Seven statements about how many of the seven are true: in how many ways can that be? See `task`."""

from resd.envs.self_reference.task import SelfReference

load = SelfReference

__all__ = ["SelfReference", "load"]
