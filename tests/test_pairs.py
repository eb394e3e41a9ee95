"""Pairs of a broken and a fixed response: what is kept, in which order it is learned, and what controls make of it."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from resd.context.pairs import Pair, Pairs, altered, portion

END = 2


def pair(problem: str, broken: int, *fixed: int) -> Pair:
    return Pair(problem, (broken, END), "said", (*fixed, END))


PAIRS = [pair("a", 10, 11, 12, 13, 14), pair("b", 20, 21, 22), pair("b", 23, 21, 22), pair("c", 30, 31)]


def test_a_broken_response_is_kept_once_and_a_problem_has_room_for_some() -> None:
    kept = Pairs(per_problem=2, most=4)
    assert kept.add([pair("a", 1, 9), pair("a", 1, 8), pair("a", 2, 9), pair("a", 3, 9), pair("b", 1, 9)]) == 3
    assert kept.add([pair("a", 1, 9)]) == 0
    assert kept.add([pair("c", 1, 9), pair("d", 1, 9)]) == 1
    assert [(each.problem, each.broken[0]) for each in kept.found] == [("a", 1), ("a", 2), ("b", 1), ("c", 1)]
    other = Pairs(per_problem=2, most=4)
    other.load_state_dict(kept.state_dict())
    assert other.found == kept.found


@given(count=st.integers(1, 12), size=st.integers(1, 7), seed=st.integers(0, 9))
def test_every_pair_is_learned_once_an_epoch_and_epochs_differ_in_order(count: int, size: int, seed: int) -> None:
    pairs = [pair(str(i), i, i) for i in range(count)]
    learned = [each.problem for number in range(3 * count) for each in portion(pairs, number, size, seed)]
    epochs = [learned[start : start + count] for start in range(0, len(learned), count)]
    assert all(Counter(epoch) == Counter(map(str, range(count))) for epoch in epochs)
    assert count < 6 or len(set(map(tuple, epochs))) > 1


def test_another_seed_is_another_order() -> None:
    pairs = [pair(str(i), i, i) for i in range(12)]
    assert len({tuple(each.problem for each in portion(pairs, 0, 12, seed)) for seed in range(3)}) == 3


def test_of_no_pairs_nothing_is_learned() -> None:
    assert portion([], 3, 4, 0) == []


def test_a_control_changes_the_fixed_side_alone() -> None:
    for control in ("mined", "correct", "external"):
        assert altered(PAIRS, control, 1) == PAIRS
    for control in ("shuffled", "garbage", "format"):
        changed = altered(PAIRS, control, 1)
        assert [(p.problem, p.broken, p.feedback) for p in changed] == [
            (p.problem, p.broken, p.feedback) for p in PAIRS
        ]
        assert altered(PAIRS, control, 1) == changed
    own = {each.problem: each.fixed for each in PAIRS}
    for each in altered(PAIRS, "shuffled", 1):
        assert each.fixed != own[each.problem]
        assert each.fixed in own.values()
    assert [each.fixed for each in altered(PAIRS, "format", 1)] == [each.broken for each in PAIRS]
    mixed = [each.fixed for each in altered(PAIRS, "garbage", 1)]
    assert mixed != [each.fixed for each in PAIRS]
    assert [sorted(fixed) for fixed in mixed] == [sorted(each.fixed) for each in PAIRS]
    assert {fixed[-1] for fixed in mixed} == {END}


def test_pairs_of_one_problem_have_no_other_to_take_from() -> None:
    assert altered(PAIRS[1:3], "shuffled", 1) == []
