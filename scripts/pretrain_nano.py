"""Pretrains nano, a Qwen3-architecture model of about two million parameters, on dialects of the Manufactoria language.

    python scripts/pretrain_nano.py --minutes 55                   # writes resd/model/nano, resumable in runs/nano
    python scripts/pretrain_nano.py --evaluate --samples 200       # measures the folder without training

nano is a laboratory: small enough to train on two CPU cores, unfamiliar with the official dialect (which its corpus
never contains) the way a base model is unfamiliar with a new task, and able to use rules, feedback and examples in its
context. Its numbers say nothing about large models.

The schedule follows the larger of two fractions, of `--tokens` and of `--minutes`, so that either may bound a run:
warm up, constant, then linear to zero over the last 55 %. Only a run bounded by tokens repeats exactly. A run that is
started again continues from its last checkpoint with new documents.
"""

import argparse
import itertools
import json
import math
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from nano.card import write_card
from nano.documents import Writer, describe
from nano.measure import measure
from nano.tokenizer import train_tokenizer
from nano.train import answer_loss, stream
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).resolve().parents[1]
WARMUP_STEPS, DECAY_SHARE, CURRICULUM_SHARE = 100, 0.55, 0.75
MAX_POSITIONS, TOKENIZER_DOCUMENTS = 2048, 3000


@dataclass(slots=True)
class Progressed:
    """How far a run is; with the weights and the optimizer, all that resuming needs."""

    step: int = 0
    buffers: int = 0
    tokens: int = 0
    answers: int = 0
    seconds: float = 0.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "resd/model/nano", help="Hugging Face folder to write")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/nano", help="checkpoints and log, to resume from")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time, over all resumptions")
    parser.add_argument("--tokens", type=float, default=float("inf"), help="training tokens, padding not counted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--intermediate", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--buffer", type=int, default=1024, help="documents written at a time")
    parser.add_argument("--writers", type=int, default=0, help="processes that write documents ahead; 0: inline")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument(
        "--export-minutes", type=float, default=5.0, help="how often the folder and checkpoint are written"
    )
    parser.add_argument(
        "--evaluate", action="store_true", help="measure --out; write its evaluation.json and README.md"
    )
    parser.add_argument("--samples", type=int, default=200, help="problems for each evaluated situation")
    return parser.parse_args()


def build_model(options: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 decoder with heads of 32, three query heads to a key/value head, and tied embeddings."""
    heads = options.hidden // 32
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=options.hidden,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 3),
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config).to(options.device)


def export(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace, record: Any
) -> None:
    """Weights in bfloat16, configuration and tokenizer, as vLLM and transformers read them, and the run's record."""
    folder = options.out
    copy: Any = Qwen3ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    copy.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {"lr": options.lr, "batch": options.batch_tokens, "seed": options.seed, "device": options.device}
    facts |= {"parameters": model.num_parameters(), "corpus": describe()}
    (folder / "training.json").write_text(json.dumps(record | facts, indent=1) + "\n")


def rate(step: int, fraction: float, peak: float) -> float:
    """The learning rate at a step and a fraction of the run."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, max(0.0, 1.0 - fraction) / DECAY_SHARE)


def prepare_tokenizer(options: argparse.Namespace) -> Any:
    """The run's tokenizer, trained on the first documents when there is none yet."""
    folder = options.work / "tokenizer"
    if folder.exists():
        return AutoTokenizer.from_pretrained(folder)
    writer, rng = Writer(), random.Random(f"{options.seed}/tokenizer")
    documents = [writer.draw(rng, level=rng.random()) for _ in range(TOKENIZER_DOCUMENTS)]
    texts = (text for document in documents for turn in document.turns for text in turn)
    tokenizer = train_tokenizer(texts, options.vocabulary, MAX_POSITIONS)
    tokenizer.save_pretrained(folder)
    return tokenizer


def optimizers_for(model: Qwen3ForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms; weight decay on matrices only.

    Muon reaches the same loss with less than half the tokens that AdamW alone needs here.
    """
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": [embedding], "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), foreach=True),
    ]


class Checkpoint:
    """The file a run resumes from; replaced as a whole, so that an interruption never leaves half of one."""

    def __init__(self, work: Path) -> None:
        self.path = work / "checkpoint.pt"

    def save(self, model: Any, optimizers: list[torch.optim.Optimizer], done: Progressed) -> None:
        partial, states = self.path.with_suffix(".partial"), [optimizer.state_dict() for optimizer in optimizers]
        torch.save({"model": model.state_dict(), "optimizers": states, "done": asdict(done)}, partial)
        os.replace(partial, self.path)

    def load(self, model: Any, optimizers: list[torch.optim.Optimizer]) -> Progressed:
        if not self.path.exists():
            return Progressed()
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return Progressed(**state["done"])


def train(options: argparse.Namespace) -> Progressed:
    """Trains until a bound is reached; returns how far it came."""
    options.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    tokenizer = prepare_tokenizer(options)
    model = build_model(options, tokenizer)
    optimizers = optimizers_for(model, options.lr)
    checkpoint = Checkpoint(options.work)
    done = checkpoint.load(model, optimizers)

    def fraction() -> float:
        return max(done.seconds / 60 / options.minutes, done.tokens / options.tokens)

    batches = stream(tokenizer, lambda: min(1.0, fraction() / CURRICULUM_SHARE), options, done)
    columns = (TextColumn("nano"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    written = done.seconds
    with Progress(*columns) as bar, (options.work / "log.jsonl").open("a") as log:
        task = bar.add_task("", total=1.0)
        mean, record, last = float("nan"), asdict(done), time.monotonic()
        while fraction() < 1.0:
            batch = next(batches).to(options.device)
            for group in itertools.chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
                group["lr"] = rate(done.step, fraction(), options.lr)
            loss, plain = answer_loss(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            done.step += 1
            done.tokens += batch.tokens
            done.answers += batch.answers
            now = time.monotonic()
            done.seconds, last = done.seconds + now - last, now
            mean = plain.item() if math.isnan(mean) else 0.98 * mean + 0.02 * plain.item()
            if done.step % 20 == 0:
                record = asdict(done) | {"loss": round(mean, 4)}
                text = f"step {done.step}  {done.tokens / 1e6:.1f} M tokens  loss {mean:.3f}"
                bar.update(task, completed=fraction(), description=text)
                log.write(json.dumps(record) + "\n")
                log.flush()
            if done.seconds - written > 60 * options.export_minutes:
                written = done.seconds
                checkpoint.save(model, optimizers, done)
                export(model, tokenizer, options, record)
    checkpoint.save(model, optimizers, done)
    export(model, tokenizer, options, record)
    return done


def main() -> None:
    options = arguments()
    if options.evaluate:
        measure(options.out, options.samples, options.seed)
        write_card(options.out)
    else:
        train(options)


if __name__ == "__main__":
    main()
