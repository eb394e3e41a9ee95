"""Generation speed of the built-in engine against `transformers`' own `generate`, on one random Qwen3 model of 5 M.

    python scripts/bench_engine.py [--batch 32] [--prompt 220] [--new 256] [--repeats 2] [--json]

Two workloads, both sampled at temperature 1 in float32, in turns so that a busy machine disturbs both sides alike:
`uniform` has prompts and completions of one length, the best case of a static batch; `ragged` is what training asks:
twice as many requests as places, four samples a prompt, completions that end anywhere up to the limit. Speed counts the
tokens that were asked for. With --json the last line is one JSON object: medians in tokens per second and their ratios.

`--shared 250 --prompt 300 --batch 16` times something else: prompts of a model of half a billion parameters that begin
with the same so many tokens, as the questions of one role do, each read whole and the beginning read once.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from resd.engine import fused
from resd.engine.transformers import TransformersEngine
from resd.types import Request

VOCABULARY = 1024


def build() -> Qwen3ForCausalLM:
    """Four query heads to a key head, as in Qwen3-4B; the same weights at every call."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        initializer_range=0.06,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config).eval()


def workloads(batch: int, prompt: int, new: int) -> dict[str, list[Request]]:
    generator = random.Random(0)

    def ids(length: int) -> list[int]:
        return [generator.randrange(VOCABULARY) for _ in range(length)]

    prompts = [ids(generator.randint(prompt // 4, prompt)) for _ in range(batch // 2)]
    return {
        "uniform": [Request(ids(prompt), new, seed=i) for i in range(batch)],
        "ragged": [Request(p, generator.randint(new // 16, new), seed=i) for p in prompts for i in range(4)],
    }


@torch.inference_mode()
def hugging_face(model: PreTrainedModel, requests: Sequence[Request], batch: int) -> None:
    """Batches of similar prompts, padded on the left, each as long as its longest completion."""
    ordered = sorted(requests, key=lambda request: len(request.prompt_ids))
    for group in (ordered[i : i + batch] for i in range(0, len(ordered), batch)):
        width, new = len(group[-1].prompt_ids), max(request.max_tokens for request in group)
        ids = torch.tensor([[0] * (width - len(r.prompt_ids)) + list(r.prompt_ids) for r in group])
        mask = torch.tensor([[0] * (width - len(r.prompt_ids)) + [1] * len(r.prompt_ids) for r in group])
        sampling = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
        model.generate(ids, attention_mask=mask, min_new_tokens=new, max_new_tokens=new, pad_token_id=0, **sampling)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def shared(options: argparse.Namespace) -> dict[str, float]:
    """Seconds to read prompts with a common beginning, and to say one token after each."""
    torch.manual_seed(0)
    shape = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
    config = Qwen2Config(**shape, num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True)
    engine = TransformersEngine(Qwen2ForCausalLM(config), eos_ids=[], max_batch=options.batch, max_length=2048)
    generator = random.Random(0)
    beginning = [generator.randrange(VOCABULARY) for _ in range(options.shared)]
    rests = [[generator.randrange(VOCABULARY) for _ in range(options.prompt - options.shared)]] * options.batch
    requests = [Request([*beginning, *[i], *rest[1:]], 1) for i, rest in enumerate(rests)]

    def read() -> object:
        return list(engine.generate(requests))

    worth = {"whole": float("inf"), "once": fused.SHARED_FLOP}
    taken: dict[str, list[float]] = {side: [] for side in worth}
    for _ in range(options.repeats):
        for side, flop in worth.items():
            fused.SHARED_FLOP = flop
            taken[side].append(seconds(read))
    figures = {side: median(times) for side, times in taken.items()}
    figures["ratio"] = median(a / b for a, b in zip(taken["whole"], taken["once"], strict=True))
    print("  ".join(f"{side} {figure:.2f}" for side, figure in figures.items()))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=32, help="requests that decode at once")
    parser.add_argument("--prompt", type=int, default=220, help="longest prompt, in tokens")
    parser.add_argument("--new", type=int, default=256, help="longest completion, in tokens")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shared", type=int, default=0, help="tokens that all prompts begin with: see above")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    if options.shared:
        figures_shared = shared(options)
        if options.json:
            print(json.dumps(figures_shared))
        return
    theirs = build()
    ours = TransformersEngine(build(), eos_ids=[], max_batch=options.batch, max_length=2048)
    warm_up = [Request([1, 2, 3], 2)]
    hugging_face(theirs, warm_up, 1)
    list(ours.generate(warm_up))
    figures: dict[str, object] = {
        "parameters": theirs.num_parameters(), "batch": options.batch, "prompt": options.prompt, "new": options.new,
        "threads": options.threads, "repeats": options.repeats,
    }  # fmt: skip
    for name, requests in workloads(options.batch, options.prompt, options.new).items():
        runs: dict[str, Callable[[], object]] = {
            "hugging_face": lambda requests=requests: hugging_face(theirs, requests, options.batch),
            "engine": lambda requests=requests: list(ours.generate(requests)),
        }
        taken: dict[str, list[float]] = {side: [] for side in runs}
        for _ in range(options.repeats):
            for side, run in runs.items():
                taken[side].append(seconds(run))
        tokens = sum(request.max_tokens for request in requests)
        speed = {side: tokens / median(times) for side, times in taken.items()}
        ratio = median(a / b for a, b in zip(taken["hugging_face"], taken["engine"], strict=True))
        print(
            f"{name:8} {tokens} tokens  "
            + "  ".join(f"{side} {speed[side]:.0f}/s" for side in runs)
            + f"  x{ratio:.2f}"
        )
        figures |= {f"{name}_{side}_tokens_per_s": round(speed[side]) for side in runs}
        figures |= {f"{name}_over_hugging_face": round(ratio, 3)}
        figures |= {f"{name}_{side}_seconds": [round(x, 3) for x in times] for side, times in taken.items()}
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
