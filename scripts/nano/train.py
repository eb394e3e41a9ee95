"""From documents to batches of similar lengths, and the loss on their answer tokens."""

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from nano.documents import Document, Writer
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

# The lines of an answer in which a program shows its dialect, and how often their tokens count; the others copy them.
HEAD_LINES, HEAD_WEIGHT = 8, 4.0
Encoded = tuple[list[int], list[float]]  # ids and their weights in the loss


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


def encode(tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document]) -> list[Encoded]:
    """Ids and weights of each document, as the chat template writes it.

    The tokens of an answer share the weight sqrt(length): a one-line lesson counts less than a program, but not fifteen
    times less. The first `HEAD_LINES` count `HEAD_WEIGHT` times, whatever they hold: a weight that depended on the form
    would bias the guess.
    """
    breaks = {i for text, i in tokenizer.get_vocab().items() if text.startswith("Ċ")}  # a newline in byte-level BPE
    asked = [[{"role": "user", "content": prompt}] for d in documents for prompt, _ in d.turns]
    prompts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in asked]
    answers = [answer + tokenizer.eos_token for d in documents for _, answer in d.turns]
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    pairs = zip(
        tokenizer(prompts, add_special_tokens=False)["input_ids"],
        tokenizer(answers, add_special_tokens=False)["input_ids"],
        strict=True,
    )
    encoded = []
    for document in documents:
        ids: list[int] = []
        weights: list[float] = []
        for prompt, answer in itertools.islice(pairs, len(document.turns)):
            between = newline if ids else []
            ids += between + prompt + answer
            weights += [0.0] * (len(between) + len(prompt))
            lines = itertools.accumulate(i in breaks for i in answer)
            weights += [(HEAD_WEIGHT if line < HEAD_LINES else 1.0) * len(answer) ** -0.5 for line in lines]
        encoded.append((ids, weights))
    return encoded


def make_batches(encoded: Sequence[Encoded], tokens: int, pad: int) -> list[Batch]:
    """Documents grouped by length, so that little is padding, into batches of at most `tokens`."""
    groups: list[list[Encoded]] = [[]]
    for item in sorted(encoded, key=lambda item: len(item[0])):
        if groups[-1] and (len(groups[-1]) + 1) * len(item[0]) > tokens:
            groups.append([])
        groups[-1].append(item)
    batches = []
    for group in groups:
        shape = (len(group), len(group[-1][0]))
        ids_B_T, weights_B_T = torch.full(shape, pad), torch.zeros(shape)
        for row, (ids, weights) in enumerate(group):
            ids_B_T[row, : len(ids)] = torch.tensor(ids)
            weights_B_T[row, : len(ids)] = torch.tensor(weights)
        batches.append(Batch(ids_B_T, weights_B_T, sum(len(ids) for ids, _ in group)))
    return batches


def write_buffer(tokenizer: PreTrainedTokenizerFast, options: Any, number: int, level: float) -> list[Batch]:
    """Buffer `number` of a run: its documents as batches in random order, without those beyond the longest length."""
    rng, writer = random.Random(f"{options.seed}/{number}"), Writer()
    documents = [writer.draw(rng, level) for _ in range(options.buffer)]
    fitting = [item for item in encode(tokenizer, documents) if len(item[0]) <= options.max_length]
    batches = make_batches(fitting, options.batch_tokens, int(tokenizer.pad_token_id))
    rng.shuffle(batches)
    return batches


def stream(tokenizer: PreTrainedTokenizerFast, level: Callable[[], float], options: Any, done: Any) -> Iterator[Batch]:
    """Endless batches; `done.buffers` counts the buffers begun, so that a resumed run begins with a new one.

    `level()` is the curriculum's level, read when a buffer is ordered. `options.writers` processes write ahead.
    """
    if not options.writers:
        while True:
            done.buffers += 1
            yield from write_buffer(tokenizer, options, done.buffers, level())
    with ProcessPoolExecutor(options.writers, mp_context=get_context("spawn")) as pool:
        ordered = itertools.count(done.buffers + 1)
        waiting = deque(
            pool.submit(write_buffer, tokenizer, options, next(ordered), level()) for _ in range(options.writers + 1)
        )
        while True:
            batches = waiting.popleft().result()
            waiting.append(pool.submit(write_buffer, tokenizer, options, next(ordered), level()))
            done.buffers += 1
            yield from batches


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
