"""Time and memory of the fused distillation head against its matrix products, the unfused head, and TRL's.

    python scripts/bench_head.py [--tokens 1024] [--vocabulary 151936] [--hidden 1024] [--topk 100] [--repeats 5]
        [--support tail|renormalise|full] [--chunk N] [--threads N] [--clock wall|cpu] [--trl-python PATH] [--json]

Loss and gradients (hidden states and student's head) of the reverse KL in float32, unclipped as TRL has no clip. Each
variant lives in a process of its own, with equal inputs by seed; they take turns, one run at a time. The limit,
`matmuls`, is the four products alone into memory that exists already. Memory is the peak of resident memory in a first
run (which also warms up) beyond the inputs and the gradient of the head. A variant that needs whole logits is left out
where they do not fit. With --json the last line is one object: ratios of medians, and the raw seconds.

TRL is installed apart, as it may want other versions: python -m venv trl && trl/bin/pip install torch trl, then
--trl-python trl/bin/python.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MIB = 2**20
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


@torch.no_grad()
def matmuls(inputs: Inputs, options: argparse.Namespace) -> Callable[[], None]:
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
            torch.mm(out, inputs.weight_V_D, out=d_hidden_C_D)
            d_weight_V_D.addmm_(out.T, hidden_C_D, beta=min(number, 1))

    return run


VARIANTS = {"matmuls": matmuls, "fused": fused, "unfused": unfused, "trl": trl}


def serve(name: str, options: argparse.Namespace) -> None:
    """A variant's process: one run for each line of standard input, one JSON object for each run."""
    if options.threads:
        torch.set_num_threads(options.threads)
    warm = Inputs(2, 2 * options.topk, options.hidden)
    VARIANTS[name](warm, options)()
    inputs = Inputs(options.tokens, options.vocabulary, options.hidden)
    run = VARIANTS[name](inputs, options)
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if name == "trl":
        versions = {"trl": __import__("trl").__version__}
    print(json.dumps(versions), flush=True)
    for _ in sys.stdin:
        inputs.hidden_T_D.grad = inputs.weight_V_D.grad = None
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
        before = _resident("VmRSS")
        clock = time.process_time if options.clock == "cpu" else time.perf_counter
        start = clock()
        loss = run()
        seconds = clock() - start
        beyond = _resident("VmHWM") - before - inputs.weight_V_D.nbytes
        print(json.dumps({"seconds": seconds, "mib": beyond / MIB, "loss": loss}), flush=True)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class Variant:
    """A variant's process as its parent sees it."""

    def __init__(self, name: str, python: str) -> None:
        command = [python, __file__, *sys.argv[1:], "--serve", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._read()
        self.first = self.run()
        self.seconds: list[float] = []

    def run(self) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended early")
        return json.loads(line)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def chosen(options: argparse.Namespace) -> dict[str, str]:
    """The interpreter of each variant that can run."""
    python = {"matmuls": sys.executable, "fused": sys.executable}
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    if 4 * WHOLE_LOGITS * options.tokens * options.vocabulary < 1024 * int(available.split()[1]):
        python["unfused"] = sys.executable
        if options.trl_python:
            python["trl"] = options.trl_python
    return python


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one configuration."""
    variants = {name: Variant(name, python) for name, python in chosen(options).items()}
    losses = {name: variant.first["loss"] for name, variant in variants.items() if name != "matmuls"}
    if any(abs(loss / losses["fused"] - 1) > 1e-4 for loss in losses.values()):
        raise SystemExit(f"the variants do not compute the same: {losses}")
    for _ in range(options.repeats):
        for variant in variants.values():
            variant.seconds.append(variant.run()["seconds"])
    for variant in variants.values():
        variant.process.communicate()

    def over(name: str, of: Callable[[Variant], float]) -> float | None:
        return of(variants["fused"]) / of(variants[name]) if name in variants else None

    return {
        **{
            key: getattr(options, key)
            for key in ("tokens", "vocabulary", "hidden", "topk", "support", "repeats", "clock")
        },
        "time_over_matmuls": over("matmuls", lambda variant: variant.median),
        "time_over_unfused": over("unfused", lambda variant: variant.median),
        "time_over_trl": over("trl", lambda variant: variant.median),
        "memory_over_unfused": over("unfused", lambda variant: variant.first["mib"]),
        "memory_over_trl": over("trl", lambda variant: variant.first["mib"]),
        "median_seconds": {name: variant.median for name, variant in variants.items()},
        "peak_mib": {name: variant.first["mib"] for name, variant in variants.items() if name != "matmuls"},
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
    parser.add_argument("--trl-python", help="interpreter of an environment with TRL")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--serve", choices=sorted(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options)
        return
    found = measure(options)
    print(f"T {options.tokens}  V {options.vocabulary}  D {options.hidden}  k {options.topk}  {options.support}")
    for name, seconds in found["median_seconds"].items():
        memory = f"{found['peak_mib'][name]:9.0f} MiB" if name in found["peak_mib"] else ""
        print(f"{name:8s} {seconds:8.2f} s {found['median_seconds']['fused'] / seconds:6.2f} x {memory}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
