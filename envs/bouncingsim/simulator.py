"""Exact motion of convex polygons that bounce in a convex polygon, from event to event.

Bodies never rotate, walls do not move, nothing pulls, every contact is elastic and without friction, and the mass of a
body is its area. So bodies fly straight between contacts, and the time of the next contact is the root of a linear
function: of the distance of a body's foremost corner from a wall, or, for two bodies, of the distance of their relative
position from the sides of the Minkowski difference of their shapes.

    positions = simulate(facts, [0.1, 0.2])            # times x bodies x 2, in metres

`facts` are those of a scene: `container` and `objects`, each with `sides` and `circumradius_m`; the container with
`center`, the objects with `position` and `velocity` (m/s); the first corner lies in direction `orientation_rad` (0 if
absent). What the task's scenes never have is refused: gravity, a container that turns or moves, a body that spins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import cos, inf, isfinite, pi, sin
from typing import Any

from resd.types import UserError

Facts = Mapping[str, Any]
Vector = tuple[float, float]
_NEAR = 1e-9  # seconds that a contact may lie in the past, by rounding
_MOST = 100_000  # contacts: more of them mean that a body is stuck in a corner


@dataclass(slots=True)
class Body:
    """A moving polygon: position and velocity of its centre, its mass, and its corners relative to the centre."""

    x: float
    y: float
    vx: float
    vy: float
    mass: float
    corners: list[Vector]


@dataclass(frozen=True, slots=True)
class Contact:
    """At `time` body `first` met body `second`, or a wall (None). Bodies are counted from 0."""

    time: float
    first: int
    second: int | None


def simulate(facts: Facts, times: Sequence[float]) -> list[list[list[float]]]:
    """The centres of all bodies at each of `times` (seconds, in any order, not negative): times x bodies x 2.

    About 1 ms for a scene of the task. Raises UserError for facts that are not those of such a scene.
    """
    return trace(facts, times)[0]


def trace(facts: Facts, times: Sequence[float]) -> tuple[list[list[list[float]]], list[Contact]]:
    """Positions as from `simulate`, and every contact up to the last of `times`, in order."""
    if not all(0 <= time < inf for time in times):
        raise UserError("times have to be numbers of seconds from 0 on")
    scene = Scene(facts)
    found: dict[float, list[list[float]]] = {}
    for time in sorted(set(times)):
        scene.advance(time)
        found[time] = [[body.x, body.y] for body in scene.bodies]
    return [found[time] for time in times], scene.contacts


class Scene:
    """Bodies and walls at time `now`, and the contacts so far.

    walls: for each its inward normal and where the centre of each body has to stay, along that normal
    pairs: for two bodies, the sides of the polygon that their relative position has to stay out of
    """

    def __init__(self, facts: Facts) -> None:
        self.now = 0.0
        self.contacts: list[Contact] = []
        try:
            self._refuse(facts)
            self.bodies = [_body(each) for each in facts["objects"]]
            walls = _walls(facts["container"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"a scene needs sides, radii, positions and velocities as numbers: {error!r}") from None
        self.walls = [
            (nx, ny, [level + _reach(body.corners, (-nx, -ny)) for body in self.bodies]) for nx, ny, level in walls
        ]
        self.pairs = [
            (i, j, _difference(self.bodies[i].corners, self.bodies[j].corners))
            for i, j in combinations(range(len(self.bodies)), 2)
        ]

    @staticmethod
    def _refuse(facts: Facts) -> None:
        container = facts["container"]
        turning = [container, *facts["objects"]]
        if facts.get("gravity_enabled") or any(facts.get("gravity") or ()):
            raise UserError("scenes with gravity cannot be simulated: choose scenes of the family multiobj")
        if any(each.get("angular_velocity") for each in turning) or container.get("translation"):
            raise UserError("scenes in which something turns, or the container moves, cannot be simulated")

    def advance(self, time: float) -> None:
        """Move on to `time`, through every contact on the way."""
        while True:
            delay, contact = self._next(time - self.now)
            for body in self.bodies:
                body.x += body.vx * delay
                body.y += body.vy * delay
            if contact is None:
                self.now = time
                return
            self.now += delay
            first, second, normal = contact
            self._bounce(first, second, normal)
            self.contacts.append(Contact(self.now, first, second))
            if len(self.contacts) > _MOST:
                raise UserError(f"a body of this scene is stuck: more than {_MOST} contacts by t = {self.now:.6f}")

    def _next(self, horizon: float) -> tuple[float, tuple[int, int | None, Vector] | None]:
        """Seconds to the next contact and what it is, or `horizon` and None."""
        soonest = horizon
        contact: tuple[int, int | None, Vector] | None = None
        for i, body in enumerate(self.bodies):
            for nx, ny, least in self.walls:
                approach = nx * body.vx + ny * body.vy
                if approach < 0:
                    delay = (least[i] - nx * body.x - ny * body.y) / approach
                    if delay < soonest:
                        soonest, contact = delay, (i, None, (nx, ny))
        for i, j, sides in self.pairs:
            a, b = self.bodies[i], self.bodies[j]
            entry = _entry((a.x - b.x, a.y - b.y), (a.vx - b.vx, a.vy - b.vy), sides, soonest)
            if entry:
                soonest, contact = entry[0], (i, j, entry[1])
        return max(soonest, 0.0), contact

    def _bounce(self, first: int, second: int | None, normal: Vector) -> None:
        """Reverse the approach along `normal`, which points from what is hit to body `first`."""
        nx, ny = normal
        a = self.bodies[first]
        if second is None:
            kick = -2 * (a.vx * nx + a.vy * ny)
            a.vx, a.vy = a.vx + kick * nx, a.vy + kick * ny
            return
        b = self.bodies[second]
        approach = (a.vx - b.vx) * nx + (a.vy - b.vy) * ny
        impulse = -2 * approach / (1 / a.mass + 1 / b.mass)
        a.vx, a.vy = a.vx + impulse / a.mass * nx, a.vy + impulse / a.mass * ny
        b.vx, b.vy = b.vx - impulse / b.mass * nx, b.vy - impulse / b.mass * ny


def polygon(shape: Mapping[str, Any]) -> list[Vector]:
    """The corners of a regular polygon around its centre, counter-clockwise."""
    sides, radius, turn = (
        int(shape["sides"]),
        float(shape["circumradius_m"]),
        float(shape.get("orientation_rad") or 0.0),
    )
    if not 3 <= sides <= 1000 or not 0 < radius < inf:
        raise ValueError(f"a polygon of {sides} sides and radius {radius}")
    angles = [turn + 2 * pi * corner / sides for corner in range(sides)]
    return [(radius * cos(angle), radius * sin(angle)) for angle in angles]


def _body(shape: Mapping[str, Any]) -> Body:
    (x, y), (vx, vy) = (map(float, shape[name]) for name in ("position", "velocity"))
    if not all(map(isfinite, (x, y, vx, vy))):
        raise ValueError("a position or velocity that is not finite")
    sides = int(shape["sides"])
    area = sides / 2 * float(shape["circumradius_m"]) ** 2 * sin(2 * pi / sides)
    return Body(x, y, vx, vy, area, polygon(shape))


def _walls(container: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """For each wall its inward normal and the coordinate along it of the wall."""
    x, y = container["center"]
    return [(-nx, -ny, -level - nx * x - ny * y) for nx, ny, level in _sides(polygon(container))]


def _sides(corners: Sequence[Vector]) -> list[tuple[float, float, float]]:
    """For each side of a convex polygon its outward normal and its distance from the origin."""
    sides = []
    for (x, y), (next_x, next_y) in zip(corners, [*corners[1:], corners[0]], strict=True):
        length = ((next_x - x) ** 2 + (next_y - y) ** 2) ** 0.5
        nx, ny = (next_y - y) / length, (x - next_x) / length
        sides.append((nx, ny, nx * x + ny * y))
    return sides


def _reach(corners: Sequence[Vector], direction: Vector) -> float:
    """How far a polygon extends in a direction."""
    return max(direction[0] * x + direction[1] * y for x, y in corners)


def _difference(a: Sequence[Vector], b: Sequence[Vector]) -> list[tuple[float, float, float]]:
    """The sides of the polygon of all positions of `a` relative to `b` at which the two overlap."""
    normals = [(nx, ny) for nx, ny, _ in _sides(b)] + [(-nx, -ny) for nx, ny, _ in _sides(a)]
    return [(nx, ny, _reach(b, (nx, ny)) + _reach(a, (-nx, -ny))) for nx, ny in normals]


def _entry(
    point: Vector, velocity: Vector, sides: Sequence[tuple[float, float, float]], before: float
) -> tuple[float, Vector] | None:
    """When and through which side (its normal) a moving point enters a convex polygon, if it does `before` then."""
    enters, leaves, normal = -inf, before, (0.0, 0.0)
    for nx, ny, level in sides:
        speed = nx * velocity[0] + ny * velocity[1]
        gap = level - nx * point[0] - ny * point[1]  # negative outside
        if speed < 0:
            if (delay := gap / speed) > enters:
                enters, normal = delay, (nx, ny)
        elif speed > 0:
            leaves = min(leaves, gap / speed)
        elif gap < 0:
            return None
        if enters >= leaves:
            return None
    return (enters, normal) if enters >= -_NEAR else None
