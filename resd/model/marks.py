"""Marks before the control tokens that a message spells, and tokenizers to which these are text like any other."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer


def each_content(
    message: Mapping[str, str], control: re.Pattern[str], mark: str, at: int, own: Sequence[str]
) -> dict[str, Any]:
    """The message with a mark at place `at` of every control token, but not in its role; an assistant's of `own` are
    left as they are."""
    left = own if message["role"] == "assistant" else ()

    def marked(found: re.Match[str]) -> str:
        return found[0] if found[0] in left else found[0][:at] + mark + found[0][at:]

    return {key: value if key == "role" else control.sub(marked, value) for key, value in message.items()}


def twin(tokenizer: Tokenizer, controls: Mapping[str, int], mark: str) -> Tokenizer:
    """The tokenizer with other names for its control tokens, so that their usual ones are text."""
    spec = json.loads(tokenizer.to_str())
    names = {text: alias(id, mark) for text, id in controls.items()}
    for token in spec["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = spec["model"]
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(piece, piece): id for piece, id in vocab.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & names.keys()]
    return Tokenizer.from_str(json.dumps(spec | {"post_processor": None, "truncation": None, "padding": None}))


def alias(id: int, mark: str) -> str:
    """The name of a control token there."""
    return f"{mark}{id}{mark}"


def broken(found: re.Match[str], mark: str) -> str:
    """For tokenizers of other kinds: text that spells a control token comes in two pieces."""
    if found[2] is None:
        return mark
    return found[2][:1] + mark + found[2][1:] if found[1] else found[2]
