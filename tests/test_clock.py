import time

import pytest

from resd.clock import Clock


def test_phases_add_up_to_wall_time_even_nested() -> None:
    clock = Clock()
    start = time.perf_counter()
    with clock("update"):
        time.sleep(0.02)
        with clock("teacher"):
            time.sleep(0.03)
        time.sleep(0.01)
    wall = time.perf_counter() - start
    seconds = clock.read()
    assert set(seconds) == {"time/update", "time/teacher"}
    assert sum(seconds.values()) == pytest.approx(wall, abs=2e-3)
    assert seconds["time/teacher"] >= 0.03
    assert seconds["time/update"] >= 0.03
    assert clock.read() == {}


def test_an_error_inside_a_phase_closes_it() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="x"), clock("a"):
        raise ValueError("x")
    with clock("b"):
        pass
    assert set(clock.read()) == {"time/a", "time/b"}
