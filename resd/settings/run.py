"""The sections of a run, whatever its algorithm."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from resd.settings.base import Fraction, Placement, Positive, Section, Url, shipped
from resd.types import UserError


class TaskSettings(Section):
    """What is learned: problems, prompts and a verifier (`resd.envs.load(name, **options)`)."""

    name: str
    """a task of resd/envs, an entry point, or package.module:callable"""
    options: dict[str, Any] = Field(default_factory=dict)
    """what the task takes, as task.options.KEY=VALUE"""


class LoraSettings(Section):
    """Low-rank adapters on a frozen base: alpha / rank * B A on linear modules of the layers."""

    rank: Positive
    """of the two factors of an adapter"""
    alpha: Positive
    """an adapter counts alpha / rank times"""
    targets: Annotated[list[str], Field(min_length=1)]
    """names of the linear modules that get one"""


class ModelSettings(Section):
    """The student, and how the trainer talks to it."""

    path: Annotated[str, AfterValidator(shipped)]
    """a folder (from here, or from where the project lies) or a Hugging Face id"""
    prompts: Literal["full", "small", "compact"]
    """how the trainer asks: full texts, small ones with an example, or compact ones for a model trained on them"""
    output_format: Literal["json", "lines"]
    """how reflections, tags and curation are written: JSON, or one statement a line"""
    enable_thinking: bool
    """whether the chat template lets the model think first"""
    attention: Literal["sdpa", "eager"]
    """sdpa where our own forward pass can be used, eager where it cannot"""
    max_prompt: Positive
    """tokens of a prompt of its other roles: teacher, reflection, curation"""
    lora: LoraSettings | None = None
    """train adapters: {rank: 16, alpha: 32, targets: [q_proj, …]}; null: all parameters"""


class TransformersSettings(Section):
    """Generation by the built-in engine."""

    name: Literal["transformers"]
    """the built-in engine"""
    pipelined: bool
    """reflect on finished rollouts while others still decode; then results repeat up to rounding, not to the bit"""
    dtype: Literal["float32", "bfloat16"]
    """what it computes in"""
    max_batch: Positive
    """requests that decode at once on one rank"""


class VllmSettings(Section):
    """Generation by vLLM."""

    name: Literal["vllm"]
    """vLLM inside the training processes"""
    pipelined: bool
    """reflect on finished rollouts while others still decode; then results repeat up to rounding, not to the bit"""
    dtype: Literal["float32", "bfloat16"]
    """what it computes in"""
    max_batch: Positive
    """requests that decode at once in one engine"""
    tensor_parallel: Positive
    """ranks that share an engine"""
    gpu_memory: Annotated[float, Field(gt=0, lt=1)]
    """share of a GPU that it may take"""
    kv_cache_gb: Positive
    """size of its cache on a CPU"""
    enforce_eager: bool
    """no CUDA graphs, and no compilation on a CPU"""

    def replicas(self, world: int) -> int:
        """How many engines `world` processes make. Raises UserError if some would be left over."""
        if world % self.tensor_parallel:
            raise UserError(
                f"engine.tensor_parallel={self.tensor_parallel} does not divide the {world} processes: "
                "choose a divisor, or another --nproc-per-node"
            )
        return world // self.tensor_parallel


EngineSettings = Annotated[TransformersSettings | VllmSettings, Field(discriminator="name")]


class HardwareSettings(Section):
    """Where the learner runs, and how it spares memory."""

    device: Literal["cpu", "cuda"]
    """where the learner runs"""
    dtype: Literal["float32", "bfloat16"]
    """what it computes in; master weights are float32 all the same"""
    threads: Positive | None
    """of a process on a CPU; null: torch decides"""
    micro_batch_tokens: Positive
    """tokens of one forward pass"""
    head_chunk: Positive
    """rows of logits that exist at once"""
    activation_checkpointing: bool
    """compute activations again in the backward pass: less memory, more time"""
    compile: bool = False
    """torch.compile fuses the element-wise work of layers; a CPU needs a C++ compiler for it"""
    shard_processes: Positive | None = None
    """processes that share one copy of the parameters; null: all of them"""
    offload: Literal["teacher", "all"] | None = None
    """what is kept in main memory: the teacher, or all with gradients and optimizer; null: nothing"""


class SamplingSettings(Section):
    """How texts are sampled, and how long they may get in tokens."""

    max_prompt: Positive
    """tokens; a longer prompt is skipped and counted"""
    max_response: Positive
    """tokens at which generation stops"""
    temperature: Annotated[float, Field(gt=0)]
    """1 samples as the model says, less is surer"""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """share of the probability that is sampled from, the likeliest tokens first"""


class RolloutSettings(SamplingSettings):
    """How the student is sampled, and how many turns an attempt may have at a task that answers."""

    max_turns: Positive
    """replies of an attempt, where the task answers; max_response is one budget for all that is said"""


class OptimizerSettings(Section):
    """AdamW. After a warm-up the rate is constant (paper Appendix G), or falls to a share of itself by the end of the
    run: all the way (`linear`, `cosine`), or in its last part (`wsd`)."""

    lr: Annotated[float, Field(ge=0)]
    """learning rate after warm-up"""
    betas: tuple[Fraction, Fraction]
    """decay of AdamW's two averages"""
    weight_decay: Annotated[float, Field(ge=0)]
    """decoupled, as in AdamW"""
    warmup: Annotated[int, Field(ge=0)]
    """updates in which the rate rises to lr"""
    grad_clip: Annotated[float, Field(gt=0)]
    """largest norm of a gradient"""
    mini_batches: Positive
    """optimizer steps an update"""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    """how the rate falls after the warm-up"""
    min_lr_ratio: Fraction = 0.0
    """share of lr at the end of a schedule"""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """share of the run in which the rate of wsd falls"""


class EvaluationSettings(Section):
    """Accuracy on the test split."""

    every: Annotated[int, Field(ge=0)]
    """updates between evaluations; 0: only before and after training"""
    before: bool
    """whether to evaluate before the first update"""
    samples: Positive
    """answers to each problem"""
    temperature: Annotated[float, Field(ge=0)]
    """0: always the likeliest token"""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """share of the probability that is sampled from"""
    limit: Positive | None
    """problems of the test split; null: all"""
    patience: Positive | None = None
    """evaluations without a new best after which the run ends; null: it does not"""
    show: Annotated[int, Field(ge=0)] = 0
    """responses on the console at each evaluation"""
    vote: bool = False
    """whether the answer that most of a problem's samples give is judged too"""

    @model_validator(mode="after")
    def _something_to_wait_for(self) -> "EvaluationSettings":
        if self.patience is not None and self.every == 0:
            raise ValueError(
                "evaluation.patience counts evaluations during training: write evaluation.every=N, or patience=null"
            )
        return self


class ForgettingSettings(Section):
    """A second task, measured before, during and after training with the sampling of `evaluation`."""

    every: Annotated[int, Field(ge=0)]
    """updates between its measurements, besides before and after training; 0: never"""
    samples: Positive
    """answers to each problem"""
    limit: Positive | None
    """problems of its test split; null: all"""
    task: TaskSettings
    """chosen by task@forgetting.task=NAME"""

    @field_validator("task", mode="before")
    @classmethod
    def _a_whole_task(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"write task@forgetting.task={value}")
        return value


class CheckpointSettings(Section):
    """What a run can be gone on with."""

    every: Positive
    """updates between checkpoints"""
    keep: Positive
    """latest ones that stay besides the best"""


class RemoteSettings(Section):
    """Patience with author.url and algorithm.teacher.url."""

    timeout: Annotated[float, Field(gt=0)]
    """seconds to wait for an answer"""
    retries: Annotated[int, Field(ge=0)]
    """tries after the first"""
    at_once: Positive
    """requests of a process that are open at once"""


class AuthorSettings(Section):
    """Who writes reflections, tags and curation in the student's place, if anybody."""

    path: Annotated[str, AfterValidator(shipped)] | None
    """folder of another model that writes; null: the student does"""
    url: Url | None
    """address of another model that writes: http://HOST:PORT/v1"""
    model: str | None
    """its name at the address; null: the first one there"""
    max_prompt: Positive | None
    """tokens of its prompts; null: as for the student"""
    max_response: Positive | None
    """tokens that it writes; null: as for the student"""
    temperature: Annotated[float, Field(gt=0)] | None
    """of its sampling; null: as for the student"""
    top_p: Annotated[float, Field(gt=0, le=1)] | None
    """of its sampling; null: as for the student"""

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
    """The processes that judge answers."""

    workers: Positive
    """processes a rank that judge answers"""
    timeout: Annotated[float, Field(gt=0)]
    """seconds an answer may take to be judged; a slower one loses its sample"""


class LossSettings(Section):
    """How tokens add up."""

    importance_cap: Annotated[float, Field(ge=1)] | None
    """ceiling of importance weights: trainer to engine, and the policy now to that before the update; null: none"""
    reduction: Literal["sequence_mean", "token_mean"]
    """mean over sequences of their means, or over all tokens"""


class LibrarySettings(Section):
    """Rules that a model is told while it is evaluated (`resd.context.library`)."""

    library: str | None
    """rules that the model is told: the playbook.jsonl of a run, or a text file of one a line; null: none"""
    placement: Placement
    """where they stand; template: as the model's own teacher reads them, before and after the problem"""
    cap: Positive | None
    """only so many of them, those judged best; null: all"""
    filler: bool
    """a control: as many words of something else in their place"""
    worth: Positive | None
    """measure what each entry is worth, by judging under so many random sets of them; null: judge once, told all"""
    left_out: Annotated[float, Field(gt=0, le=0.5)]
    """share of these sets that an entry is left out of; a small one where entries do nothing without most others"""
    outcome: Literal["per_task", "per_case", "reward"]
    """by which score an entry's worth is measured"""

    @model_validator(mode="after")
    def _something_to_weigh(self) -> "LibrarySettings":
        if self.worth is not None and self.library is None:
            raise ValueError(f"worth={self.worth} wants entries: write library=RUN/playbook.jsonl, or leave it out")
        return self


class JudgeSettings(LibrarySettings):
    """What `resd evaluate` wants to know besides the settings of a run."""

    checkpoint: str
    """a checkpoint of a run (RUN/best, RUN/checkpoints/step_N), or a Hugging Face folder"""
    samples: Positive
    """answers to each problem"""
    out: str | None
    """a folder for the attempts and the metrics; null: nothing is written"""
