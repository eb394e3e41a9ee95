"""TRL's side of `bench_step`: `SDPOTrainer` on a batch that is there already, by the calls its own loop makes."""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer


def step(
    path: str,
    attempts: Sequence[Any],
    batch: int,
    topk: int,
    lr: float,
    betas: tuple[float, float],
    clip: float,
    rate: float,
) -> Callable[[], float]:
    """A step on `attempts`, each a `prompt`, a `teacher_prompt` and a `response` of ids, `batch` at a time."""
    lm = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
    inputs = padded(attempts)

    class Trainer(SDPOTrainer):
        def _prepare_training_batch(self, _: Any) -> dict[str, Any]:
            return dict(inputs)

    settings = SDPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=len(attempts) // batch,
        num_generations=1,
        max_steps=10**6,
        learning_rate=lr,
        lr_scheduler_type="constant",
        adam_beta1=betas[0],
        adam_beta2=betas[1],
        weight_decay=0.0,
        max_grad_norm=clip,
        distillation_mode="topk_logits",
        distillation_topk=topk,
        distillation_add_tail=True,
        distillation_alpha=1.0,
        teacher_update_rate=rate,
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
        train_dataset=Dataset.from_list([{"prompt": "none"}] * len(attempts)),
        processing_class=AutoTokenizer.from_pretrained(path),
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


def padded(attempts: Sequence[Any]) -> dict[str, Any]:
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
