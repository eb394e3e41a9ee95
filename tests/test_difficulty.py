"""A level that follows what passes."""

import pytest

from resd.context.difficulty import Difficulty


@pytest.mark.parametrize(
    ("shares", "levels"),
    [
        ([1.0, 1.0, 1.0, 1.0], [1, 2, 2, 2]),  # there is nothing harder
        ([0.0, 1.0, 0.0, 0.0], [0, 1, 0, 0]),  # nor anything easier
        ([1.0, 0.5, 0.25, 0.75], [1, 1, 1, 1]),  # the band has its ends
        ([0.8, 0.76, 0.24, 0.5], [1, 2, 1, 1]),
    ],
)
def test_it_gets_harder_above_the_band_and_easier_below(shares: list[float], levels: list[int]) -> None:
    difficulty = Difficulty(3, 0.25, 0.75)
    seen = []
    for share in shares:
        difficulty.note(share)
        seen.append(difficulty.level)
    assert seen == levels


def test_it_goes_on_and_fits_a_task_that_has_fewer_levels() -> None:
    difficulty = Difficulty(3, 0.25, 0.75)
    difficulty.note(1.0)
    difficulty.note(1.0)
    for levels, level in ((3, 2), (2, 1), (1, 0)):
        other = Difficulty(levels, 0.25, 0.75)
        other.load_state_dict(difficulty.state_dict())
        assert other.level == level
