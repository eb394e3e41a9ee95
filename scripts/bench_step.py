"""One whole training step against TRL's `SDPOTrainer`: the same Qwen3 model, the same attempts, in turns.

    PYTHONPATH=. python scripts/bench_step.py [--attempts 32] [--prompt 200 600] [--teacher-prompt 200 600]
        [--response 50 300] [--topk 100] [--repeats 5] [--threads N] [--clock wall|cpu] [--model resd/model/nano]
        [--trl-python PATH] [--trl-batch 32] [--breakdown] [--memory] [--json]

A step is everything between a batch of token ids and the next batch: forward and backward pass of the student, forward
pass of the teacher, loss, clipping, AdamW, and the step of the teacher's moving average. Neither side generates.
Both minimise the reverse KL over the student's top k with a tail bucket, unclipped as TRL has no clip, in float32,
with equal settings of optimizer and average; the losses of all steps are compared, so that a side that does less work
is found out. Lengths are drawn evenly from the given ranges. TRL pads a batch to its longest prompt and longest
response; `--trl-batch` is its `per_device_train_batch_size`, the rest is accumulated. Gradient checkpointing, which
TRL switches on by itself, is off on both sides.

`--breakdown` says where the time of a RESD step goes, `--memory` the peak of memory of one step beyond what is held
before it, against the length of all responses. TRL is installed apart: python -m venv trl && trl/bin/pip install torch
trl, then --trl-python trl/bin/python. With --json the last line is one object.
"""

import argparse
import json
import platform
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from turns import Variant, measured, serve, take_turns

LR, BETAS, CLIP, RATE = 1e-5, (0.9, 0.999), 1.0, 0.05


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
    from resd.learner import Learner
    from resd.model.hidden import Policy
    from resd.model.load import load_model
    from resd.model.shard import shard
    from resd.session import build_objective, build_teacher
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
    student = shard(Policy(load_model(settings.model)), mesh, torch.float32)
    teacher = build_teacher(settings, student, mesh, torch.float32)
    objective = build_objective(settings)
    learner = Learner(student, teacher, objective, settings.optimizer, settings.hardware, pad_id=0)
    vocabulary = student.lm.config.vocab_size
    samples = [
        Sample(ids.prompt, ids.response, [0.0] * len(ids.response), ids.teacher_prompt)
        for ids in batch(options, vocabulary)
    ]
    return learner, samples


def trl(options: argparse.Namespace) -> Callable[[], float]:
    """TRL's trainer on a batch that is there already, by the calls its own loop makes."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

    lm = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, attn_implementation="sdpa")
    inputs = padded(batch(options, lm.config.vocab_size))

    class Trainer(SDPOTrainer):
        def _prepare_training_batch(self, _: Any) -> dict[str, Any]:
            return dict(inputs)

    settings = SDPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=options.trl_batch,
        gradient_accumulation_steps=options.attempts // options.trl_batch,
        num_generations=1,
        max_steps=10**6,
        learning_rate=LR,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        weight_decay=0.0,
        max_grad_norm=CLIP,
        distillation_mode="topk_logits",
        distillation_topk=options.topk,
        distillation_add_tail=True,
        distillation_alpha=1.0,
        teacher_update_rate=RATE,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=lm,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": "none"}] * options.attempts),
        processing_class=AutoTokenizer.from_pretrained(options.model),
    )
    parts = settings.gradient_accumulation_steps
    trainer.create_optimizer_and_scheduler(num_training_steps=10**6)
    model = trainer.model_wrapped = trainer.accelerator.prepare(trainer.model)
    trainer.optimizer = trainer.accelerator.prepare(trainer.optimizer)
    trainer.current_gradient_accumulation_steps = parts
    model.train()

    def run() -> float:
        loss = sum(float(trainer.training_step(model, inputs, None)) for _ in range(parts))
        trainer.accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        model.zero_grad()
        trainer.state.global_step += 1
        trainer.callback_handler.on_step_end(settings, trainer.state, trainer.control)
        return loss

    return run


def padded(attempts: list[Ids]) -> dict[str, Any]:
    """The trainer's inputs: prompts padded on the left, responses on the right."""

    def rows(sequences: list[list[int]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, sequences))
        gaps = [[0] * (width - len(row)) for row in sequences]
        ones = [[1] * len(row) for row in sequences]

        def joined(values: list[list[int]]) -> torch.Tensor:
            pairs = zip(gaps, values, strict=True)
            return torch.tensor([gap + row if left else row + gap for gap, row in pairs])

        return joined(sequences), joined(ones)

    prompt_ids, prompt_mask = rows([ids.prompt for ids in attempts], left=True)
    teacher_ids, teacher_mask = rows([ids.teacher_prompt for ids in attempts], left=True)
    completion_ids, completion_mask = rows([ids.response for ids in attempts], left=False)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "teacher_input_ids": torch.cat([teacher_ids, completion_ids], dim=1),
        "teacher_attention_mask": torch.cat([teacher_mask, completion_mask], dim=1),
        "self_distillation_mask": torch.ones(len(attempts)),
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
    parser.add_argument("--set", action="append", default=[], help="one more override of the configuration of resd")
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine others use too")
    parser.add_argument("--trl-python", help="interpreter of an environment with TRL")
    parser.add_argument("--trl-batch", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--serve", choices=sorted(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.serve:
        run = VARIANTS[options.serve](options)
        versions = {"torch": torch.__version__, "transformers": __import__("transformers").__version__}
        serve(lambda: measured(run, options.clock), versions)
        return
    variants = {"resd": Variant("resd", sys.executable)}
    if options.trl_python:
        variants["trl"] = Variant("trl", options.trl_python)
    take_turns(variants, options.repeats)
    for name, v in variants.items():
        print(name, v.median, v.seconds, v.first["mib"], [v.first["loss"], *(r["loss"] for r in v.runs)])
    if "trl" in variants:
        print("samples_per_s_over_trl", variants["trl"].median / variants["resd"].median)


if __name__ == "__main__":
    main()
