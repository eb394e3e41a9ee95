"""Time and memory of the fused distillation head against its matrix products, the unfused head, and TRL's.

    python scripts/bench_head.py [--tokens 1024] [--vocabulary 151936] [--hidden 1024] [--topk 100] [--repeats 5]
        [--support tail|renormalise|full] [--chunk N] [--threads N] [--clock wall|cpu] [--trl-python PATH] [--json]
        [--sweep 256 512 1024 2048 4096 8192]

Loss and gradients (hidden states and student's head) of the reverse KL in float32, unclipped as TRL has no clip. Each
variant lives in a process of its own, with equal inputs by seed; they take turns, one run at a time. The limit,
`matmuls`, is the four products alone into memory that exists already; `two_matmuls` are those of the logits, all that
--support renormalise needs besides its support. Memory is the peak of resident memory in a first run (which also warms
up) beyond the inputs and the gradient of the head. A variant that needs whole logits is left out where they do not fit.
With --json the last line is one object: ratios of medians, and the raw seconds; with --sweep `sweep` has one for each.

TRL is installed apart, as it may want other versions: python -m venv trl && trl/bin/pip install torch trl, then
--trl-python trl/bin/python.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from turns import MIB, Variant, measured, serve, take_turns

LIMIT_TOKENS = 2048  # rows of logits of the bare products; more make them no faster, and need not fit
WHOLE_LOGITS = 9  # tensors [T, V] that autograd over whole logits may hold at its peak


class Inputs:
    """Hidden states and heads of a student and of a teacher that has moved a little away from it."""

    def __init__(self, tokens: int, vocabulary: int, hidden: int) -> None:
        random = torch.Generator().manual_seed(0)
        self.hidden_T_D = torch.randn(tokens, hidden, generator=random)
        self.weight_V_D = torch.randn(vocabulary, hidden, generator=random).mul_(2 * hidden**-0.5)  # logits of spread 2
        self.teacher_T_D = self.hidden_T_D + 0.2 * torch.randn(tokens, hidden, generator=random)
        self.teacher_V_D = self.weight_V_D.clone()
        self.ids_T = torch.randint(vocabulary, (tokens,), generator=random)
        self.hidden_T_D.requires_grad_()
        self.weight_V_D.requires_grad_()


def fused(inputs: Inputs, options: argparse.Namespace) -> Callable[[], float]:
    from resd.objectives.distill import Distillation
    from resd.objectives.head import CHUNK_TOKENS, TeacherHead, fused_head_loss

    rule = Distillation("reverse_kl", top_k=options.topk, support=options.support, ratio_min=None)
    teacher = TeacherHead(inputs.teacher_T_D, inputs.teacher_V_D, rule)

    def token_loss(rows: slice, logprobs_C: Tensor, divergence_C: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        assert divergence_C is not None
        return divergence_C.sum() / len(inputs.ids_T), {}

    def run() -> float:
        weights = inputs.hidden_T_D, inputs.weight_V_D
        loss, _ = fused_head_loss(
            *weights, inputs.ids_T, token_loss, teacher, chunk_tokens=options.chunk or CHUNK_TOKENS
        )
        loss.backward()
        return loss.item()

    return run


def unfused(inputs: Inputs, options: argparse.Namespace) -> Callable[[], float]:
    from resd.objectives.distill import Distillation

    return _whole_logits(
        inputs, Distillation("reverse_kl", top_k=options.topk, support=options.support, ratio_min=None)
    )


def trl(inputs: Inputs, options: argparse.Namespace) -> Callable[[], float]:
    from trl.experimental.sdpo import loss_utils

    def divergence(logits_T_V: Tensor, teacher_logits_T_V: Tensor) -> tuple[Tensor, None]:
        if options.support == "full":
            function, more = loss_utils.compute_full_logit_self_distillation_loss, {}
        else:
            function = loss_utils.compute_topk_self_distillation_loss
            more = {"distillation_topk": options.topk, "distillation_add_tail": options.support == "tail"}
        return function(logits_T_V, teacher_logits_T_V, distillation_alpha=1.0, **more), None

    return _whole_logits(inputs, divergence)


def _whole_logits(inputs: Inputs, divergence: Callable[[Tensor, Tensor], tuple[Tensor, Any]]) -> Callable[[], float]:
    def run() -> float:
        logits_T_V = inputs.hidden_T_D @ inputs.weight_V_D.T
        with torch.no_grad():
            teacher_logits_T_V = inputs.teacher_T_D @ inputs.teacher_V_D.T
        loss = divergence(logits_T_V, teacher_logits_T_V)[0].mean()
        loss.backward()
        return loss.item()

    return run


def matmuls(inputs: Inputs, options: argparse.Namespace) -> Callable[[], None]:
    return _products(inputs, gradient=True)


def two_matmuls(inputs: Inputs, options: argparse.Namespace) -> Callable[[], None]:
    return _products(inputs, gradient=False)


@torch.no_grad()
def _products(inputs: Inputs, gradient: bool) -> Callable[[], None]:
    rows = min(LIMIT_TOKENS, len(inputs.hidden_T_D))
    logits_C_V = torch.empty(rows, len(inputs.weight_V_D))
    d_hidden_T_D, d_weight_V_D = torch.empty_like(inputs.hidden_T_D), torch.empty_like(inputs.weight_V_D)

    @torch.no_grad()
    def run() -> None:
        parts = (x.split(rows) for x in (inputs.hidden_T_D, inputs.teacher_T_D, d_hidden_T_D))
        for number, (hidden_C_D, teacher_C_D, d_hidden_C_D) in enumerate(zip(*parts, strict=True)):
            out = logits_C_V[: len(hidden_C_D)]
            torch.mm(teacher_C_D, inputs.teacher_V_D.T, out=out)
            torch.mm(hidden_C_D, inputs.weight_V_D.T, out=out)
            if gradient:
                torch.mm(out, inputs.weight_V_D, out=d_hidden_C_D)
                d_weight_V_D.addmm_(out.T, hidden_C_D, beta=min(number, 1))

    return run


VARIANTS = {"matmuls": matmuls, "two_matmuls": two_matmuls, "fused": fused, "unfused": unfused, "trl": trl}


def child(name: str, options: argparse.Namespace) -> None:
    """A variant's process."""
    if options.threads:
        torch.set_num_threads(options.threads)
    warm = Inputs(2, 2 * options.topk, options.hidden)
    VARIANTS[name](warm, options)()
    inputs = Inputs(options.tokens, options.vocabulary, options.hidden)
    run = VARIANTS[name](inputs, options)

    def once() -> dict[str, float | None]:
        inputs.hidden_T_D.grad = inputs.weight_V_D.grad = None
        found = measured(run, options.clock)
        return found | {"mib": (found["mib"] or 0) - inputs.weight_V_D.nbytes / MIB}

    versions: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    serve(once, {"trl": version("trl")} if name == "trl" else versions)


def chosen(options: argparse.Namespace) -> dict[str, str]:
    """The interpreter of each variant that can run."""
    from resd.plan import main_memory

    python = {"matmuls": sys.executable, "fused": sys.executable}
    if options.support == "renormalise":
        python["two_matmuls"] = sys.executable
    if 4 * WHOLE_LOGITS * options.tokens * options.vocabulary < main_memory():
        python["unfused"] = sys.executable
        if options.trl_python:
            python["trl"] = options.trl_python
    return python


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one configuration."""
    tokens = ("--tokens", str(options.tokens))
    variants = {name: Variant(name, python, *tokens) for name, python in chosen(options).items()}
    losses = {name: variant.first["loss"] for name, variant in variants.items() if "matmuls" not in name}
    if any(abs(loss / losses["fused"] - 1) > 1e-4 for loss in losses.values()):
        raise SystemExit(f"the variants do not compute the same: {losses}")
    take_turns(variants, options.repeats)

    def over(name: str, of: Callable[[Variant], float]) -> float | None:
        return of(variants["fused"]) / of(variants[name]) if name in variants else None

    return {
        **{
            key: getattr(options, key)
            for key in ("tokens", "vocabulary", "hidden", "topk", "support", "repeats", "clock")
        },
        "time_over_matmuls": over("matmuls", lambda variant: variant.median),
        "time_over_two_matmuls": over("two_matmuls", lambda variant: variant.median),
        "time_over_unfused": over("unfused", lambda variant: variant.median),
        "time_over_trl": over("trl", lambda variant: variant.median),
        "memory_over_unfused": over("unfused", lambda variant: variant.first["mib"]),
        "memory_over_trl": over("trl", lambda variant: variant.first["mib"]),
        "median_seconds": {name: variant.median for name, variant in variants.items()},
        "peak_mib": {name: variant.first["mib"] for name, variant in variants.items() if "matmuls" not in name},
        "seconds": {name: variant.seconds for name, variant in variants.items()},
        "loss": losses,
        "machine": platform.machine(),
        "versions": {key: value for variant in variants.values() for key, value in variant.versions.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--topk", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--support", choices=["tail", "renormalise", "full"], default="tail")
    parser.add_argument("--chunk", type=int, help="tokens whose logits exist at once; default: the head's own")
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine that others use too"
    )
    parser.add_argument("--sweep", type=int, nargs="+", metavar="TOKENS", help="each of these instead of --tokens")
    parser.add_argument("--trl-python", help="interpreter of an environment with TRL")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--serve", choices=sorted(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        child(options.serve, options)
        return
    sweep = []
    for tokens in options.sweep or [options.tokens]:
        options.tokens = tokens
        sweep.append(measure(options))
        show(sweep[-1])
    if options.json:
        print(json.dumps({"sweep": sweep} if options.sweep else sweep[0]))


def show(found: dict[str, Any]) -> None:
    print(f"T {found['tokens']}  V {found['vocabulary']}  D {found['hidden']}  k {found['topk']}  {found['support']}")
    for name, seconds in found["median_seconds"].items():
        memory = f"{found['peak_mib'][name]:9.0f} MiB" if name in found["peak_mib"] else ""
        print(f"{name:11s} {seconds:8.2f} s {found['median_seconds']['fused'] / seconds:6.2f} x {memory}", flush=True)


if __name__ == "__main__":
    main()
