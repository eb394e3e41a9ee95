"""FSDP2: shard a policy over the ranks, and get whole tensors back. A world of one takes the same path."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from resd.model.hidden import Policy


def shard(policy: Policy, mesh: DeviceMesh, dtype: torch.dtype) -> Policy:
    """Shard in place, a unit per layer and one for the rest: float32 shards, `dtype` compute, float32 reduction."""
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy.to(mesh.device_type)
    for layer in policy.lm.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision)
    return policy


def reshard(policy: Policy) -> None:
    """Free the root's full parameters, which FSDP2 keeps after a forward pass; shards are stale-free afterwards."""
    cast(FSDPModule, policy).reshard()


def local_tensors(module: nn.Module) -> list[Tensor]:
    """This rank's shards of the parameters, without autograd history."""
    return [whole_or_local(p, whole=False) for p in module.parameters()]


def full_tensors(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, whole parameter) one at a time; collective, so every rank must exhaust it in step."""
    reshard(policy)
    for name, parameter in policy.lm.named_parameters():
        yield name, whole_or_local(parameter, whole=True)


def whole_or_local(parameter: Tensor, *, whole: bool) -> Tensor:
    """The full tensor or this rank's part of a possibly sharded parameter."""
    tensor = parameter.detach()
    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.full_tensor() if whole else tensor.to_local()
