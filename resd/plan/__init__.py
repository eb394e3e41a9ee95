"""What one process of a run will hold in memory, from the shapes alone: nothing is loaded to know it.

Pure functions over the sizes of a model (`shape`) and the settings of a run (`estimate`). A run compares them with the
machine before it loads anything (`check`); `python -m resd.plan` prints them for models, devices and lengths at will.
"""

from resd.plan.check import Room, check, longest_prompt, main_memory
from resd.plan.estimate import GB, SIZE, Estimate, estimate, longest_row
from resd.plan.shape import Shape

__all__ = [
    "GB", "SIZE", "Estimate", "Room", "Shape", "check", "estimate", "longest_prompt", "longest_row", "main_memory",
]  # fmt: skip
