"""The motion in BouncingSim against real scenes, closed forms, laws and another engine; and the drawn scenes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.envs.bouncingsim import BouncingSim, simulate
from resd.envs.bouncingsim.scenes import LEVELS, TIMES, draw, draw_split, is_steady, mean_distance
from resd.envs.bouncingsim.simulator import Contact, Scene, trace
from resd.types import UserError

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ROOT.parent / "shared/data/bouncingsim_public.jsonl"
needs_data = pytest.mark.skipif(not PUBLIC.is_file(), reason="the shared data is not there")


def public() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PUBLIC.read_text().splitlines()]


def scene(*bodies: tuple[int, float, float, float, float], sides: int = 4, turn: float = math.pi / 4) -> dict[str, Any]:
    """A scene in a square box whose walls are 375 m * sqrt(1/2) from its centre at (0, 0), unless told otherwise."""
    objects = [
        {"sides": n, "circumradius_m": 20.0, "position": [x, y], "velocity": [vx, vy]} for n, x, y, vx, vy in bodies
    ]
    box = {"sides": sides, "circumradius_m": 375.0, "center": [0, 0], "orientation_rad": turn}
    return {"container": box, "objects": objects}


# --------------------------------------------------------------------------------------------------- simulator


@needs_data
def test_every_public_scene() -> None:
    passed: dict[str, list[bool]] = {}
    for row in public():
        errors = list(map(mean_distance, simulate(row["facts"], row["times"]), row["expected_positions"]))
        if row["exact_solver_agrees"]:
            assert max(errors) < 5, row["id"]
        passed.setdefault(row["level"], []).extend(error <= 50 for error in errors)
    assert len(passed["easy"]) == 3000
    assert len(passed["medium"]) == 1500
    assert all(sum(tests) / len(tests) >= 0.995 for tests in passed.values())


def test_straight_flight_and_reflection() -> None:
    wall = 375 * math.sqrt(0.5) - 20  # where the corner at angle 0 of a body touches
    facts = scene((4, 0, 0, 100, 0))
    assert simulate(facts, [1, 0, 0.5]) == [[[100, 0]], [[0, 0]], [[50, 0]]]
    positions, contacts = trace(facts, [3, 6, 60])
    for time_, [[x, y]] in zip((3, 6, 60), positions, strict=True):
        triangle = abs((100 * time_ + wall) % (4 * wall) - 2 * wall) - wall  # between -wall and wall
        assert (x, y) == (pytest.approx(-triangle, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert contacts[0] == Contact(pytest.approx(wall / 100), 0, None)


@pytest.mark.parametrize("sides", [3, 5, 6])
def test_a_collision_along_the_normal(sides: int) -> None:
    """From below, with the top corner or side, against the lower side of a hexagon."""
    [[[_, a], [_, b]]], contacts = trace(scene((sides, 3, -100, 0, 50), (6, 0, 100, 0, -30)), [2.6])
    top = max(y for _, y in corners({"sides": sides, "circumradius_m": 20.0}))
    met = (200 - top - 20 * math.sin(math.pi / 3)) / 80
    assert contacts == [Contact(pytest.approx(met), 0, 1)]
    m, n = (k * math.sin(2 * math.pi / k) for k in (sides, 6))
    assert a == pytest.approx(-100 + 50 * met + (2.6 - met) * (50 * (m - n) - 60 * n) / (m + n))
    assert b == pytest.approx(100 - 30 * met + (2.6 - met) * (-30 * (n - m) + 100 * m) / (m + n))


def test_shapes_matter() -> None:
    """A triangle's corner points to +x and its side to -x, which is half as far from the centre."""
    [[[right, _]]] = simulate(scene((3, 0, 0, 100, 0)), [3])
    [[[left, _]]] = simulate(scene((3, 0, 0, -100, 0)), [3])
    wall = 375 * math.sqrt(0.5)
    assert right == pytest.approx(2 * (wall - 20) - 300)
    assert left == pytest.approx(-(2 * (wall - 10) - 300))


seeds = st.tuples(st.sampled_from(["easy", "medium"]), st.integers(0, 10**6)).map(lambda s: draw(s[0], str(s)))


def energy(state: Scene) -> float:
    return sum(body.mass * (body.vx**2 + body.vy**2) for body in state.bodies)


@given(seeds, st.floats(0, 1.5))
@settings(max_examples=25)
def test_laws_of_motion(facts: dict[str, Any], until: float) -> None:
    state = Scene(facts)
    before = energy(state)
    state.advance(until)
    assert energy(state) == pytest.approx(before)
    for body_number, body in enumerate(state.bodies):
        for nx, ny, least in state.walls:
            assert nx * body.x + ny * body.y > least[body_number] - 1e-6
    for i, j, sides in state.pairs:
        x, y = (state.bodies[i].x - state.bodies[j].x, state.bodies[i].y - state.bodies[j].y)
        assert any(nx * x + ny * y > level - 1e-6 for nx, ny, level in sides)
    for body in state.bodies:  # and back again
        body.vx, body.vy = -body.vx, -body.vy
    state.now = 0.0
    state.advance(until)
    for body, start in zip(state.bodies, facts["objects"], strict=True):
        assert [body.x, body.y] == pytest.approx(start["position"], abs=1e-4)


@given(seeds, st.permutations(TIMES), st.randoms())
@settings(max_examples=15)
def test_order_does_not_matter(facts: dict[str, Any], times: list[float], random: Random) -> None:
    order = random.sample(range(len(facts["objects"])), len(facts["objects"]))
    other = simulate({**facts, "objects": [facts["objects"][number] for number in order]}, times)
    for time_, positions in zip(times, other, strict=True):
        [expected] = simulate(facts, [time_])
        for position, number in zip(positions, order, strict=True):
            assert position == pytest.approx(expected[number], abs=1e-4)


@pytest.mark.parametrize("level", LEVELS)
def test_another_engine_agrees(level: str) -> None:
    pymunk = pytest.importorskip("pymunk")
    for facts in draw_split(level, "test", 0)[:4]:
        errors = list(map(mean_distance, simulate(facts, TIMES), stepped(pymunk, facts, TIMES)))
        assert max(errors) < 10, facts
        assert sorted(errors)[7] < 1


def stepped(pymunk: Any, facts: dict[str, Any], times: tuple[float, ...]) -> list[list[list[float]]]:
    """The motion in steps of 1/4000 s, by pymunk."""
    space, container = pymunk.Space(), facts["container"]
    space.iterations, space.collision_slop, space.damping = 30, 0.01, 1
    walls = [[c + d for c, d in zip(container["center"], corner, strict=True)] for corner in corners(container)]
    for a, b in zip(walls, [*walls[1:], walls[0]], strict=True):
        wall = pymunk.Segment(space.static_body, a, b, 0)
        wall.elasticity, wall.friction = 1, 0
        space.add(wall)
    bodies = []
    for each in facts["objects"]:
        shape = pymunk.Poly(None, corners(each))
        shape.elasticity, shape.friction = 1, 0
        shape.body = body = pymunk.Body(shape.area, math.inf)
        body.position, body.velocity = tuple(each["position"]), tuple(each["velocity"])
        space.add(body, shape)
        bodies.append(body)
    found, now = [], 0
    for time_ in times:
        for _ in range(now, round(time_ * 4000)):
            space.step(1 / 4000)
        now = round(time_ * 4000)
        found.append([list(body.position) for body in bodies])
    return found


def corners(shape: dict[str, Any]) -> list[tuple[float, float]]:
    n, radius = shape["sides"], shape["circumradius_m"]
    return [(radius * math.cos(2 * math.pi * k / n), radius * math.sin(2 * math.pi * k / n)) for k in range(n)]


@pytest.mark.parametrize(
    "change",
    [
        {"gravity": [0, -9.8]},
        {"gravity_enabled": True},
        {"container": {"sides": 4}},
        {"container": {"sides": 2, "circumradius_m": 9.0, "center": [0, 0]}},
        {"container": {"sides": 4, "circumradius_m": 9.0, "center": [0, 0], "angular_velocity": 1.0}},
        {"objects": [{"sides": 4, "circumradius_m": 1.0, "position": [0, 0], "velocity": [0, math.nan]}]},
        {"objects": [{"sides": 4, "circumradius_m": 1.0, "position": [0], "velocity": [0, 0]}]},
        {"objects": ["ball"]},
    ],
)
def test_other_scenes_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        simulate(scene((4, 0, 0, 1, 1)) | change, [1.0])


# ------------------------------------------------------------------------------------------------------ scenes


def test_scenes_have_the_published_parameters() -> None:
    for level, (fewest, most), (slowest, fastest) in (("easy", (3, 3), (400, 600)), ("medium", (4, 5), (600, 800))):
        scenes = draw_split(level, "test", 0)
        assert {len(facts["objects"]) for facts in scenes} == {*range(fewest, most + 1)}
        assert {facts["container"]["sides"] for facts in scenes} == {3, 4, 5, 6}
        assert {body["sides"] for facts in scenes for body in facts["objects"]} == {3, 4, 5, 6}
        for facts in scenes:
            assert (facts["container"]["circumradius_m"], facts["container"]["center"]) == (375, [750, 750])
            for body in facts["objects"]:
                assert slowest - 0.1 < math.hypot(*body["velocity"]) < fastest + 0.1
                assert all(isinstance(coordinate, int) for coordinate in body["position"])
                assert body["velocity"] == [round(speed, 2) for speed in body["velocity"]]
                assert body["circumradius_m"] == 20


def test_scenes_resemble_the_published_ones() -> None:
    """Contacts in 1.5 s, as measured on scenes of the published generator, less what the check for steadiness takes."""
    for level, walls, pairs in (("easy", 5.6, 0.85), ("medium", 11.5, 3.0)):
        contacts = [trace(facts, TIMES)[1] for facts in draw_split(level, "test", 0)]
        assert sum(c.second is None for found in contacts for c in found) / 100 == pytest.approx(walls, rel=0.1)
        assert sum(c.second is not None for found in contacts for c in found) / 100 == pytest.approx(pairs, rel=0.25)


def test_sizes_and_splits() -> None:
    assert {level: dict(each.sizes) for level, each in LEVELS.items()} == {
        "easy": {"train": 640, "test": 100},
        "medium": {"train": 320, "test": 100},
    }
    train, test = BouncingSim().problems("train"), BouncingSim().problems("test")
    assert (len(train), len(test)) == (640, 100)
    assert len({each.statement for each in train + test}) == len({each.id for each in train + test}) == 740
    assert {each.statement for each in BouncingSim(seed=1).problems("test")}.isdisjoint(e.statement for e in test)


def test_steady_scenes_only() -> None:
    hair = scene((4, -100, 0, 50, 0), (4, 100, 1e-9, -30, 0))  # corner to corner: who knows
    assert not is_steady(scale(hair, 10), Random(0))
    assert all(is_steady(facts, Random(1)) for facts in draw_split("easy", "test", 0)[:10])


def scale(facts: dict[str, Any], factor: float) -> dict[str, Any]:
    """The same, faster."""
    objects = [{**body, "velocity": [factor * speed for speed in body["velocity"]]} for body in facts["objects"]]
    return {**facts, "objects": objects}


def test_scenes_do_not_depend_on_the_hash_seed() -> None:
    code = "from resd.envs.bouncingsim.scenes import draw; print(draw('medium', 'x'))"
    for hash_seed in ("0", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == str(draw("medium", "x"))
