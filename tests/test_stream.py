import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.observe.stream import Stream
from resd.types import Problem, UserError


def problems(count: int) -> list[Problem]:
    return [Problem(str(i), f"problem {i}") for i in range(count)]


def test_paper_numbers() -> None:
    stream = Stream(problems(742), 32, 4)
    assert len(stream) == 92  # 23 batches x 4, the last 6 problems are dropped


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.integers(0, 5))
def test_each_problem_at_most_once_an_epoch(
    count: int, batch: int, inner: int, epochs: int, shuffle: bool, seed: int
) -> None:
    if count < batch:
        with pytest.raises(UserError, match="lower batch_size"):
            Stream(problems(count), batch, inner)
        return
    stream = Stream(problems(count), batch, inner, epochs=epochs, shuffle=shuffle, seed=seed)
    assert len(stream) == epochs * (count // batch) * inner
    seen = [[p.id for p in stream.batch(step)] for step in range(1, len(stream) + 1)]
    for start in range(0, len(seen), inner):
        assert all(ids == seen[start] for ids in seen[start : start + inner])
    per_epoch = len(stream) // epochs
    for epoch in range(epochs):
        ids = [i for batch_ids in seen[epoch * per_epoch : (epoch + 1) * per_epoch : inner] for i in batch_ids]
        assert len(ids) == len(set(ids)) == count // batch * batch


def test_order_is_seeded_and_optional() -> None:
    plain = Stream(problems(64), 8, 1, shuffle=False)
    assert [p.id for p in plain.batch(2)] == [str(i) for i in range(8, 16)]
    first, again, other = (Stream(problems(64), 8, 1, seed=seed) for seed in (1, 1, 2))
    assert first.batch(3) == again.batch(3) != other.batch(3)
    for seed in (-1, 10**20):
        assert len({p.id for step in range(1, 9) for p in Stream(problems(64), 8, 1, seed=seed).batch(step)}) == 64


def test_outside_the_stream() -> None:
    with pytest.raises(IndexError):
        Stream(problems(8), 8, 2).batch(3)
