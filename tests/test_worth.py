"""What an entry is worth: recovered exactly, covered by its interval, found when planted; how tags agree with it."""

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.measure.worth import check, draw, fewest, rank_correlation, worth
from resd.types import UserError

Accuracy = Callable[[np.ndarray], np.ndarray]  # of a problem of mean difficulty, by what is told


# -------------------------------------------------------------------------------------------------- the estimate


@given(st.integers(1, 12), st.sampled_from([0.1, 0.25, 0.5]), st.integers(0, 9))
def test_every_entry_is_left_out_as_often(entries: int, left_out: float, seed: int) -> None:
    sets = fewest(entries, left_out)
    told_S_E = draw(entries, sets, left_out, seed)
    assert told_S_E.shape == (sets, entries)
    assert set((~told_S_E).sum(axis=0)) == {round(left_out * sets)}
    assert (told_S_E == draw(entries, sets, left_out, seed)).all()
    centred_S_E = told_S_E - told_S_E.mean(axis=0)
    assert np.linalg.cond(centred_S_E) < 30  # no two entries come and go together


@given(st.integers(1, 10), st.sampled_from([0.1, 0.5]), st.integers(0, 20))
def test_what_adds_up_is_recovered_exactly(entries: int, left_out: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    told_S_E = draw(entries, fewest(entries, left_out), left_out, seed)
    level_P, effect_E, slope_E_P = random.random(7), random.normal(size=entries), random.normal(size=(entries, 7))
    same, half_E = worth(told_S_E, level_P + told_S_E @ np.outer(effect_E, np.ones(7)))
    assert same == pytest.approx(effect_E, abs=1e-4)
    assert half_E == pytest.approx(np.zeros(entries), abs=1e-4)
    mean, half_E = worth(told_S_E, level_P + told_S_E @ slope_E_P)
    assert mean == pytest.approx(slope_E_P.mean(axis=1), abs=1e-4)
    assert half_E == pytest.approx(2.447 * slope_E_P.std(axis=1, ddof=1) / math.sqrt(7), abs=1e-3) or entries > 1
    assert (half_E > 0).all()


def adds_up(told: np.ndarray) -> np.ndarray:
    return 0.4 + told @ np.array([0.0, -0.15, *[0.05] * (told.shape[1] - 2)])


def need_each_other(told: np.ndarray) -> np.ndarray:
    """Nothing without all of the right ones; the harmful one spoils most."""
    return 0.9 * told[:, 2:].all(axis=1) * np.where(told[:, 1], 0.4, 1.0)


def help_in_pairs(told: np.ndarray) -> np.ndarray:
    return 0.3 + 0.3 * told[:, 2] * told[:, 3] - 0.2 * told[:, 4] * told[:, 3] - 0.2 * told[:, 1]


def true_worth(accuracy: Accuracy, entries: int, left_out: float) -> np.ndarray:
    """The mean difference, over all sets of the others."""
    told = np.array(list(product([False, True], repeat=entries)))
    found = []
    for entry in range(entries):
        weight = np.where(np.delete(told, entry, axis=1), 1 - left_out, left_out).prod(axis=1)
        signs = np.where(told[:, entry], 1, -1)
        found.append(float((weight * signs * accuracy(told)).sum()))
    return np.array(found)


def simulated(
    accuracy: Accuracy,
    entries: int,
    sets: int,
    count: int,
    left_out: float,
    repeats: int,
    estimate: Callable[..., tuple[np.ndarray, np.ndarray]] = worth,
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates and halves of intervals; problems differ in difficulty and in what they gain from an entry.

    As all sets have the same seeds, half of luck is common to them, and all of it to sets that are the same."""
    random, estimates, halves = np.random.default_rng(0), [], []
    for seed in range(repeats):
        told_S_E = draw(entries, sets, left_out, seed)
        level_P, slope_E_P = random.normal(0, 0.3, count), random.normal(0, 0.1, (entries, count))
        base_S = accuracy(told_S_E)
        chance_S_P = base_S[:, None] * (1 + level_P) + 2 * base_S.mean() * (told_S_E - 1 + left_out) @ slope_E_P
        luck_P, luck_S_P = random.random(count), random.random((sets, count))
        _, first_S = np.unique(told_S_E, axis=0, return_inverse=True)
        luck_S_P = np.where(random.random((sets, count))[first_S] < 0.5, luck_P, luck_S_P[first_S])
        found, half = estimate(told_S_E, (luck_S_P < chance_S_P).astype(float))
        estimates.append(found)
        halves.append(half)
    return np.array(estimates), np.array(halves)


@pytest.mark.parametrize(
    ("accuracy", "entries", "sets", "count", "left_out"),
    [
        (adds_up, 10, 32, 48, 0.5),
        (adds_up, 10, 22, 48, 0.5),
        (help_in_pairs, 10, 32, 48, 0.5),
        (help_in_pairs, 6, 16, 12, 0.5),
        (need_each_other, 10, 80, 48, 0.1),
        (need_each_other, 8, 64, 48, 0.125),
    ],
)
def test_intervals_cover(accuracy: Accuracy, entries: int, sets: int, count: int, left_out: float) -> None:
    estimates, halves = simulated(accuracy, entries, sets, count, left_out, repeats=300)
    truth = true_worth(accuracy, entries, left_out)
    covered = abs(estimates - truth) <= halves
    assert covered.mean() >= 0.93
    assert covered.mean(axis=0).min() >= 0.87
    # and not by being wide: 2.1 standard errors would be Student's with the true one
    assert np.median(halves, axis=0).mean() < 1.7 * 2.1 * estimates.std(axis=0).mean()


def test_intervals_cover_what_problems_and_sets_bring_together() -> None:
    truth, random, covered = true_worth(help_in_pairs, 6, 0.5), np.random.default_rng(0), []
    for seed in range(300):
        told_S_E = draw(6, 32, 0.5, seed)
        slope_E_P = random.normal(0, 0.25, (6, 24))
        found, half_E = worth(told_S_E, help_in_pairs(told_S_E)[:, None] + (told_S_E - 0.5) @ slope_E_P)
        covered.append(abs(found - truth) <= half_E)
    assert np.mean(covered) >= 0.95


def over_problems_alone(told_S_E: np.ndarray, scores_S_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    worth_E_P = np.linalg.lstsq(np.column_stack([told_S_E, np.ones(len(told_S_E))]), scores_S_P)[0][:-1]
    return worth_E_P.mean(axis=1), 2.01 * worth_E_P.std(axis=1, ddof=1) / math.sqrt(worth_E_P.shape[1])


@pytest.mark.parametrize("estimate", [partial(worth, ridge=1.0), over_problems_alone])
def test_a_ridge_that_shrinks_and_an_interval_over_problems_alone_would_miss(estimate: Any) -> None:
    truth = true_worth(need_each_other, 8, 0.125)
    found, halves = simulated(need_each_other, 8, 64, 48, 0.125, repeats=100, estimate=estimate)
    assert (abs(found - truth) <= halves).mean() < 0.8


@pytest.mark.parametrize(
    ("accuracy", "sets", "left_out"), [(adds_up, 32, 0.5), (help_in_pairs, 48, 0.5), (need_each_other, 80, 0.1)]
)
def test_a_planted_harmful_entry_is_among_the_worst_and_a_neutral_one_is_not_told_apart(
    accuracy: Accuracy, sets: int, left_out: float
) -> None:
    estimates, halves = simulated(accuracy, 10, sets, 48, left_out, repeats=100)
    assert (estimates.argsort(axis=1)[:, :3] == 1).any(axis=1).mean() > 0.97
    assert (abs(estimates[:, 0]) <= halves[:, 0]).mean() > 0.9


def test_what_cannot_be_told() -> None:
    told_S_E = draw(3, 8, 0.5, 0)
    found, half_E = worth(told_S_E, np.tile([0.0, 1.0, 0.5], (8, 1)))
    assert found == pytest.approx([0, 0, 0])
    assert np.isnan(half_E).all()
    for sets, count in ((4, 5), (8, 1)):
        with pytest.raises(ValueError, match=f"{sets} sets and {count} problems cannot tell the worth of 3"):
            worth(told_S_E[:sets], np.zeros((sets, count)))
    check(3, 8, 0.5)
    check(1, 8, 0.5)
    with pytest.raises(UserError, match=r"^worth=9 .* entries: 20 .* 0\.5 of the sets, take worth=42 .* cap=3 "):
        check(20, 9, 0.5)
    with pytest.raises(UserError, match=r"take worth=40 or more$"):
        check(1, 9, 0.1)


# --------------------------------------------------------------------------------------------- the rank correlation


@given(st.permutations(range(7)))
def test_without_ties_it_is_spearmans_formula(order: list[int]) -> None:
    one = np.arange(7.0)
    found = rank_correlation(np.exp(one), np.array(order) ** 3.0)  # which only keep the order
    assert found is not None
    value, low, high = found
    assert value == pytest.approx(1 - 6 * sum((one - order) ** 2) / (7 * 48))
    assert low <= value <= high or abs(value) > 0.99
    assert -1 <= low < high <= 1


def test_ties_share_a_rank_and_nothing_is_said_of_nothing() -> None:
    found = rank_correlation(np.array([1.0, 2.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0, 40.0]))
    assert found is not None
    assert found[0] == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3, 4])[0, 1])
    assert rank_correlation(np.arange(3.0), np.arange(3.0)) is None
    assert rank_correlation(np.arange(5.0), np.ones(5)) is None


@pytest.mark.parametrize(("count", "rho"), [(8, 0.0), (8, 0.8), (20, 0.5), (60, 0.9)])
def test_its_interval_covers(count: int, rho: float) -> None:
    random, covered = np.random.default_rng(0), []
    truth = 6 / math.pi * math.asin(rho / 2)
    for _ in range(400):
        one = random.normal(size=count)
        found = rank_correlation(one, rho * one + math.sqrt(1 - rho**2) * random.normal(size=count))
        assert found is not None
        covered.append(found[1] <= truth <= found[2])
    assert 0.91 <= np.mean(covered) <= 0.99
