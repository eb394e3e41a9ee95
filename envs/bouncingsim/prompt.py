"""How a scene is asked: a `full` description, or a `compact` list of numbers for tiny models.

`full` tells what the published prompt tells, in other words. Like it, it keeps silent about the tolerance, the times
that are tested, the masses, and that bodies never begin to turn, and only hints that they hit each other; `stated`
physics tells these as well, for use where comparing with published results does not matter.
"""

from typing import Literal

from resd.envs.bouncingsim.simulator import Facts

PromptKind = Literal["full", "compact"]
Physics = Literal["hinted", "stated"]

_FULL = """\
Write a Python function that predicts where balls are that fly and bounce inside a container.

# The function

- It is called `predict_position(t)`; t is a time in seconds, a float of at least 0.
- It returns a list with one `[x, y]` for each ball, in the order of the balls below. Coordinates are floats rounded to
  2 decimals, with 0.0 in the place of -0.0.
- Each call computes from the initial conditions at t = 0. Nothing is kept from one call to the next.
- Everything is inside the function: no global variables and no code beside it. It imports nothing but `math`. It reads
  and writes nothing, prints nothing, and uses no random numbers.

# The physics

- Lengths are in metres, times in seconds, angles in radians. x points right and y up.
- Between two contacts a ball moves with constant acceleration: compute that motion, and the time of the next contact,
  in closed form. Small time steps are slow and miss contacts.
- Contacts are perfectly elastic. With n the inward unit normal of what is hit, v becomes v - 2 (v . n) n.
- A ball has a size. There is a contact when outlines meet, polygon against polygon, not when a centre arrives.
- The outline of a shape follows from its number of sides, its radius, its centre and its rotation.
- Count on balls hitting walls; the function is tested at times after they have.
{stated}
# The scene

{scene}

Conventions: polygons are regular and convex. A radius is the distance from the centre to a corner. At orientation 0
the first corner lies in direction +x from the centre; angles grow counter-clockwise. Nothing that hits the container
moves it.

# Your task

Predict the positions of the {count} balls. Think step by step. Explain your reasoning first, then give the complete
function in a fenced block:

```python
def predict_position(t):
    ...
    return [{returned}]
```"""

_STATED = """\
- Balls hit each other too, elastically and without friction. The mass of a ball is proportional to its area.
- Balls never turn.
"""


def ask(facts: Facts, kind: PromptKind = "full", physics: Physics = "hinted") -> str:
    """The text of a scene's prompt."""
    if kind == "compact":
        return _compact(facts, physics)
    count = len(facts["objects"])
    returned = ", ".join(f"[x{number}, y{number}]" for number in range(1, count + 1))
    stated = _STATED if physics == "stated" else ""
    return _FULL.format(stated=stated, scene=_scene(facts), count=count, returned=returned)


def _scene(facts: Facts) -> str:
    container = facts["container"]
    x, y = container["center"]
    lines = [
        f"- Container 1: regular polygon with {container['sides']} sides, radius {container['circumradius_m']:.2f}, "
        f"centre ({x}, {y}), initial orientation {container.get('orientation_rad') or 0.0:.3f} rad."
    ]
    for number, body in enumerate(facts["objects"], 1):
        (x, y), (vx, vy) = body["position"], body["velocity"]
        lines.append(
            f"- Ball {number}: regular polygon with {body['sides']} sides, radius {body['circumradius_m']:.2f}, "
            f"initial position ({x}, {y}), initial velocity ({vx:.2f}, {vy:.2f}), no angular velocity."
        )
    return "\n".join([*lines, "- There is no gravity, and nothing varies with time."])


def _compact(facts: Facts, physics: Physics) -> str:
    container = facts["container"]
    shapes = [("box", container, container["center"], ())]
    shapes += [("ball", body, body["position"], body["velocity"]) for body in facts["objects"]]
    lines = ["Write predict_position(t) in Python.", "shape sides radius x y vx vy"]
    lines += [
        " ".join(map(str, (name, shape["sides"], f"{shape['circumradius_m']:g}", *centre, *velocity)))
        for name, shape, centre, velocity in shapes
    ]
    return "\n".join([*lines, "balls hit each other, mass = area"] if physics == "stated" else lines)
