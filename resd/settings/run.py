"""The sections of a run, whatever its algorithm."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from resd.settings.base import Fraction, Positive, Section, Url, shipped


class TaskSettings(Section):
    """`options` go to the task as they are (`resd.envs.load(name, **options)`)."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


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

    path: Annotated[str, AfterValidator(shipped)]
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
    """AdamW. After `warmup` updates the rate is constant (paper Appendix G), or falls to `min_lr_ratio` of itself by
    the end of the run: all the way (`linear`, `cosine`), or in its last part, whose share is `decay` (`wsd`).
    """

    lr: Annotated[float, Field(ge=0)]
    betas: tuple[Fraction, Fraction]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup: Annotated[int, Field(ge=0)]
    grad_clip: Annotated[float, Field(gt=0)]
    mini_batches: Positive
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    min_lr_ratio: Fraction = 0.0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2


class EvaluationSettings(Section):
    """`every` updates (0: only before and after training); `limit` problems of the test split (null: all). The run ends
    after `patience` evaluations without a new best (null: never). `show` puts so many responses on the console.
    """

    every: Annotated[int, Field(ge=0)]
    before: bool
    samples: Positive
    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    limit: Positive | None
    patience: Positive | None = None
    show: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _something_to_wait_for(self) -> "EvaluationSettings":
        if self.patience is not None and self.every == 0:
            raise ValueError(
                "evaluation.patience counts evaluations during training: write evaluation.every=N, or patience=null"
            )
        return self


class LibrarySettings(Section):
    """Rules that a model is told while it is evaluated (`resd.context.library`)."""

    library: str | None
    placement: Literal["template", "system", "before", "after", "turn"]
    cap: Positive | None
    filler: bool


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


class AlarmSettings(Section):
    """Quantities are compared with their first `reference` updates (`resd.alarm`). With `on_alarm=rollback` a run goes
    back at most `rollbacks` times, each with `lr_factor` of the learning rate."""

    reference: Annotated[int, Field(ge=4)]
    rollbacks: Annotated[int, Field(ge=0)]
    lr_factor: Annotated[float, Field(gt=0, lt=1)]


class RemoteSettings(Section):
    """Patience with an address: seconds for an answer, tries after the first, requests at once of a process."""

    timeout: Annotated[float, Field(gt=0)]
    retries: Annotated[int, Field(ge=0)]
    at_once: Positive


class AuthorSettings(Section):
    """Who writes reflections, tags and curation: another model in the folder `path`, or one at the address `url` under
    the name `model` (null: the first one there); with neither, the student. Null limits are the algorithm's.
    """

    path: Annotated[str, AfterValidator(shipped)] | None
    url: Url | None
    model: str | None
    max_prompt: Positive | None
    max_response: Positive | None
    temperature: Annotated[float, Field(gt=0)] | None
    top_p: Annotated[float, Field(gt=0, le=1)] | None

    @model_validator(mode="after")
    def _one(self) -> "AuthorSettings":
        if self.path is not None and self.url is not None:
            raise ValueError("author.path and author.url name two authors: write one of them")
        return self

    def limits(self, otherwise: SamplingSettings) -> SamplingSettings:
        """How it is sampled where the algorithm would sample the student as `otherwise`."""
        own = {name: getattr(self, name) for name in SamplingSettings.model_fields}
        return otherwise.model_copy(update={name: value for name, value in own.items() if value is not None})


class VerifySettings(Section):
    """`workers` processes a rank; an answer that takes longer than `timeout` seconds loses its sample."""

    workers: Positive
    timeout: Annotated[float, Field(gt=0)]


class LossSettings(Section):
    """`importance_cap` truncates trainer/engine importance weights (null: off); `reduction` normalises the sum."""

    importance_cap: Annotated[float, Field(ge=1)] | None
    reduction: Literal["sequence_mean", "token_mean"]
