"""Programs as a model might write them, from straight flight to the exact motion, for any scene.

They find contacts in another way than the simulator does, corner by corner against side by side, so that agreement
says something about both.
"""

from typing import Any

FLAGS = {  # walls, balls that hit each other, masses by area
    "straight": (False, False, False),
    "walls only": (True, False, False),
    "equal masses": (True, True, False),
    "exact": (True, True, True),
}

_PROGRAM = """
from math import cos, sin, pi, hypot, sqrt, inf

BOX = {box}
BALLS = {balls}
WALLS, HITS, MASSES = {flags}

def polygon(sides, radius):
    return [(radius * cos(2 * pi * k / sides), radius * sin(2 * pi * k / sides)) for k in range(sides)]

def edges(corners):
    found = []
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
        length = hypot(bx - ax, by - ay)
        found.append((ax, ay, (bx - ax) / length, (by - ay) / length, length))
    return found

def touch(points, sides, px, py, wx, wy, inside):
    # when the first corner, moving with w, crosses a side, and the outward normal of that side
    best = (inf, 0, 0)
    for ax, ay, ex, ey, length in sides:
        nx, ny = (-ey, ex) if inside else (ey, -ex)
        speed = wx * nx + wy * ny
        if speed < 0:
            for cx, cy in points:
                x, y = px + cx - ax, py + cy - ay
                time = -(x * nx + y * ny) / speed
                if -1e-9 < time < best[0]:
                    along = (x + wx * time) * ex + (y + wy * time) * ey
                    if inside or -1e-9 <= along <= length + 1e-9:
                        best = (time, nx, ny)
    return best

SHAPES = [polygon(ball[0], ball[1]) for ball in BALLS]
SIDES = [edges(shape) for shape in SHAPES]
BOX_SIDES = edges(polygon(BOX[0], BOX[1]))
MASS = [sides * sin(2 * pi / sides) if MASSES else 1.0 for sides, *_ in BALLS]

def near(dx, dy, wx, wy, reach, before):
    # whether two circles that hold the shapes meet
    speed = wx * wx + wy * wy
    time = min(max(-(dx * wx + dy * wy) / speed, 0.0), before) if speed else 0.0
    return hypot(dx + wx * time, dy + wy * time) <= reach

def history():
    state = [list(ball[2:]) for ball in BALLS]
    now, moments = 0.0, []
    while True:
        moments.append((now, [list(ball) for ball in state]))
        best, i, j, nx, ny = 1.6 - now, None, None, 0, 0
        for k, (x, y, vx, vy) in enumerate(state):
            if WALLS:
                time, mx, my = touch(SHAPES[k], BOX_SIDES, x - BOX[2], y - BOX[3], vx, vy, True)
                if time < best:
                    best, i, j, nx, ny = time, k, None, mx, my
            for m in range(k if HITS else 0):
                ox, oy, ovx, ovy = state[m]
                dx, dy, wx, wy = x - ox, y - oy, vx - ovx, vy - ovy
                if near(dx, dy, wx, wy, 41, best):
                    time, mx, my = touch(SHAPES[k], SIDES[m], dx, dy, wx, wy, False)
                    if time < best:
                        best, i, j, nx, ny = time, k, m, mx, my
                    time, mx, my = touch(SHAPES[m], SIDES[k], -dx, -dy, -wx, -wy, False)
                    if time < best:
                        best, i, j, nx, ny = time, k, m, -mx, -my
        if i is None:
            return moments
        now += best
        for ball in state:
            ball[0] += ball[2] * best
            ball[1] += ball[3] * best
        a = state[i]
        if j is None:
            kick = -2 * (a[2] * nx + a[3] * ny)
            a[2] += kick * nx
            a[3] += kick * ny
        else:
            b = state[j]
            kick = -2 * ((a[2] - b[2]) * nx + (a[3] - b[3]) * ny) / (1 / MASS[i] + 1 / MASS[j])
            a[2] += kick * nx / MASS[i]
            a[3] += kick * ny / MASS[i]
            b[2] -= kick * nx / MASS[j]
            b[3] -= kick * ny / MASS[j]

MOMENTS = history()

def predict_position(t):
    time, state = [moment for moment in MOMENTS if moment[0] <= t][-1]
    return [[round(x + vx * (t - time), 2), round(y + vy * (t - time), 2)] for x, y, vx, vy in state]
"""


def program(facts: dict[str, Any], kind: str) -> str:
    """The source of a program of one kind for a scene."""
    container = facts["container"]
    box = (container["sides"], container["circumradius_m"], *container["center"])
    balls = [(each["sides"], each["circumradius_m"], *each["position"], *each["velocity"]) for each in facts["objects"]]
    source = _PROGRAM
    for name, value in (("box", box), ("balls", balls), ("flags", FLAGS[kind])):
        source = source.replace(f"{{{name}}}", repr(value))
    return source


def fenced(source: str) -> str:
    return f"I thought about it.\n```python\n{source}\n```\n"
