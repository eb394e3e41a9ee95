import time

import pytest

from resd.clock import Clock


def test_phases_add_up_to_wall_time_even_nested() -> None:
    ticks = iter([0.0, 1.0, 1.5, 3.5, 7.5, 20.0, 20.0])
    clock = Clock(lambda: next(ticks))
    with clock("update"), clock("teacher"):
        pass
    with clock("update"):
        pass
    assert clock.read() == {"time/update": 0.5 + 4.0 + 0.0, "time/teacher": 2.0}
    assert clock.read() == {}


def test_the_clock_is_that_of_the_machine() -> None:
    clock = Clock()
    start = time.perf_counter()
    with clock("update"):
        time.sleep(0.02)
    assert 0.02 <= clock.read()["time/update"] <= time.perf_counter() - start


def test_an_error_inside_a_phase_closes_it() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="x"), clock("a"):
        raise ValueError("x")
    with clock("b"):
        pass
    assert set(clock.read()) == {"time/a", "time/b"}
