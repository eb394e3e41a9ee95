from hypothesis import given
from hypothesis import strategies as st

from resd.report.ranking import METRICS, best_step, ranks

NAMES = [name.format(n=4) for name in METRICS]


def history(rows: dict[int, tuple[float, float, float, float]]) -> dict[int, dict[str, float]]:
    return {step: dict(zip(NAMES, values, strict=True)) for step, values in rows.items()}


def test_ranks_share_ties() -> None:
    assert ranks([0.3, 0.1, 0.3, 0.2]) == [3.5, 1, 3.5, 2]


def test_rank_sum_beats_a_single_high_metric() -> None:
    # by value update 4 has the highest mean of metrics, but only one of them is its best
    rows = {4: (0.9, 0.1, 0.1, 0.1), 8: (0.3, 0.3, 0.3, 0.2), 12: (0.2, 0.2, 0.2, 0.3)}
    assert best_step(history(rows), 4) == 8


def test_ties_go_to_the_earlier_step() -> None:
    assert best_step(history({8: (0.1,) * 4, 4: (0.1,) * 4}), 4) == 4


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=8))
def test_dominating_step_wins(rows: list[tuple[float, float, float, float]]) -> None:
    steps = dict(enumerate(rows))
    steps[99] = (1.1,) * 4
    assert best_step(history(steps), 4) == 99


def test_only_evaluations_of_as_many_samples_are_ranked() -> None:
    other = {name.format(n=2): 0.9 for name in METRICS}
    assert best_step({1: other, **history({2: (0.1,) * 4, 3: (0.2,) * 4})}, 4) == 3
    assert best_step({1: other, 2: {NAMES[0]: 0.5}}, 4) is None
    assert best_step({}, 4) is None
