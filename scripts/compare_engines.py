"""vLLM and the built-in engine on one pretrained model: the same greedy tokens, the same probabilities, and how fast.

    .venv-vllm/bin/python scripts/compare_engines.py FOLDER [--dtype bfloat16] [--requests 32] [--new 48] [--repeats 3]

Requests are prompts of `house_style`. `greedy` is the share of responses that are the same token by token, and `places`
the share of tokens before the first that differs. `mismatch_kl` is what a run calls so: the k3 estimate between what
each engine says of the tokens that it sampled and what transformers computes for them in one pass, in nats a token.
Speeds are medians of tokens a second, in turns. Sampled at temperature 1, the only one of which vLLM says what it does.
One JSON object a line.

It needs vLLM (`make test-vllm` sets it up). Not covered: several processes, and GPUs.
"""

import argparse
import json
import time
from collections.abc import Sequence
from math import exp
from statistics import fmean, median

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from resd import dist, envs
from resd.engine.base import Engine
from resd.engine.transformers import TransformersEngine
from resd.engine.vllm import VllmEngine
from resd.model.chat import Chat
from resd.settings import ModelSettings, VllmSettings
from resd.types import Completion, Request

LENGTH = 512


def ask(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    done = dict(engine.generate(requests))
    return [done[i] for i in range(len(requests))]


def agreement(ours: Sequence[Completion], theirs: Sequence[Completion]) -> dict[str, float]:
    """The shares of equal responses, and of tokens before the first difference."""
    equal = [one.ids == other.ids for one, other in zip(ours, theirs, strict=True)]
    alike = [
        next((i for i, (a, b) in enumerate(zip(one.ids, other.ids, strict=False)) if a != b), len(one.ids))
        for one, other in zip(ours, theirs, strict=True)
    ]
    return {"greedy": fmean(equal), "places": sum(alike) / sum(len(one.ids) for one in ours)}


@torch.inference_mode()
def mismatch(model: PreTrainedModel, requests: Sequence[Request], said: Sequence[Completion]) -> float:
    gaps = []
    for request, completion in zip(requests, said, strict=True):
        ids = torch.tensor([[*request.prompt_ids, *completion.ids]])
        logits_T_V = model(ids).logits[0, len(request.prompt_ids) - 1 : -1].float()
        exact = logits_T_V.log_softmax(-1).gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
        gaps += (exact - torch.tensor(completion.logprobs)).tolist()
    return fmean(exp(gap) - 1 - gap for gap in gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    for name, default in (("requests", 32), ("new", 48), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()

    chat = Chat(
        ModelSettings(
            path=given.folder, prompts="small", output_format="lines", enable_thinking=False, attention="sdpa",
            max_prompt=LENGTH,
        )
    )  # fmt: skip
    task = envs.load("house_style")
    prompts = [chat.ids(task.prompt(problem)) for problem in task.problems("train")[: given.requests]]
    greedy = [Request(ids, given.new, temperature=0.0, seed=i) for i, ids in enumerate(prompts)]
    sampled = [Request(ids, given.new, temperature=1.0, seed=i) for i, ids in enumerate(prompts)]

    dist.start("cpu")
    settings = VllmSettings(
        name="vllm", pipelined=True, dtype=given.dtype, max_batch=given.requests, tensor_parallel=1, gpu_memory=0.4,
        kv_cache_gb=1, enforce_eager=True,
    )  # fmt: skip
    theirs = VllmEngine(given.folder, settings, eos_ids=chat.eos_ids, max_length=LENGTH, device="cpu")
    model = AutoModelForCausalLM.from_pretrained(given.folder, dtype=getattr(torch, given.dtype)).eval()
    ours = TransformersEngine(model, eos_ids=chat.eos_ids, max_batch=given.requests, max_length=LENGTH)

    print(json.dumps(agreement(ask(ours, greedy), ask(theirs, greedy))))
    seconds: dict[str, list[float]] = {"built-in": [], "vllm": []}
    for _ in range(given.repeats):
        for name, engine in (("built-in", ours), ("vllm", theirs)):
            start = time.perf_counter()
            said = ask(engine, sampled)
            spent = time.perf_counter() - start
            seconds[name].append(sum(len(each.ids) for each in said) / spent)
            if len(seconds[name]) == given.repeats:
                print(json.dumps({"engine": name, "mismatch_kl": mismatch(model, sampled, said)}))
    speeds = {name: median(each) for name, each in seconds.items()}
    print(json.dumps({"tokens_per_s": speeds, "vllm/built-in": speeds["vllm"] / speeds["built-in"]}))


if __name__ == "__main__":
    main()
