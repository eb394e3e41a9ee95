"""How fast an update was: tokens a second, model FLOPs utilisation, peak memory."""

import resource
import time

import torch

from resd import dist


def parameters(model: torch.nn.Module) -> int:
    """Parameters of a possibly sharded model, tied ones once."""
    return sum(p.numel() for p in model.parameters())


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


def utilisation(parameters: int, trained: int, scored: int, seconds: float, peak: float) -> float:
    """Model FLOPs (6 a parameter and trained token, 2 a parameter and scored token) over what the world could do."""
    return (6 * trained + 2 * scored) * parameters / (max(seconds, 1e-9) * peak * dist.world())


def peak_memory_gb() -> float:
    """Most memory this rank ever held: of the GPU if there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
