"""BouncingSim: write a function that predicts where polygons are that bounce off walls and each other.

One of the paper's tasks. A scene is a regular polygon as container with 3 (easy) or 4 to 5 (medium) smaller polygons
that fly in it; a program must give their positions at any time:

    def predict_position(t):
        return [[835.54, 794.65], [729.83, 816.15], [742.11, 704.34]]

It is called at 15 times, 0.1 s to 1.5 s, and passes a test if its balls are on average at most 50 m off. Programs run
in `resd.envs.sandbox`, which learns the times and never the true positions.

Like the original: scenes, times, tolerance, limit of 1 s a call, and what the prompt and `feedback=official` tell.
Different: the true motion is computed exactly (`simulator`) rather than in small steps; scenes whose outcome hangs on
a hair are left out (`scenes`); a program may not use more of Python than `resd.envs.sandbox` offers, but is not refused
for words in it; nothing but plain numbers count as positions; and by default the feedback gives no true position away.
"""

from resd.envs.bouncingsim.simulator import simulate
from resd.envs.bouncingsim.task import BouncingSim

load = BouncingSim

__all__ = ["BouncingSim", "load", "simulate"]
