"""A model may declare several ends of a turn; every one of them ends a response."""

import json
from pathlib import Path

import tiny
from scripted import model_settings

from resd.engine.transformers import TransformersEngine
from resd.model.chat import Chat
from resd.types import Request


def test_each_declared_end_of_turn_ends_a_response(tmp_path: Path) -> None:
    ends = [2, 70, 71, 72]
    folder = tiny.save(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    chat = Chat(model_settings(str(folder)))
    assert set(chat.eos_ids) == set(ends)
    engine = TransformersEngine(tiny.model(), eos_ids=chat.eos_ids, max_batch=32, max_length=200)
    done = dict(engine.generate([Request([1, 5 + i], 100, seed=i) for i in range(32)]))
    finished = [completion for completion in done.values() if not completion.truncated]
    assert {completion.ids[-1] for completion in finished} == set(ends)
    assert not any(set(completion.ids[:-1]) & set(ends) for completion in done.values())
