"""One whole training step against TRL's `SDPOTrainer`: the same Qwen3 model, the same attempts, in turns.

    PYTHONPATH=. python scripts/bench_step.py [--attempts 32] [--prompt 200 600] [--teacher-prompt 200 600]
        [--response 50 300] [--topk 100] [--repeats 5] [--threads N] [--clock wall|cpu] [--model resd/model/nano]
        [--vocabulary N] [--trl-python PATH] [--trl-batch 32 8 4] [--breakdown | --memory 256 1024 4096] [--json]

A step is everything between a batch of token ids and the next batch: forward and backward pass of the student, forward
pass of the teacher, loss, clipping, AdamW, and the step of the teacher's moving average. Neither side generates.
Both minimise the reverse KL over the student's top k with a tail bucket, unclipped as TRL has no clip, in float32,
with equal settings of optimizer and average; the losses of all steps are compared, so that a side that does less work
is found out. Lengths are drawn evenly from the given ranges. TRL pads a batch to its longest prompt and longest
response; `--trl-batch` is its `per_device_train_batch_size`, the rest is accumulated; the fastest of several counts.
Gradient checkpointing, which TRL switches on by itself, is off on both sides.

`--breakdown` says where the time of a RESD step goes. `--memory` gives the peak of a step beyond weights, moments and
average, for responses of these lengths. TRL is installed apart: python -m venv trl && trl/bin/pip install torch trl,
then --trl-python trl/bin/python. With --json the last line is one object.
"""

import argparse
import json
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from turns import Variant, measured, serve, take_turns

LR, BETAS, CLIP, RATE = 1e-5, (0.9, 0.999), 1.0, 0.05
WHOLE_LOGITS = 6  # tensors [T, V] that TRL may hold at its peak


class Ids(NamedTuple):
    """One attempt."""

    prompt: list[int]
    teacher_prompt: list[int]
    response: list[int]


def batch(options: argparse.Namespace, vocabulary: int) -> list[Ids]:
    """Random ids; the same in every process."""
    source = random.Random(0)

    def ids(lengths: tuple[int, int]) -> list[int]:
        return [source.randrange(10, vocabulary) for _ in range(source.randint(*lengths))]

    ranges = (options.prompt, options.teacher_prompt, options.response)
    return [Ids(*(ids(lengths) for lengths in ranges)) for _ in range(options.attempts)]


def resd(options: argparse.Namespace) -> Callable[[], float]:
    """The learner as a run builds it."""
    learner, samples = build(options)
    step = iter(range(1, 10**9))
    return lambda: learner.update(samples, next(step))["loss"]


def build(options: argparse.Namespace) -> tuple[Any, list[Any]]:
    from hydra import compose, initialize_config_dir

    from resd import dist
    from resd.config import CONF, validate
    from resd.learn.learner import Learner
    from resd.model.build import build_student
    from resd.services import build_objective, build_teacher
    from resd.types import Sample

    changes = [
        "task=manufactoria",
        f"model.path={options.model}",
        f"algorithm.teacher.rate={RATE}",
        f"algorithm.objective.top_k={options.topk}",
        "algorithm.objective.ratio_min=null",
        "loss.importance_cap=null",
        f"optimizer={{lr:{LR},betas:[{BETAS[0]},{BETAS[1]}],weight_decay:0.0,warmup:0,grad_clip:{CLIP},mini_batches:1}}",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = validate(compose("config", changes + options.set))
    mesh = dist.start("cpu")
    student = build_student(settings.model, settings.hardware, mesh)
    teacher = build_teacher(settings, student, mesh)
    objective = build_objective(settings)
    learner = Learner(student, teacher, objective, settings.optimizer, settings.hardware, pad_id=0)
    vocabulary = student.lm.config.vocab_size
    samples = [
        Sample(ids.prompt, ids.response, [0.0] * len(ids.response), ids.teacher_prompt)
        for ids in batch(options, vocabulary)
    ]
    return learner, samples


def trl(options: argparse.Namespace) -> Callable[[], float]:
    """TRL's trainer as `trl_step` drives it."""
    import trl_step

    attempts = batch(options, AutoConfig.from_pretrained(options.model).vocab_size)
    return trl_step.step(options.model, attempts, options.trl_batch[0], options.topk, LR, BETAS, CLIP, RATE)


def breakdown(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the parts of a RESD step, medians; a part inside another one is not counted twice."""
    import resd.learn.learner
    from resd.clock import Clock

    learner, samples = build(options)
    clock = learner.clock = Clock(time.process_time if options.clock == "cpu" else time.perf_counter)

    def timed(owner: Any, name: str, phase: str) -> None:
        function = getattr(owner, name)

        def run(*arguments: Any, **more: Any) -> Any:
            with clock(phase):
                return function(*arguments, **more)

        setattr(owner, name, run)

    timed(learner, "update", "everything else")
    timed(learner, "_micro_batch", "packing")
    timed(learner.policy, "forward", "student forward")
    timed(resd.learn.learner, "fused_head_loss", "head, gradient included")
    timed(torch.Tensor, "backward", "student backward")
    timed(torch.nn.utils, "clip_grad_norm_", "optimizer")
    timed(learner.optimizer, "step", "optimizer")
    timed(learner.teacher, "update", "moving average")
    learner.update(samples, 1)
    clock.read()
    found = []
    for step in range(options.repeats):
        learner.update(samples, 2 + step)
        found.append({name.removeprefix("time/"): seconds for name, seconds in clock.read().items()})
    return {name.replace("teacher", "teacher forward"): median(part[name] for part in found) for name in found[0]}


def memory(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """MiB beyond weights, moments and average at the peak of a step, by response length and side."""
    from resd.plan import main_memory

    peaks: dict[str, dict[str, float]] = {}
    for length in options.memory:
        sides = {"resd": sys.executable}
        largest = options.trl_batch[0] * length * options.vocabulary * 4 * WHOLE_LOGITS
        if options.trl_python and largest < main_memory():
            sides["trl"] = options.trl_python
        peaks[str(length)] = {}
        for side, python in sides.items():
            variant = Variant(side, python, "--response", str(length), str(length), exact_memory=True)
            take_turns({side: variant}, 1)
            peaks[str(length)][side] = variant.runs[0]["mib"]
        print(f"responses of {length} tokens  ", *(f"{side} {mib:.0f} MiB" for side, mib in peaks[str(length)].items()))
    return peaks


def another_vocabulary(options: argparse.Namespace, folder: str) -> None:
    """A random model like `--model` but for its vocabulary becomes the model."""
    config = AutoConfig.from_pretrained(options.model)
    if options.vocabulary not in (None, config.vocab_size):
        config.vocab_size = options.vocabulary
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
        AutoTokenizer.from_pretrained(options.model).save_pretrained(folder)
        options.model = folder
        sys.argv += ["--model", folder]
    options.vocabulary = config.vocab_size


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turns; TRL at each of its batch sizes, of which the fastest counts."""
    variants = {"resd": Variant("resd", sys.executable)}
    if shutil.which("g++"):
        variants["resd_compiled"] = Variant("resd", sys.executable, "--set", "hardware.compile=true")
    if options.trl_python:
        for size in options.trl_batch:
            variants[f"trl_{size}"] = Variant("trl", options.trl_python, "--trl-batch", str(size))
    take_turns(variants, options.repeats)
    losses = {name: [run["loss"] for run in (v.first, *v.runs)] for name, v in variants.items()}
    for name, found in losses.items():
        if any(abs(a / b - 1) > 1e-3 for a, b in zip(found, losses["resd"], strict=True)):
            raise SystemExit(f"the sides do not compute the same: resd {losses['resd']}, {name} {found}")
    seconds = {name: variant.median for name, variant in variants.items()}
    best = min((name for name in variants if "trl" in name), key=lambda name: seconds[name], default=None)
    for name, variant in variants.items():
        speed = options.attempts / variant.median
        print(f"{name:13} {variant.median:7.2f} s a step {speed:7.2f} samples/s {variant.first['mib']:7.0f} MiB")
    return {
        "samples_per_s_over_trl": {name: seconds[best] / seconds[name] for name in seconds if best and "resd" in name},
        "samples_per_s": {name: options.attempts / middle for name, middle in seconds.items()},
        "median_seconds": seconds,
        "peak_mib": {name: variant.first["mib"] for name, variant in variants.items()},
        "seconds": {name: variant.seconds for name, variant in variants.items()},
        "loss": losses,
        "versions": {key: value for variant in variants.values() for key, value in variant.versions.items()},
    }


VARIANTS = {"resd": resd, "trl": trl}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, (low, high) in {"prompt": (200, 600), "teacher-prompt": (200, 600), "response": (50, 300)}.items():
        parser.add_argument(f"--{name}", type=int, nargs=2, default=(low, high), metavar=("LOW", "HIGH"))
    parser.add_argument("--attempts", type=int, default=32)
    parser.add_argument("--topk", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="resd/model/nano")
    parser.add_argument("--vocabulary", type=int, help="a random model with this many words instead")
    parser.add_argument("--set", action="append", default=[], help="one more override of RESD's configuration")
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine others use too")
    parser.add_argument("--trl-python", help="interpreter of an environment with TRL")
    parser.add_argument("--trl-batch", type=int, nargs="+", default=[32, 8, 4])
    parser.add_argument("--breakdown", action="store_true", help="instead: where the time of a RESD step goes")
    parser.add_argument("--memory", type=int, nargs="+", metavar="LENGTH", help="instead: peaks at these responses")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--serve", choices=sorted(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.serve:
        run = VARIANTS[options.serve](options)
        packages = ["torch", "transformers"] + ["trl"] * (options.serve == "trl")
        serve(lambda: measured(run, options.clock), {name: version(name) for name in packages})
        return
    with tempfile.TemporaryDirectory() as folder:
        another_vocabulary(options, folder)
        found = {
            key: getattr(options, key)
            for key in ("attempts", "prompt", "teacher_prompt", "response", "topk", "vocabulary", "repeats", "clock")
        } | {"threads": torch.get_num_threads(), "machine": platform.machine()}
        if options.memory:
            found["step_peak_mib"] = memory(options)
        elif options.breakdown:
            found["breakdown_seconds"] = parts = breakdown(options)
            for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
                print(f"{name:24} {seconds:7.3f} s {100 * seconds / sum(parts.values()):5.1f} %")
        else:
            found |= compare(options)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
