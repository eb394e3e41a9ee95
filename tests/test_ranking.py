from hypothesis import given
from hypothesis import strategies as st

from resd.report.ranking import METRICS, beats, best_step, rank

NAMES = [name.format(n=4) for name in METRICS]
Row = tuple[float, float, float, float]
ROWS = st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=8)


def history(rows: dict[int, Row]) -> dict[int, dict[str, float]]:
    return {step: dict(zip(NAMES, values, strict=True)) for step, values in rows.items()}


def test_ranks_share_ties() -> None:
    values = [0.3, 0.1, 0.3, 0.2]
    assert [rank(value, values) for value in values] == [3.5, 1, 3.5, 2]


def test_rank_sum_beats_a_single_high_metric() -> None:
    # by value update 4 has the highest mean of metrics, but only one of them is its best
    rows = {4: (0.9, 0.1, 0.1, 0.1), 8: (0.3, 0.3, 0.3, 0.2), 12: (0.2, 0.2, 0.2, 0.3)}
    assert best_step(history(rows)) == 8


def test_ties_go_to_the_earlier_step() -> None:
    assert best_step(history({8: (0.1,) * 4, 4: (0.1,) * 4})) == 4


def test_a_step_that_was_never_the_best_does_not_become_it_later() -> None:
    # of all three, 8 has the highest sum (9, with 8.5 for 4), but it only tied with 4 when it was evaluated, and went
    rows: dict[int, Row] = {4: (0.5, 0.2, 0.3, 0.3), 8: (0.2, 0.1, 0.4, 0.4), 12: (0.1, 0.1, 0.3, 0.4)}
    assert beats(history(rows), 8, 4)
    assert best_step(history(rows)) == 4


def test_the_untrained_model_is_no_candidate_and_changes_no_rank() -> None:
    rows: dict[int, Row] = {4: (0.5, 0.5, 0.2, 0.2), 8: (0.4, 0.4, 0.6, 0.6)}
    assert best_step(history({0: (0.9,) * 4})) is None
    assert best_step(history({0: (0.45, 0.45, 0.45, 0.45), **rows})) == best_step(history(rows))


@given(ROWS)
def test_dominating_step_wins(rows: list[Row]) -> None:
    steps = dict(enumerate(rows, 1))
    steps[99] = (1.1,) * 4
    assert best_step(history(steps)) == 99


@given(ROWS)
def test_the_best_of_a_longer_run_is_the_old_one_or_the_new_one(rows: list[Row]) -> None:
    evaluations = history(dict(enumerate(rows, 1)))
    before = best_step({step: values for step, values in evaluations.items() if step < len(rows)})
    assert best_step(evaluations) in (before, len(rows))


def test_only_evaluations_of_as_many_samples_are_ranked() -> None:
    other = {name.format(n=2): 0.9 for name in METRICS}
    assert best_step({1: other, **history({2: (0.1,) * 4, 3: (0.2,) * 4})}) == 3
    assert best_step({1: other, 2: {NAMES[0]: 0.5}}) == 1
    assert best_step({2: {NAMES[0]: 0.5}}) is None
    assert best_step({}) is None
