"""Batches of similar lengths, the loss on answer tokens, and the state from which a run resumes."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from nano.documents import Document, Writer


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids_B_T` padded on the right; `weights_B_T` is 0 on prompts and padding, and belongs to the token itself."""

    ids_B_T: Int[Tensor, "B T"]
    weights_B_T: Float[Tensor, "B T"]

    tokens: int  # without padding

    @property
    def answers(self) -> int:
        """How many tokens carry loss."""
        return int((self.weights_B_T > 0).sum())

    def to(self, device: str) -> "Batch":
        return Batch(self.ids_B_T.to(device), self.weights_B_T.to(device), self.tokens)


def encode(tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document]) -> list[tuple[list[int], int]]:
    """Ids of each document, and where its answer begins."""
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": d.prompt}], tokenize=False, add_generation_prompt=True)
        for d in documents
    ]
    answers = [d.answer + tokenizer.eos_token for d in documents]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return [(p + a, len(p)) for p, a in zip(prompt_ids, answer_ids, strict=True)]


def make_batches(
    tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document], tokens: int, max_length: int, rng: random.Random
) -> list[Batch]:
    """Documents grouped by length (so that little is padding) into batches of at most `tokens`, in random order.

    A document's answer tokens share the weight sqrt(length): a one-line lesson counts less than a program, but not
    fifteen times less. Documents beyond `max_length` are left out.
    """
    encoded = sorted((e for e in encode(tokenizer, documents) if len(e[0]) <= max_length), key=lambda e: len(e[0]))
    groups: list[list[tuple[list[int], int]]] = [[]]
    for item in encoded:
        if groups[-1] and (len(groups[-1]) + 1) * len(item[0]) > tokens:
            groups.append([])
        groups[-1].append(item)
    batches = []
    for group in groups:
        shape = (len(group), len(group[-1][0]))
        ids_B_T = torch.full(shape, int(tokenizer.pad_token_id))
        weights_B_T = torch.zeros(shape)
        for row, (ids, start) in enumerate(group):
            ids_B_T[row, : len(ids)] = torch.tensor(ids)
            weights_B_T[row, start : len(ids)] = (len(ids) - start) ** -0.5
        batches.append(Batch(ids_B_T, weights_B_T, sum(len(ids) for ids, _ in group)))
    rng.shuffle(batches)
    return batches


def stream(
    tokenizer: PreTrainedTokenizerFast, level: Callable[[], float], options: Any, done: Any
) -> Iterator[Batch]:
    """Endless batches from buffers of documents, each written from its own seed; `done.buffers` counts those used up.

    `level()` is the curriculum's level, read when a buffer is written.
    """
    writer = Writer()
    while True:
        rng = random.Random(f"{options.seed}/{done.buffers}")
        documents = [writer.draw(rng, level()) for _ in range(options.buffer)]
        yield from make_batches(tokenizer, documents, options.batch_tokens, options.max_length, rng)
        done.buffers += 1


def answer_loss(model: Qwen3ForCausalLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """The weighted mean and the plain mean (detached) of the negative log-likelihood per answer token, in nats."""
    hidden_B_T_D = model.model(batch.ids_B_T, use_cache=False).last_hidden_state[:, :-1]
    weights_B_T = batch.weights_B_T[:, 1:]
    answers_B_T = weights_B_T > 0
    loss_N = F.cross_entropy(
        model.lm_head(hidden_B_T_D[answers_B_T]).float(), batch.ids_B_T[:, 1:][answers_B_T], reduction="none"
    )
    weights_N = weights_B_T[answers_B_T]
    return (loss_N * weights_N).sum() / weights_N.sum(), loss_N.mean().detach()
