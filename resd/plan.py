"""What one process of a run will hold in memory, from the shapes alone: nothing is loaded to know it.

Pure functions over the sizes of a model and the settings of a run; `scripts/plan.py` prints them for models, devices
and lengths at will, and a run compares them with the machine before it loads anything. Parameters, gradients,
optimizer and teacher are float32 shards (`model.shard`), forward passes take `hardware.dtype`, the transformers engine
is one whole model a process, vLLM is shared by `engine.tensor_parallel` processes. Activations of a layer are counted
tensor by tensor as transformers' Qwen3 saves them (`model.body` keeps a fifth to a third less), and the tests compare
all of it with real ones.

Not covered: models outside the Llama family (the check is skipped), fragmentation, the verifier's processes, and
whatever else runs on the machine. OVERHEAD was measured on a CPU only.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resd.config import Config
from resd.settings import VllmSettings
from resd.types import UserError

GB = 2**30
SIZE = {"float32": 4, "bfloat16": 2}
OVERHEAD = {"cpu": GB // 2, "cuda": GB}  # interpreter and libraries; CUDA context and communication buffers (a guess)
FAMILIES = ("llama", "qwen2", "qwen3", "qwen3_moe")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder of the Llama family, dense (`experts` 0) or a mixture of `experts`, `active` for a token."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    tied: bool
    experts: int = 0
    active: int = 1
    qk_norm: bool = True
    qkv_bias: bool = False

    @staticmethod
    def of(config: Mapping[str, Any]) -> "Shape | None":
        """From what a model's config.json says; None for models of another build."""
        family = config.get("model_type")
        if family not in FAMILIES:
            return None
        heads, width = config["num_attention_heads"], config["hidden_size"]
        sparse = family == "qwen3_moe"
        return Shape(
            vocabulary=config["vocab_size"],
            width=width,
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or width // heads,
            inner=config["moe_intermediate_size" if sparse else "intermediate_size"],
            tied=bool(config.get("tie_word_embeddings")),
            experts=config.get("num_experts", config.get("num_local_experts", 0)) if sparse else 0,
            active=config["num_experts_per_tok"] if sparse else 1,
            qk_norm=family.startswith("qwen3"),
            qkv_bias=family == "qwen2",
        )

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    def layer(self, experts: int | None = None) -> int:
        """Parameters of a layer, with so many of its experts (None: all)."""
        attention = self.width * (2 * self.queries + 2 * self.keys)
        small = 2 * self.width + self.qk_norm * 2 * self.head_dim + self.qkv_bias * (self.queries + 2 * self.keys)
        mlps = (self.experts or 1) if experts is None else experts
        return attention + small + mlps * 3 * self.width * self.inner + self.experts * self.width

    @property
    def embeddings(self) -> int:
        """Parameters outside the layers but the last norm: one matrix if tied, else two."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.layers * self.layer() + self.embeddings + self.width

    @property
    def computed(self) -> int:
        """Parameters that one token is multiplied with."""
        return self.layers * self.layer(self.active) + self.vocabulary * self.width

    def cache(self, size: int) -> int:
        """Bytes of keys and values of one token, in numbers of `size` bytes."""
        return self.layers * 2 * self.keys * size

    def saved(self, size: int) -> int:
        """Bytes that one layer keeps of one token for the backward pass, in numbers of `size` bytes.

        Norms compute in float32 and keep their input so; attention keeps queries, keys, values, output and a row of
        log sums; the MLP keeps gate, activation, up and product, and a mixture of experts its inputs and outputs too.
        """
        norms = (8 + 4 * size) * self.width + 8
        attention = (4 + 3 * size) * (self.queries + self.keys) + 4 * (2 * self.heads + self.kv_heads)
        experts = 2 * size * self.width + 36 if self.experts else 0
        return norms + attention + self.active * (4 * size * self.inner + experts) + 4 * self.experts


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of one process: for each phase what it holds then, at most.

    `surely` has, for parts that depend on how long texts get, what they take at least. `host` is the main memory beside
    a GPU that is needed for a while; `share` what vLLM may take of a GPU and what it must have, (0, 0) without one.
    """

    phases: dict[str, dict[str, int]]
    surely: dict[str, int]
    host: int
    share: tuple[int, int]

    @property
    def worst(self) -> str:
        """The phase of the peak."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> int:
        return sum(self.phases[self.worst].values())

    @property
    def least(self) -> int:
        """With less the run cannot work."""
        return max(sum(self.surely.get(part, size) for part, size in parts.items()) for parts in self.phases.values())


def estimate(shape: Shape, config: Config, ranks: int, device_bytes: int) -> Estimate:
    """What one of `ranks` processes holds. `device_bytes` is the size of its GPU (vLLM takes a share of it)."""
    hardware, engine = config.hardware, config.engine
    size, whole = SIZE[hardware.dtype], 4 * shape.parameters
    cuda = hardware.device == "cuda"
    teacher = config.algorithm.teacher is not None and config.algorithm.teacher.kind != "live"
    libraries = {"libraries": OVERHEAD[hardware.device]}
    shards = {"parameters": whole // ranks} | ({"teacher": whole // ranks} if teacher else {})
    copies = 4 * whole // ranks + size * shape.parameters  # all shards, and whole weights on the first process
    trained = libraries | shards | {"optimizer": 2 * whole // ranks} | ({} if cuda else {"checkpoint": copies})
    weights, cache, row = _engine(shape, config, ranks)
    generating, resident, share = {"engine": weights, "cache": cache}, {"engine": weights}, (0, 0)
    if isinstance(engine, VllmSettings):
        resident = {} if cuda else generating  # on a GPU it sleeps while the student learns
        if cuda:
            share = (int(engine.gpu_memory * device_bytes), weights + row)
            generating = {"engine": share[0]}
        row = cache
    # models are read one after the other, the student first, and are whole until they are sharded
    earlier = whole // ranks * (teacher + (not isinstance(engine, VllmSettings)))
    forward = _forward(shape, config, ranks, teacher)
    activations = _activations(shape, config, ranks, teacher)
    return Estimate(
        phases={
            "loading": libraries | {"shards": earlier, "a model as it is read": whole},
            "generating": trained | generating,
            "learning": trained | resident | {"gradients": whole // ranks, "activations": activations[1]} | forward,
        },
        surely={"cache": row, "activations": activations[0]},
        host=OVERHEAD["cpu"] + max(whole, copies) if cuda else 0,
        share=share,
    )


def _engine(shape: Shape, config: Config, ranks: int) -> tuple[int, int, int]:
    """Bytes of the engine's weights on one process, of its cache at most, and of one long row of it."""
    engine, rollout, size = config.engine, config.rollout, SIZE[config.engine.dtype]
    longest = max(rollout.max_prompt, config.model.max_prompt) + rollout.max_response
    weights, token = size * shape.parameters, shape.cache(size)
    if isinstance(engine, VllmSettings):
        packed = 2 if config.hardware.device == "cpu" else 1
        shared = engine.tensor_parallel
        return packed * weights // shared, engine.kv_cache_gb * GB, longest * token // shared
    attempts = engine.max_batch * (rollout.max_prompt + rollout.max_response)  # an evaluation fills every row
    writing = min(engine.max_batch, _samples(config, ranks)) * longest  # reflections have longer prompts
    return weights, max(attempts, writing) * token, longest * token


def _activations(shape: Shape, config: Config, ranks: int, teacher: bool) -> tuple[int, int]:
    """Bytes that a micro-batch keeps for its backward pass if all texts are as long as they may be, and at most."""
    hardware, rollout, size = config.hardware, config.rollout, SIZE[config.hardware.dtype]
    own = rollout.max_prompt + rollout.max_response
    longest = config.model.max_prompt + rollout.max_response if teacher else own  # a row is as wide as its longer side
    samples, rows = _samples(config, ranks), max(1, hardware.micro_batch_tokens // longest)
    saved = shape.saved(size)
    layers = shape.layers * (size * shape.width if hardware.activation_checkpointing else saved)
    usual, most = min(rows, samples) * own, max(own, min(hardware.micro_batch_tokens, samples * own))
    reading = teacher * min(rows, samples) * longest * saved  # a layer in the making; nothing is kept of it
    return max(usual * (layers + saved), reading), max(most * (layers + saved), reading)


def _forward(shape: Shape, config: Config, ranks: int, teacher: bool) -> dict[str, int]:
    """Bytes of gathered parameters, and of the head's logits and gradient."""
    objective, size, models = config.algorithm.objective, SIZE[config.hardware.dtype], 1 + teacher
    cast = size if size < 4 else 0
    reads_all = objective is not None and (objective.select == "teacher" or objective.support == "full")
    logits = config.hardware.head_chunk * (4 * (1 + reads_all) + cast)
    layers = shape.layer() * (2 * size + size + 4)  # two in flight, and a gradient with its float32 copy
    return {
        "gathered": shape.embeddings * size * models + layers,
        "head": shape.vocabulary * (logits + shape.width * (4 + cast) * models),
    }


def _samples(config: Config, ranks: int) -> int:
    """Samples of an update on one process."""
    return -(-config.batch_size * config.algorithm.group // ranks)


REMEDY = {
    "activations": "lower hardware.micro_batch_tokens or rollout.max_response, "
    "or write hardware.activation_checkpointing=true",
    "cache": "lower engine.max_batch or rollout.max_response, or take engine=vllm",
    "engine": "lower engine.gpu_memory with engine=vllm, else take that or a smaller model",
    "head": "lower hardware.head_chunk, or take a smaller model",
}


def check(estimate: Estimate, available: int, host: int, processes: int) -> str:
    """A sentence about the memory of a run.

    `available` bytes are for one process, `host` bytes of main memory for the `processes` of this machine. Raises
    UserError, which says what to reduce, if they cannot suffice.
    """
    phase = estimate.phases[estimate.worst]
    most = max((part for part in phase if part != "libraries"), key=lambda part: phase[part])
    remedy = REMEDY.get(most, "take more processes (--nproc-per-node, --nnodes) or a smaller model")
    sizes = ", ".join(f"{part} {_gb(size)}" for part, size in phase.items() if size >= GB / 20)
    have, needed = estimate.share
    if have < needed:
        raise UserError(
            f"engine.gpu_memory leaves vLLM {_gb(have)} GB of a GPU, its weights and one long sequence take "
            f"{_gb(needed)}: raise engine.gpu_memory or engine.tensor_parallel"
        )
    if estimate.least > available:
        raise UserError(f"a process needs {_gb(estimate.least)} GB, {_gb(available)} are free ({sizes}): {remedy}")
    if estimate.host * processes > host:
        raise UserError(
            f"{processes} processes hold {_gb(estimate.host * processes)} GB of main memory while they load or save "
            f"the model, {_gb(host)} are free: take fewer processes on each machine, or a smaller model"
        )
    needs = f"memory of a process while {estimate.worst}: up to {_gb(estimate.peak)} GB ({sizes})"
    if estimate.peak > available:
        return f"{needs}, more than the {_gb(available)} that are free, if all texts get long: {remedy}"
    return f"{needs}, of {_gb(available)}"


def _gb(size: int) -> str:
    return f"{size / GB:.1f}"


def main_memory() -> int:
    """Bytes of main memory that are free, within the limit of a container."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = (_lines(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].isdigit():
        free = min(free, int(limit[0]) - int(used[0]))
    return free


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []
