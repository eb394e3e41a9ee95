"""Short pieces of office work in a house style that nobody states. See `task`."""

from resd.envs.house_style.task import HouseStyle

load = HouseStyle

__all__ = ["HouseStyle", "load"]
