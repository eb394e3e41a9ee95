"""Attempts of several turns: how they grow, and what of them is the student's own.

Token in, token out: what a reply was sampled as stays as it is, and between two replies come the ids that the chat
template puts there. Layer 0, as `types`.
"""

from collections.abc import Sequence
from dataclasses import replace

from resd.thinking import strip_thinking
from resd.types import Attempt, Completion, Messages, Turn


def begin(attempt: Attempt) -> None:
    """The response is the first reply of several, maybe."""
    attempt.turns, attempt.mask = [Turn(attempt.response)], [True] * len(attempt.response_ids)


def reply(attempt: Attempt, said: Completion, text: str) -> None:
    """Take down a further reply, and the text of its tokens."""
    attempt.response_ids = [*attempt.response_ids, *said.ids]
    attempt.logprobs = [*attempt.logprobs, *said.logprobs]
    attempt.mask = [*(attempt.mask or []), *[True] * len(said.ids)]
    attempt.truncated = said.truncated
    attempt.turns = [*attempt.turns, Turn(text)]
    attempt.response = transcript(attempt.turns, attempt.opened)


def hear(attempt: Attempt, said: Messages, ids: Sequence[int]) -> None:
    """Take down what the environment says to the last reply; `ids` lead from that to the beginning of the next."""
    attempt.response_ids = [*attempt.response_ids, *ids]
    attempt.logprobs = [*attempt.logprobs, *[0.0] * len(ids)]
    attempt.mask = [*(attempt.mask or []), *[False] * len(ids)]
    attempt.turns = [*attempt.turns[:-1], replace(attempt.turns[-1], heard=said)]


def transcript(turns: Sequence[Turn], opened: str = "") -> str:
    """Who said what, as text, each reply after `opened`; a single reply is its own text."""
    *before, last = turns
    if not before:
        return last.reply
    return begins(opened) + "".join(turn.reply + between(turn, opened) for turn in before) + last.reply


def begins(opened: str) -> str:
    """What stands before a reply in a transcript."""
    return f"assistant: {opened}"


def between(turn: Turn, opened: str) -> str:
    """What stands between a reply and the next one in a transcript."""
    said = [f"{message['role']}: {message['content']}" for message in turn.heard]
    return "\n\n".join(["", *said, begins(opened)])


def spoken(attempt: Attempt, opened: bool = False) -> str:
    """The response without thinking (`opened`: see `strip_thinking`); of several turns, who said what."""
    if len(attempt.turns) < 2:
        return strip_thinking(attempt.response, opened)
    return transcript([replace(turn, reply=strip_thinking(turn.reply, opened)) for turn in attempt.turns])


def own_words(attempt: Attempt) -> str:
    """What the student itself said, without what the environment did."""
    return "\n\n".join(turn.reply for turn in attempt.turns) if attempt.turns else attempt.response


def ends(attempt: Attempt) -> list[float]:
    """The log-probabilities of the tokens that ended a turn."""
    own = attempt.mask or [True] * len(attempt.logprobs)
    goes_on = [*own[1:], False][: len(own)]
    last = [p for p, mine, more in zip(attempt.logprobs, own, goes_on, strict=True) if mine and not more]
    return last[:-1] if attempt.truncated else last
