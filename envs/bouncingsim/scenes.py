"""Scenes drawn like the published ones: regular polygons of 3 to 6 sides that fly in a regular polygon of 3 to 6 sides.

The parameters and the order of checks are those of the published generator, the draws are not. One thing differs:
scenes whose outcome hangs on a hair are left out. The original compares two step sizes of its simulator, which finds
few of them; here a scene must keep its positions when bodies start 5 cm elsewhere and are 2 cm larger or smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import cos, dist, hypot, pi, sin
from random import Random
from typing import Any

from resd.envs.bouncingsim.simulator import Facts, simulate
from resd.task import Split

TIMES = tuple(round(0.1 * number, 1) for number in range(1, 16))


@dataclass(frozen=True, slots=True)
class Level:
    """How many bodies at least and at most, how fast (m/s), and how many scenes in each split."""

    bodies: tuple[int, int]
    speeds: tuple[float, float]
    sizes: Mapping[Split, int]


LEVELS = {
    "easy": Level((3, 3), (400, 600), {"train": 640, "test": 100}),
    "medium": Level((4, 5), (600, 800), {"train": 320, "test": 100}),
}
_CENTRE, _CONTAINER, _BODY = 750, 375.0, 20.0  # m; both radii are circumradii
_MARGIN, _APART_FIRST, _APART = 5, 44, 45  # m, of centres: from the walls besides the radius; before and after a shift
_SHIFT = 40
_DRAWS, _MOVED, _RESIZED, _KEPT = 6, 0.05, 0.02, 10.0  # of the check that a scene is steady, m


@cache
def draw_split(level: str, split: Split, seed: int) -> tuple[Facts, ...]:
    """The scenes of one split, the same on every machine; some 5 to 10 ms a scene."""
    return tuple(draw(level, f"{seed}:{level}:{split}:{number}") for number in range(LEVELS[level].sizes[split]))


def draw(level: str, seed: str) -> Facts:
    """One scene."""
    random = Random(seed)  # seeding by text hashes with SHA-512: the same under every PYTHONHASHSEED
    while True:
        facts = _candidate(LEVELS[level], random)
        if facts and is_steady(facts, random):
            return facts


def is_steady(facts: Facts, random: Random) -> bool:
    """Whether small changes to starts and sizes leave every body about where it was, at all times that are asked."""
    exact = simulate(facts, TIMES)
    for _ in range(_DRAWS):
        changed = [_nudged(body, random) for body in facts["objects"]]
        moved = simulate({**facts, "objects": changed}, TIMES)
        if any(mean_distance(a, b) > _KEPT for a, b in zip(exact, moved, strict=True)):
            return False
    return True


def mean_distance(a: list[list[float]], b: list[list[float]]) -> float:
    """The mean over bodies of the distance between two sets of positions, in metres."""
    return sum(map(dist, a, b)) / len(a)


def _nudged(body: Mapping[str, Any], random: Random) -> dict[str, Any]:
    position = [coordinate + random.uniform(-_MOVED, _MOVED) for coordinate in body["position"]]
    radius = body["circumradius_m"] + random.uniform(-_RESIZED, _RESIZED)
    return {**body, "position": position, "circumradius_m": radius}


def _candidate(level: Level, random: Random) -> Facts | None:
    count, sides = random.randint(*level.bodies), random.randint(3, 6)
    room = _CONTAINER * cos(pi / sides) - _BODY - _MARGIN
    centres: list[tuple[float, float]] = []
    for _ in range(count):
        for _ in range(200):
            radius, angle = random.uniform(0, room), random.uniform(0, 2 * pi)
            centre = radius * cos(angle), radius * sin(angle)
            if all(dist(centre, other) >= _APART_FIRST for other in centres):
                centres.append(centre)
                break
        else:
            return None
    objects = []
    for index, (x, y) in enumerate(centres):
        speed, angle = random.uniform(*level.speeds), random.uniform(0, 2 * pi)
        centres[index] = x, y = x + random.uniform(-_SHIFT, _SHIFT), y + random.uniform(-_SHIFT, _SHIFT)
        objects.append(
            {
                "index": index + 1,
                "sides": random.randint(3, 6),
                "circumradius_m": _BODY,
                "position": [round(_CENTRE + x), round(_CENTRE + y)],
                "velocity": [round(speed * cos(angle), 2), round(speed * sin(angle), 2)],
            }
        )
    if any(dist(a, b) < _APART for a, b in combinations(centres, 2)) or any(hypot(*c) > room for c in centres):
        return None
    container = {"sides": sides, "circumradius_m": _CONTAINER, "center": [_CENTRE, _CENTRE], "orientation_rad": 0.0}
    return {"container": container, "objects": objects}
