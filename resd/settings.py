"""Typed settings, one class a section of the configuration. Layer 0: pydantic only, no Hydra, no torch.

A section is frozen and refuses unknown keys. Types and limits stand here, values in `conf/`, so that each value has one
place. An algorithm adds its own keys by subclassing `AlgorithmSettings` in its file.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

ROOT = Path(__file__).resolve().parent.parent


def _shipped(path: str) -> str:
    path = os.path.expanduser(path)
    beside = ROOT / path
    return str(beside) if not Path(path).is_dir() and beside.is_dir() else path


Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskSettings(Section):
    """`options` go to the task as they are (`envs.load(name, **options)`)."""

    name: str
    options: dict[str, Any] = {}


class LoraSettings(Section):
    """Train low-rank adapters on a frozen base: alpha / rank * B A on the linear modules of the layers in `targets`."""

    rank: Positive
    alpha: Positive
    targets: Annotated[list[str], Field(min_length=1)]


class ModelSettings(Section):
    """`path` is a folder (from here, or from where the project lies) or a Hugging Face id.

    `prompts` and `output_format` say how the trainer talks to the model; `max_prompt` bounds the prompts of its other
    roles (teacher, reflection, curation) in tokens; `lora` trains adapters (null: all parameters).
    """

    path: Annotated[str, AfterValidator(_shipped)]
    prompts: Literal["full", "small", "compact"]
    output_format: Literal["json", "lines"]
    enable_thinking: bool
    attention: Literal["sdpa", "eager"]
    max_prompt: Positive
    lora: LoraSettings | None = None


class TransformersSettings(Section):
    """The built-in engine. `max_batch` is how many requests decode at once on one rank.

    `pipelined` reflects on finished rollouts while others still decode. What shares a batch then depends on time, so
    results repeat up to floating-point tolerance and no longer bit for bit.
    """

    name: Literal["transformers"]
    pipelined: bool
    dtype: Literal["float32", "bfloat16"]
    max_batch: Positive


class VllmSettings(Section):
    """vLLM, `pipelined` as above. `gpu_memory` is the share of a GPU it may take, `kv_cache_gb` the cache on a CPU."""

    name: Literal["vllm"]
    pipelined: bool
    dtype: Literal["float32", "bfloat16"]
    max_batch: Positive
    tensor_parallel: Positive
    gpu_memory: Annotated[float, Field(gt=0, lt=1)]
    kv_cache_gb: Positive
    enforce_eager: bool


EngineSettings = Annotated[TransformersSettings | VllmSettings, Field(discriminator="name")]


class HardwareSettings(Section):
    """Where the learner runs. `micro_batch_tokens` bounds tokens of one forward pass, `head_chunk` rows of logits.

    `compile` fuses the element-wise work of layers that take our own forward pass (`model.body`).
    `shard_processes` share one copy of the parameters (null: all of them). `offload` keeps in main memory the teacher's
    shards, or `all` of them, with gradients and optimizer (null: nothing).
    """

    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    threads: Positive | None
    micro_batch_tokens: Positive
    head_chunk: Positive
    activation_checkpointing: bool
    compile: bool = False
    shard_processes: Positive | None = None
    offload: Literal["teacher", "all"] | None = None


class SamplingSettings(Section):
    """Limits are in tokens; a longer prompt is skipped and counted, generation stops at `max_response`."""

    max_prompt: Positive
    max_response: Positive
    temperature: Annotated[float, Field(gt=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]


class OptimizerSettings(Section):
    """AdamW with constant learning rate after `warmup` updates (specs: paper Appendix G)."""

    lr: Annotated[float, Field(ge=0)]
    betas: tuple[Fraction, Fraction]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup: Annotated[int, Field(ge=0)]
    grad_clip: Annotated[float, Field(gt=0)]
    mini_batches: Positive


class EvaluationSettings(Section):
    """`every` updates (0: only before and after training); `limit` problems of the test split (null: all)."""

    every: Annotated[int, Field(ge=0)]
    before: bool
    samples: Positive
    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    limit: Positive | None


class ForgettingSettings(Section):
    """A second task to measure before training, every `every` updates (0: never) and after training.

    `samples` of each problem, `limit` problems of its test split (null: all); sampling is that of `evaluation`.
    """

    every: Annotated[int, Field(ge=0)]
    samples: Positive
    limit: Positive | None
    task: TaskSettings

    @field_validator("task", mode="before")
    @classmethod
    def _a_whole_task(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"write task@forgetting.task={value}")
        return value


class CheckpointSettings(Section):
    """`every` updates; `keep` latest ones stay besides the best."""

    every: Positive
    keep: Positive


class VerifySettings(Section):
    """`workers` processes a rank; an answer that takes longer than `timeout` seconds loses its sample."""

    workers: Positive
    timeout: Annotated[float, Field(gt=0)]


class ObjectiveSettings(Section):
    """The clipped f-divergence over top-k logits (paper Eq. 1; specs: ratio clip, support, tail bucket)."""

    divergence: str
    alpha: Fraction
    top_k: Positive
    select: Literal["student", "teacher"]
    support: Literal["tail", "renormalise", "full"]
    ratio_min: Annotated[float, Field(gt=0, lt=1)] | None
    ratio_max: Annotated[float, Field(gt=1)] | None


class PolicyGradientSettings(Section):
    """The clipped surrogate of PPO; clips matter once `optimizer.mini_batches` exceeds 1."""

    clip_low: Annotated[float, Field(gt=0, lt=1)]
    clip_high: Annotated[float, Field(gt=0)]
    dual_clip: Annotated[float, Field(gt=1)] | None


class LossSettings(Section):
    """`importance_cap` truncates trainer/engine importance weights (null: off); `reduction` normalises the sum."""

    importance_cap: Annotated[float, Field(ge=1)] | None
    reduction: Literal["sequence_mean", "token_mean"]


class TeacherSettings(Section):
    """Weights that score: `frozen` the initial ones, `ema` a moving average in float32, `live` the student's own.

    `external` are those of another model, `path`, with the student's vocabulary.
    """

    kind: Literal["frozen", "ema", "live", "external"]
    rate: Fraction = 0.0
    path: Annotated[str, AfterValidator(_shipped)] | None = None

    @model_validator(mode="after")
    def _whose(self) -> "TeacherSettings":
        if (self.kind == "external") != (self.path is not None):
            raise ValueError("teacher.path names an external teacher: write teacher.kind=external and teacher.path=…")
        return self


class SuccessWeighting(Section):
    """Success-rate rebalancing, paper Eq. 2."""

    enabled: bool
    a: Annotated[float, Field(ge=0)]
    b: Annotated[float, Field(ge=0)]


class AlgorithmSettings(Section):
    """What every algorithm has. `name` is a module of `resd.algorithms`; `group` rollouts are drawn for each prompt."""

    name: str
    group: Positive
    objective: ObjectiveSettings | None = None
    policy_gradient: PolicyGradientSettings | None = None
    teacher: TeacherSettings | None = None


class TeacherPromptSettings(Section):
    """What the teacher may read besides the problem, one switch a part, and how long its prompt may be in tokens."""

    playbook: bool
    previous_trial: bool
    feedback: bool
    reflection: bool
    solution: bool
    feedback_with_solution: bool
    max_tokens: Positive
