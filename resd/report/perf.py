"""How fast an update was: tokens a second, model FLOPs utilisation; and how much memory it took."""

import resource
import time
from collections.abc import Sequence

import torch

from resd import dist
from resd.model import lora
from resd.types import Sample


def parameters(model: torch.nn.Module) -> int:
    """Parameters of a possibly sharded model, tied ones once, without adapters."""
    return sum(p.numel() for _, p, _ in lora.bases(model))


def measure_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product on this rank, the yardstick of `perf/mfu`. Takes well under a second."""
    size = 8192 if device == "cuda" else 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        (left @ right).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def speed(model: torch.nn.Module, samples: Sequence[Sample], seconds: float, peak: float) -> dict[str, float]:
    """Speed and utilisation of an update that took `seconds`; `peak` FLOP/s of a rank, 0 if unknown."""
    trained = sum(len(s.prompt_ids) + len(s.response_ids) for s in samples)
    scored = sum(len(s.teacher_prompt_ids) + len(s.response_ids) for s in samples if s.teacher_prompt_ids is not None)
    found = {"perf/tokens_per_s": (trained + scored) / max(seconds, 1e-9)}
    if peak:
        work = 4 if lora.is_adapted(model) else 6
        found["perf/mfu"] = utilisation(parameters(model), work, trained, scored, seconds, peak)
    return found


def utilisation(parameters: int, work: int, trained: int, scored: int, seconds: float, peak: float) -> float:
    """Model FLOPs over what the world could do: `work` a parameter and trained token, 2 a parameter and scored token.

    `work` is 6, or 4 where the parameters themselves are frozen.
    """
    return (work * trained + 2 * scored) * parameters / (max(seconds, 1e-9) * peak * dist.world())


def memory_gb(device: str) -> float:
    """What a GPU has given away right now; on a CPU the most that the process ever held.

    Counters of torch go on counting what an engine that sleeps has given back. But torch keeps what it no longer needs
    until an engine wakes: after an update this is the most that the update took.
    """
    if device == "cuda":
        free, whole = torch.cuda.mem_get_info()
        return (whole - free) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
