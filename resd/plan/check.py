"""Whether a run fits a machine, in one sentence, and how long its longest prompts may be."""

import os
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from resd.config import Config
from resd.plan.estimate import GB, Estimate, estimate
from resd.plan.shape import Shape
from resd.settings import RolloutSettings, Section
from resd.types import UserError

LONGEST = 2**22  # tokens of a prompt; no model reads more
REMEDY = {
    "activations": "lower hardware.micro_batch_tokens or rollout.max_response, "
    "or write hardware.activation_checkpointing=true",
    "author": "take a smaller author.path, or author.url",
    "cache": "lower engine.max_batch or rollout.max_response, or take engine=vllm",
    "engine": "lower engine.gpu_memory with engine=vllm, else take that or a smaller model",
    "head": "lower hardware.head_chunk, or take a smaller model",
}
SMALLER = {
    "teacher": "take a smaller teacher, more processes (--nproc-per-node), or hardware.offload=teacher on a GPU",
    "the teacher as it is read": "take a smaller teacher",
}
ELSE = "take more processes (--nproc-per-node, --nnodes), model.lora, hardware.offload=all on a GPU, or a smaller model"


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes: of a process's GPU in all (0 without one), what is free for a process, and what main memory is free for
    the `processes` of this machine."""

    device: int
    free: int
    host: int
    processes: int


def check(shape: Shape, config: Config, ranks: int, room: Room, *others: Shape | None) -> str:
    """A sentence about the memory of a run. Raises UserError, which says what to reduce, if it cannot suffice.

    `others` are those of `estimate`.
    """
    guess = estimate(shape, config, ranks, room.device, *others)
    phase, (have, needed) = guess.phases[guess.worst], guess.share
    most = max((part for part in phase if part != "libraries"), key=lambda part: phase[part])
    remedies = REMEDY | (SMALLER if others and others[0] else {})
    remedy = remedies.get(most, ELSE) if have >= needed else "raise engine.gpu_memory or engine.tensor_parallel"
    sizes = ", ".join(f"{part} {_gb(size)}" for part, size in phase.items() if size >= GB / 20)
    longest = config.model.max_prompt if _fits(guess, room) else longest_prompt(shape, config, ranks, room, *others)
    if config.rollout.max_prompt <= longest < config.model.max_prompt:
        raise UserError(
            f"model.max_prompt={config.model.max_prompt} is more than fits, even one prompt and its response at a "
            f"time: write at most {longest}, or {remedy}"
        )
    if have < needed:
        raise UserError(
            f"engine.gpu_memory leaves vLLM {_gb(have)} GB of a GPU, its weights and one long sequence take "
            f"{_gb(needed)}: {remedy}"
        )
    if guess.least > room.free:
        raise UserError(f"a process needs {_gb(guess.least)} GB, {_gb(room.free)} are free ({sizes}): {remedy}")
    first, other = guess.host
    held = first + other * (room.processes - 1)
    if first and held > room.host:
        raise UserError(
            f"{room.processes} processes hold {_gb(held)} GB of main memory while they load, offload or save the "
            f"model, {_gb(room.host)} are free: take fewer processes on each machine, or a smaller model"
        )
    needs = f"memory of a process while {guess.worst}: up to {_gb(guess.peak)} GB ({sizes})"
    if guess.peak > room.free:
        return f"{needs}, more than the {_gb(room.free)} that are free, if all texts get long: {remedy}"
    return f"{needs}, of {_gb(room.free)}"


def longest_prompt(shape: Shape, config: Config, ranks: int, room: Room, *others: Shape | None) -> int:
    """The largest `model.max_prompt` that a run has room for, a single row of it with its response; 0 if none."""

    def too_long(tokens: int) -> bool:
        changed: Config = _following(config, config.model.max_prompt, tokens)
        return not _fits(estimate(shape, changed, ranks, room.device, *others), room)

    return bisect_left(range(1, LONGEST), True, key=too_long)


def _following(section: Any, old: int, tokens: int) -> Any:
    """The section with another limit of prompts, wherever it is that of `model.max_prompt`."""
    found = {}
    for name, value in section:
        if isinstance(value, Section):
            found[name] = _following(value, old, tokens)
        elif name == "max_prompt" and value == old and not isinstance(section, RolloutSettings):
            found[name] = tokens
    return section.model_copy(update=found)


def _fits(guess: Estimate, room: Room) -> bool:
    have, needed = guess.share
    return guess.least <= room.free and needed <= have


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
