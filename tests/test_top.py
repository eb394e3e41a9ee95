"""The k largest values of a row."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.objectives.top import STRIDE, top_ids


@settings(deadline=None, max_examples=100)
@given(
    vocabulary=st.integers(1, 40 * STRIDE),
    k=st.integers(1, 12),
    levels=st.sampled_from([2, 50, 10**6]),
    seed=st.integers(0, 1000),
)
def test_the_same_values_as_a_full_search(vocabulary: int, k: int, levels: int, seed: int) -> None:
    """Few levels make ties; among equal values any id will do, but none twice."""
    random = torch.Generator().manual_seed(seed)
    values_C_V = torch.randint(levels, (3, vocabulary), generator=random).float()
    k = min(k, vocabulary)
    ids_C_K = top_ids(values_C_V, k)
    expected_C_K = values_C_V.topk(k).values
    assert torch.equal(values_C_V.gather(-1, ids_C_K).sort(descending=True).values, expected_C_K)
    assert all(len(set(row)) == k for row in ids_C_K.tolist())


@pytest.mark.parametrize("tail", [0, 1, STRIDE - 1])
def test_wherever_they_lie(tail: int) -> None:
    vocabulary, k = 20 * STRIDE + tail, 3
    for places in ([0, 1, 2], [vocabulary - 3, vocabulary - 2, vocabulary - 1], [0, 20, 40], [5, 300, vocabulary - 1]):
        values_1_V = torch.full((1, vocabulary), -math.inf)
        values_1_V[0, places] = torch.tensor([1.0, 3.0, 2.0])
        assert sorted(top_ids(values_1_V, k)[0].tolist()) == places


def test_no_row() -> None:
    assert top_ids(torch.zeros(0, 100 * STRIDE), 4).shape == (0, 4)
