from hypothesis import given
from hypothesis import strategies as st

from resd.model.pack import pack, plan

tokens = st.lists(st.integers(1, 99), min_size=1, max_size=6)


@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=5), st.booleans())
def test_rows_predict_every_response_token(pairs: list[tuple[list[int], list[int]]], packed: bool) -> None:
    prompts, responses = zip(*pairs, strict=True)
    rows = pack(prompts, responses, pad_id=0, packed=packed)
    flat = rows.input_ids.flatten().tolist()
    before = [[*p, *r][len(p) - 1 + t] for p, r in pairs for t in range(len(r))]  # the token that predicts the next
    assert [flat[i] for i in rows.predict_T.tolist()] == before
    assert len(rows.predict_T) == sum(map(len, responses))
    if packed:
        assert rows.input_ids.shape[0] == 1
        assert rows.position_ids is not None
        starts = (rows.position_ids[0] == 0).sum().item()
        assert starts == len(pairs)


def test_empty_micro_batch_is_a_row_without_predictions() -> None:
    rows = pack([], [], pad_id=7)
    assert rows.input_ids.tolist() == [[7]]
    assert len(rows.predict_T) == 0


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 4), st.integers(1, 120), st.booleans())
def test_plan_covers_once_and_is_even(lengths: list[int], ranks: int, budget: int, packed: bool) -> None:
    batches = plan(lengths, ranks=ranks, budget=budget, packed=packed)
    assert sorted(i for rank in batches for batch in rank for i in batch) == list(range(len(lengths)))
    assert len({len(rank) for rank in batches}) == 1
    for rank in batches:
        for batch in rank:
            tokens = [lengths[i] for i in batch]
            assert len(batch) <= 1 or (sum(tokens) if packed else len(batch) * max(tokens)) <= budget
        firsts = [lengths[batch[0]] for batch in rank[1:] if batch]
        fitting = [sum(lengths[i] for i in batch) + more for batch, more in zip(rank, firsts, strict=False)]
        assert not packed or all(tokens > budget for tokens in fitting)  # a new one only where the last is full
    loads = [sum(lengths[i] for batch in rank for i in batch) for rank in batches]
    assert max(loads) - min(loads) <= max(lengths, default=0)
