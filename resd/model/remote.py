"""A teacher behind an address: log-probabilities of given tokens, as vLLM serves them (`prompt_logprobs` of the
completions API, since a prompt may be token ids).

An answer has, for every token of the prompt but the first, the log-probability of that token and of the K likeliest
ones in its place, at temperature 1. It is about 60 bytes of JSON for each of them. Not covered: the likelihood of other
tokens than these, hence neither entropies nor a support that the student chooses.
"""

import math
from array import array
from collections.abc import Sequence
from typing import Any

from resd.address import Address, Failed
from resd.model.chat import Chat
from resd.types import Told, UserError

PROBED = 256  # tokens of the vocabulary that are compared
IMPOSSIBLE = 1e-3  # nats above 0 that are no longer rounding


class RemoteTeacher:
    """Asked for the `top` likeliest tokens where they are compared; `words` is the size of the student's table."""

    def __init__(self, address: Address, top: int, words: int) -> None:
        self.address, self.top, self.words = address, min(top, words), words

    def check(self, chat: Chat, longest: int) -> str:
        """The name of its model.

        Raises UserError if it does not answer, cannot read `longest` tokens, or has another vocabulary.
        """
        card, name = self.address.open(), self.address.name
        room = card.get("max_model_len")
        if isinstance(room, int) and room <= longest:
            raise UserError(
                f"{name} reads {room} tokens, prompt and response take up to {longest} and one: serve it with a larger "
                "--max-model-len, or lower rollout.max_prompt or rollout.max_response"
            )
        ids = _spread(chat, min(PROBED, longest))
        [answer] = self.address.ask("completions", [_body([ids[0], *ids], self.top)])
        try:
            rows = _rows(answer, len(ids) + 1)[1:]
            names = [row[str(id)].get("decoded_token") for id, row in zip(ids, rows, strict=True)]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"{name} does not tell log-probabilities of a prompt ({error}): serve the model with vLLM and "
                f"--max-logprobs {self.top} or more, and give a teacher with the student's vocabulary"
            ) from None
        ours = [chat.tokenizer.decode([id]) for id in ids]
        told = [(i, o, n) for i, o, n in zip(ids, ours, names, strict=True) if n and "\ufffd" not in o + n]
        other = next(((i, o, n) for i, o, n in told if o.strip() != n.strip()), None)
        if other is not None or not told:
            differs = "it does not tell its tokens" if other is None else f"token {other[0]} is {other[2]!r} there"
            here = "" if other is None else f" and {other[1]!r} here"
            raise UserError(f"{name} has another vocabulary: {differs}{here}; choose a teacher of the student's family")
        return str(card["id"])

    def ask(self, asked: Sequence[tuple[Sequence[int], Sequence[int]]], *, compared: bool) -> list[Told | Failed]:
        """What it says of each response after its prompt; with its likeliest tokens if they are to be `compared`."""
        top = self.top if compared else 1
        answers = self.address.ask("completions", [_body([*prompt, *response], top) for prompt, response in asked])
        return [self._read(answer, *pair, top) for answer, pair in zip(answers, asked, strict=True)]

    def _read(
        self, answer: dict[str, Any] | Failed, prompt: Sequence[int], response: Sequence[int], top: int
    ) -> Told | Failed:
        if isinstance(answer, Failed):
            return answer
        told = Told(array("d"), array("q"), array("d"))
        try:
            rows = _rows(answer, len(prompt) + len(response))[len(prompt) :]
            for id, row in zip(response, rows, strict=True):
                found = {int(key): _logprob(said) for key, said in row.items()}
                told.logprobs.append(found[id])
                likeliest = sorted(found, key=lambda id: (-found[id], id))[:top]
                if len(likeliest) < top or not all(0 <= id < self.words for id in likeliest):
                    return Failed(f"{len(likeliest)} likeliest tokens, not {top} of the student's")
                told.top_ids.extend(likeliest)
                told.top_logprobs.extend(found[id] for id in likeliest)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return Failed(str(error) or "not what vLLM answers")
        return told


def _body(ids: Sequence[int], top: int) -> dict[str, Any]:
    return {"prompt": list(ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": top}


def _rows(answer: dict[str, Any] | Failed, tokens: int) -> list[Any]:
    if isinstance(answer, Failed):
        raise ValueError(answer.reason)
    rows = answer["choices"][0].get("prompt_logprobs")
    if not isinstance(rows, list) or len(rows) != tokens:
        raise ValueError(f"log-probabilities of {len(rows) if isinstance(rows, list) else 'no'} tokens, not {tokens}")
    return rows


def _logprob(said: Any) -> float:
    value = float(said["logprob"])
    if math.isnan(value) or value > IMPOSSIBLE:
        raise ValueError(f"{value} is no log-probability")
    return min(value, 0.0)


def _spread(chat: Chat, count: int) -> list[int]:
    """Ends of turn, control tokens, and words from all over the vocabulary."""
    every = sorted(chat.tokenizer.get_vocab().values())
    chosen = [*chat.eos_ids, *chat.controls.values(), *every[:: max(1, len(every) // count)]]
    return list(dict.fromkeys(chosen))[:count]
