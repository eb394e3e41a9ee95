"""Mathematics with an invented operation, whose rule the problem tells in words. See `task`."""

from resd.envs.invented_math.task import InventedMath

load = InventedMath

__all__ = ["InventedMath", "load"]
