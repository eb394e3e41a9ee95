"""What `attempts/*.jsonl` says about single tokens."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny

from resd.model.chat import Chat
from resd.report.samples import SCORED_TOKENS, write_attempts
from resd.settings import ModelSettings
from resd.types import Attempt, Problem, Sample


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(
        ModelSettings(
            path=str(tiny_model), prompts="full", output_format="lines", enable_thinking=False, attention="sdpa",
            max_prompt=100,
        )
    )  # fmt: skip


def attempt(ids: list[int], response: str, token_loss: list[float] | None) -> Attempt:
    sample = Sample([1], ids, [0.0] * len(ids), token_loss=token_loss)
    return Attempt("1/p/0", Problem("p", "p"), [], "p", [1], ids, [], response, False, sample=sample)


def written(folder: Path, *attempts: Attempt, chat: Chat | None = None) -> list[dict[str, Any]]:
    write_attempts(folder, 1, attempts, chat.pieces if chat else None)
    return [json.loads(line) for line in (folder / "attempts/step_000001.jsonl").read_text().splitlines()]


def test_losses_stand_beside_their_tokens(tmp_path: Path, chat: Chat) -> None:
    ids = [*chat.encode("aé€"), tiny.tokenizer().eos_token_id]
    losses = [0.123456, 1e-9, 3.0, math.inf, 0.0, 1.0, 2.0]
    record, bare = written(tmp_path, attempt(ids, "aé€", losses), attempt(ids, "aé€", None), chat=chat)
    assert record["token_text"] == ["a", "", "é", "", "", "€", ""]  # a byte a token; the end of the turn has no text
    assert record["token_loss"] == [0.1235, 1e-9, 3.0, None, 0.0, 1.0, 2.0]
    assert not {"token_loss", "token_text"} & bare.keys()


def test_bytes_that_are_no_text_cost_the_texts_at_most(tmp_path: Path, chat: Chat) -> None:
    ids = chat.encode("€€")[2:-1] + chat.encode("b")  # a last byte, a character and a half, a letter
    (record,) = written(tmp_path, attempt(ids, chat.decode(ids), [1.0] * len(ids)), chat=chat)
    assert len(record["token_loss"]) == len(ids)
    assert "".join(record.get("token_text", [record["response"]])) == record["response"]


def test_files_stay_small(tmp_path: Path) -> None:
    lengths = [SCORED_TOKENS + 1, SCORED_TOKENS // 2, SCORED_TOKENS // 2, 1]
    records = written(tmp_path, *(attempt([5] * n, "x", [0.00123456] * n) for n in lengths))
    assert ["token_loss" in record for record in records] == [False, True, True, False]
    assert (tmp_path / "attempts/step_000001.jsonl").stat().st_size < 20 * SCORED_TOKENS
