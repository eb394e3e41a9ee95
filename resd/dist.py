"""One torchrun world. The control flow is replicated: every rank runs the same program on the same data, heavy work is
shared out by `mine` and its results come back to everyone by `merge`. A lone process is a world of one.
"""

import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from transformers import utils

from resd.types import UserError

T = TypeVar("T")

# Asked for by speculative decoding alone, which nothing here does; where it is installed, every process that joins
# would start seconds later.
utils.is_sklearn_available = lambda: False


@contextmanager
def joined(device: str, threads: int | None = None) -> Iterator[DeviceMesh]:
    """The world for the time of a block, which computes in so many threads; one that was joined before stays.

    So does, after an error, one of several processes: leaving could wait for ranks that no longer answer, and this
    process is about to end. A lone one may go on, in a notebook say.
    """
    before, whole, threads_before = dist.is_initialized(), False, torch.get_num_threads()
    try:
        mesh = start(device)
        if threads is not None:
            torch.set_num_threads(threads)
        yield mesh
        whole = True
    finally:
        if threads is not None:
            torch.set_num_threads(threads_before)
        if not before and (whole or world() == 1):
            stop()


def start(device: str) -> DeviceMesh:
    """Join the world (or make one of a single process) and return its one-dimensional device mesh.

    Raises UserError where the device does not exist.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("hardware.device=cuda needs a GPU that torch can see: write hardware=cpu")
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        timeout = datetime.timedelta(minutes=30)
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=timeout)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    return init_device_mesh(device, (dist.get_world_size(),))


def stop() -> None:
    """Leave the world, if this process is in one."""
    if dist.is_initialized():
        _group.cache_clear()
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this rank is the one that writes files and talks to people."""
    return rank() == 0


def barrier() -> None:
    if world() > 1:
        dist.barrier()


def broadcast(value: T) -> T:
    """Rank 0's `value` on every rank."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def on_first(work: Callable[[], T]) -> T:
    """Do `work` on rank 0 alone: its result, or its UserError, on every rank."""
    result: Any = None
    refused: UserError | None = None
    if first():
        try:
            result = work()
        except UserError as error:
            refused = error
    result, refused = broadcast((result, refused))
    if refused is not None:
        raise refused
    return result


def mine(items: Sequence[T], part: int | None = None, parts: int | None = None) -> dict[int, T]:
    """This rank's share of a list that every rank holds, by index: every `parts`-th item; by default a part a rank."""
    return {i: items[i] for i in range(rank() if part is None else part, len(items), parts or world())}


def gather(results: Mapping[int, T]) -> dict[int, T]:
    """All ranks' results by index. Ranks of one part have the same results."""
    parts: list[Any] = [results]
    if world() > 1:
        parts = [None] * world()
        dist.all_gather_object(parts, dict(results))
    return {i: value for part in parts for i, value in part.items()}


def merge(results: Mapping[int, T], total: int) -> list[T]:
    """All ranks' results by index, as one list of `total` on every rank."""
    merged = gather(results)
    return [merged[i] for i in range(total)]


def leads(replica: int, replicas: int) -> bool:
    """Whether this rank is the first of its replica (`Engine.replica`): replicas are runs of consecutive ranks."""
    return rank() == replica * (world() // replicas)


def meet(replicas: int) -> None:
    """Make the groups in which ranks of one replica agree. All ranks of the world must come here, at work or not."""
    if world() > replicas:
        _group(world() // replicas)


def agree(value: T, replica: int, replicas: int) -> T:
    """The value of the replica's first rank on all its ranks, which must have met (`meet`)."""
    size = world() // replicas
    if size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=replica * size, group=_group(size))
    return box[0]


@cache
def _group(size: int) -> Any:
    return dist.new_subgroups(size)[0]


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum over ranks, in place."""
    if world() > 1:
        dist.all_reduce(values)
    return values
