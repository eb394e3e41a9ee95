"""What a process holds in each phase of a run.

Parameters, gradients, optimizer and teacher are float32 shards (`model.shard`), of which `hardware.shard_processes`
make a whole; an adapter has gradients and an optimizer of its own size, and the teacher's is another one. A teacher
that is another model has shards of its own size, which no checkpoint keeps. Forward
passes take `hardware.dtype`, the built-in engine is one whole model a process, vLLM is shared by
`engine.tensor_parallel` processes. Only the first process reads a whole model.

Not covered: fragmentation, the verifier's processes, and whatever else runs on the machine. OVERHEAD was measured on a
CPU only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from resd import algorithms
from resd.config import Config
from resd.plan.shape import Shape
from resd.settings import Asked, SamplingSettings, VllmSettings

GB = 2**30
SIZE = {"float32": 4, "bfloat16": 2}
OVERHEAD = {"cpu": GB // 2, "cuda": GB}  # interpreter and libraries; CUDA context and communication buffers (a guess)
OFFLOADED = {None: (), "teacher": ("teacher",), "all": ("parameters", "teacher", "optimizer", "gradients")}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of one process: for each phase what it holds then, at most.

    `surely` has, for parts that depend on how long texts get, what they take at least. `host` is the main memory beside
    a GPU of the first process and of any other; `share` what vLLM may take of a GPU and what it must have, (0, 0)
    without one.
    """

    phases: dict[str, dict[str, int]]
    surely: dict[str, int]
    host: tuple[int, int]
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


def estimate(
    shape: Shape,
    config: Config,
    ranks: int,
    device_bytes: int,
    external: Shape | None = None,
    author: Shape | None = None,
) -> Estimate:
    """What the first of `ranks` processes holds. `device_bytes` is the size of its GPU (vLLM takes a share of it).

    `external` is the teacher that is another model; `author` another one that writes, whole in its own engine.
    """
    teacher = external or shape
    hardware, engine = config.hardware, config.engine
    size, whole, tensor = SIZE[hardware.dtype], 4 * shape.parameters, 4 * shape.largest
    cut = tensor // (hardware.shard_processes or ranks)
    cuda = hardware.device == "cuda"
    shards = _shards(shape, teacher, config, ranks)
    away = OFFLOADED[hardware.offload] if cuda else ()
    offloaded = sum(shards.get(part, 0) for part in away)
    near = {part: held for part, held in shards.items() if part not in away}
    weights_of_author, writing = _author(author, config, ranks, device_bytes)
    near |= weights_of_author
    libraries, gradients = {"libraries": OVERHEAD[hardware.device]}, {"gradients": near.pop("gradients", 0)}
    staged, saved = _checkpoint(shape, config, ranks), size * shape.parameters
    trained = libraries | near | ({} if cuda else {"checkpoint": staged + saved})
    weights, cache, row = _engine(shape, config, ranks)
    generating, resident, share = {"engine": weights, "cache": cache}, {"engine": weights}, (0, 0)
    if isinstance(engine, VllmSettings):
        resident = {} if cuda else generating  # on a GPU it sleeps while the student learns
        if cuda:
            share = (int(engine.gpu_memory * device_bytes), weights + row)
            generating = {"engine": share[0]}
        row = cache
    reading = {"parameters": near.get("parameters", 0)} if cuda else {"a model as it is read": whole}
    given = {"a tensor as it is given out": cut + (tensor if cuda else cut)}  # its part arrives, and is copied
    forward = _forward(shape, teacher, config)
    activations = _activations(shape, teacher, config, ranks)
    each = OVERHEAD["cpu"] + offloaded + staged
    phases = {"loading": libraries | reading | given}
    if external:
        other, cut = 4 * external.parameters, 4 * external.largest // (hardware.shard_processes or ranks)
        read = {"teacher": near.get("teacher", 0)} if cuda else {"the teacher as it is read": other}
        given = {"a tensor as it is given out": cut + (4 * external.largest if cuda else cut)}
        phases["loading the teacher"] = libraries | {"parameters": near.get("parameters", 0)} | read | given
        whole = max(whole, other)
    phases["generating"] = trained | generating
    phases["learning"] = trained | resident | gradients | {"activations": activations[1]} | forward
    if writing:
        phases["writing"] = trained | generating | {"cache": 0} | writing
    if not algorithms.learns(config.algorithm):
        kept = libraries | weights_of_author
        phases = {name: kept | generating | more for name, more in (("generating", {}), ("writing", writing))}
    return Estimate(
        phases=phases,
        surely={"cache": row, "activations": activations[0]},
        host=(max(OVERHEAD["cpu"] + whole, each + saved), each) if cuda else (0, 0),
        share=share,
    )


def _author(
    author: Shape | None, config: Config, ranks: int, device_bytes: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of an author's engine all the time, and of its cache while it writes."""
    if author is None:
        return {}, {}
    engine, rollout, size = config.engine, config.rollout, SIZE[config.engine.dtype]
    if isinstance(engine, VllmSettings):
        if config.hardware.device == "cuda":
            return {"author": int(engine.gpu_memory * device_bytes)}, {}
        return {"author": 2 * size * author.parameters + engine.kv_cache_gb * GB}, {}
    own = config.author
    longest = (own.max_prompt or config.model.max_prompt) + (own.max_response or rollout.max_response)
    asked = config.algorithm.asks(config.batch_size)
    texts = [each.count for each in asked if each.says == "text"]  # none if an algorithm of a user's own does not tell
    rows = min(engine.max_batch, -(-max(texts, default=most(asked)) // ranks))
    return {"author": size * author.parameters}, {"author's cache": rows * longest * author.cache(size)}


def _teaches(config: Config) -> bool:
    """Whether the teacher has weights of its own: another model, or a copy of what is trained."""
    return config.algorithm.teacher is not None and config.algorithm.teacher.weighs


def _external(config: Config) -> bool:
    return config.algorithm.teacher is not None and config.algorithm.teacher.path is not None


def _adapter(shape: Shape, config: Config) -> int:
    lora = config.model.lora
    return 0 if lora is None else shape.adapter(lora.rank, lora.targets)


def _shards(shape: Shape, teacher: Shape, config: Config, ranks: int) -> dict[str, int]:
    """Bytes of the float32 shards of one process."""
    sharers, adapter = config.hardware.shard_processes or ranks, _adapter(shape, config)
    trained = adapter or shape.parameters
    numbers = {"parameters": shape.parameters + 2 * adapter, "optimizer": 2 * trained, "gradients": trained}
    if _external(config) or (_teaches(config) and not adapter):
        numbers["teacher"] = teacher.parameters
    return {part: 4 * count // sharers for part, count in numbers.items()}


def _checkpoint(shape: Shape, config: Config, ranks: int) -> int:
    """Bytes of the copies from which one process writes its part of the state: weights, optimizer and teacher."""
    trained = _adapter(shape, config) or shape.parameters
    kept = _teaches(config) and not _external(config)
    return 4 * (3 + kept) * trained // (config.hardware.shard_processes or ranks)


def _engine(shape: Shape, config: Config, ranks: int) -> tuple[int, int, int]:
    """Bytes of the engine's weights on one process, of its cache at most, and of one long row of it."""
    engine, rollout, size = config.engine, config.rollout, SIZE[config.engine.dtype]
    longest = longest_row(config)
    weights, token = size * shape.parameters, shape.cache(size)
    if isinstance(engine, VllmSettings):
        packed = 2 if config.hardware.device == "cpu" else 1
        shared = engine.tensor_parallel
        return packed * weights // shared, engine.kv_cache_gb * GB, longest * token // shared
    held = [engine.max_batch * limit(rollout)]  # an evaluation fills every row
    for asked in config.algorithm.asks(config.batch_size):
        held.append(min(engine.max_batch, -(-asked.count // ranks)) * limit(asked.sampling or rollout))
    return weights, max(held) * token, longest * token


def _activations(shape: Shape, teacher: Shape, config: Config, ranks: int) -> tuple[int, int]:
    """Bytes that a micro-batch keeps for its backward pass if all texts are as long as they may be, and at most."""
    hardware, rollout, size = config.hardware, config.rollout, SIZE[config.hardware.dtype]
    taught = config.algorithm.teacher is not None
    trained = config.algorithm.trains(config.batch_size)
    own = max((limit(each.sampling or rollout) for each in trained), default=0)
    longest = max(own, taught * (config.model.max_prompt + rollout.max_response), 1)  # the longer side of a row
    samples, rows = _samples(config, ranks), max(1, hardware.micro_batch_tokens // longest)
    saved = shape.saved(size)
    layers = shape.layers * (size * shape.width if hardware.activation_checkpointing else saved)
    usual, most = min(rows, samples) * own, max(own, min(hardware.micro_batch_tokens, samples * own))
    reading = taught * min(rows, samples) * longest * teacher.saved(size)  # a layer in the making
    return max(usual * (layers + saved), reading), max(most * (layers + saved), reading)


def _forward(shape: Shape, teacher: Shape, config: Config) -> dict[str, int]:
    """Bytes of gathered parameters, and of the head's logits and gradient."""
    objective, size = config.algorithm.objective, SIZE[config.hardware.dtype]
    others = [teacher] if _external(config) or (_teaches(config) and config.model.lora is None) else []
    cast = size if size < 4 else 0
    reads_all = objective is not None and (objective.select == "teacher" or objective.support == "full")
    logits = config.hardware.head_chunk * (4 * (1 + reads_all) + cast)
    layers = shape.layer() * (2 * size + size + 4)  # two in flight, and a gradient with its float32 copy
    layers = max(layers, *(other.layer() * 2 * size for other in others), 0)
    models = [shape, *others]
    return {
        "gathered": sum(model.embeddings for model in models) * size + layers,
        "head": shape.vocabulary * (logits + sum(model.width for model in models) * (4 + cast)),
    }


def _samples(config: Config, ranks: int) -> int:
    """Samples that an update learns on one process, at most."""
    return -(-most(config.algorithm.trains(config.batch_size)) // ranks)


def most(asked: Sequence[Asked]) -> int:
    """How many there are at most: a phase that algorithms inside another share is that of either."""
    found: dict[str, int] = {}
    for each in asked:
        found[each.phase] = max(each.count, found.get(each.phase, 0))
    return sum(found.values())


def limit(sampling: SamplingSettings) -> int:
    """Tokens of a prompt and what is said to it."""
    return sampling.max_prompt + sampling.max_response


def longest_row(config: Config) -> int:
    """Tokens of the longest prompt and response of any role."""
    rollout = config.rollout
    asked = [each.sampling for each in config.algorithm.asks(config.batch_size) if each.sampling]
    return max([max(rollout.max_prompt, config.model.max_prompt) + rollout.max_response, *map(limit, asked)])
