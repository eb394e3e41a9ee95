import torch
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


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 4), st.integers(1, 120))
def test_plan_covers_once_and_is_even(lengths: list[int], ranks: int, budget: int) -> None:
    batches = plan(lengths, ranks=ranks, budget=budget)
    assert sorted(i for rank in batches for batch in rank for i in batch) == list(range(len(lengths)))
    assert len({len(rank) for rank in batches}) == 1
    for rank in batches:
        for batch in rank:
            assert len(batch) <= 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    loads = [sum(lengths[i] for batch in rank for i in batch) for rank in batches]
    assert max(loads) - min(loads) <= max(lengths, default=0)


def test_layouts_give_equal_hidden_states() -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from resd.model.hidden import Policy

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    policy = Policy(Qwen3ForCausalLM(config).eval())
    prompts, responses = [[1, 2, 3], [4], [5, 6]], [[7, 8], [9, 10, 11, 12], [13]]
    padded, packed = (policy(pack(prompts, responses, pad_id=0, packed=p)) for p in (False, True))
    alone = torch.cat([policy(pack([p], [r], pad_id=0)) for p, r in zip(prompts, responses, strict=True)])
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-6)
