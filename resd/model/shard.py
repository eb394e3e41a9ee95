"""FSDP2: shard a policy over the ranks, fill it, and get whole tensors back. A world of one takes the same path.

Nobody needs the whole model on a device, and only the first process ever holds it in main memory: the layers are cut
while they have no values yet (meta device), and then each tensor goes out from the first process, one at a time.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
import torch.distributed as torch_dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from resd.model import lora
from resd.model.family import layers
from resd.model.hidden import Policy
from resd.types import UserError


def layout(mesh: DeviceMesh, shard_processes: int | None) -> DeviceMesh:
    """How a world shares a model: among all processes (None), or among each run of so many of them (HSDP).

    The mesh of the latter is [replicate, shard]. Raises UserError where the runs do not fill the world.
    """
    if shard_processes is None or shard_processes == mesh.size():
        return mesh
    if mesh.size() % shard_processes:
        raise UserError(
            f"hardware.shard_processes={shard_processes} does not divide the {mesh.size()} processes: "
            "choose a divisor, or null for all"
        )
    groups = mesh.size() // shard_processes
    return init_device_mesh(mesh.device_type, (groups, shard_processes), mesh_dim_names=("replicate", "shard"))


def shard(policy: Policy, mesh: DeviceMesh, dtype: torch.dtype, *, offload: bool = False) -> Policy:
    """Shard in place, a unit per layer and one for the rest: float32 shards, `dtype` compute, float32 reduction.

    With `offload` shards, gradients and so the optimizer stay in main memory. The shards of a policy without values (on
    the meta device) get memory here and values by `fill` or `copy_shards`.
    """
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    place = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda") if offload else OffloadPolicy()
    for layer in layers(policy.lm):
        fully_shard(layer, mesh=mesh, mp_policy=precision, offload_policy=place)
    fully_shard(policy, mesh=mesh, mp_policy=precision, offload_policy=place)
    if any(parameter.is_meta for parameter in policy.parameters()):
        policy.to_empty(device="cpu" if offload else mesh.device_type)
    return policy


@torch.no_grad()
def fill(policy: Policy, lm: Any | None, mesh: DeviceMesh) -> None:
    """Give a policy the values of `lm`, which only the first process has and which is used up; collective."""
    given, device = {} if lm is None else named_tensors(lm), mesh.device_type
    for name, own in named_tensors(policy.lm).items():
        whole = given[name].detach().to(device) if given else torch.empty(own.shape, dtype=own.dtype, device=device)
        if isinstance(own, DTensor):
            local = distribute_tensor(whole, own.device_mesh, own.placements).to_local()
            whole_or_local(own, whole=False).copy_(local)
        else:
            torch_dist.broadcast(whole, src=0)
            own.data = whole
        if given and isinstance(given[name], torch.nn.Parameter):
            given[name].data = torch.empty(0)


@torch.no_grad()
def copy_shards(policy: Policy, source: Policy) -> None:
    """Give a policy the values of another one that is sharded alike."""
    reshard(source)
    torch._foreach_copy_(local_tensors(policy.parameters()), local_tensors(source.parameters()))
    for own, other in zip(policy.buffers(), source.buffers(), strict=True):
        own.data = other.detach().clone()


def named_tensors(lm: Any) -> dict[str, Tensor]:
    """Parameters, tied ones once, and buffers, which are not part of a state dictionary if they can be computed.

    Buffers are there under each of their names: a scaled rotary embedding shares some once it has been used.
    """
    return {**dict(lm.named_parameters()), **dict(lm.named_buffers(remove_duplicate=False))}


def reshard(policy: Policy) -> None:
    """Free the root's full parameters, which FSDP2 keeps after a forward pass; shards are stale-free afterwards."""
    cast(FSDPModule, policy).reshard()


def local_tensors(parameters: Iterable[Tensor]) -> list[Tensor]:
    """This rank's shards, without autograd history."""
    return [whole_or_local(p, whole=False) for p in parameters]


def full_tensors(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, whole parameter) one at a time; collective, so every rank must exhaust it in step.

    An adapter is merged into its base.
    """
    reshard(policy)
    for name, parameter, adapter in lora.bases(policy.lm):
        tensor = whole_or_local(parameter, whole=True)
        if adapter is not None:
            down, up, scale = adapter
            tensor = tensor + whole_or_local(up, whole=True) @ whole_or_local(down, whole=True) * scale
        yield name, tensor


def whole_or_local(parameter: Tensor, *, whole: bool) -> Tensor:
    """The full tensor or this rank's part of a possibly sharded parameter."""
    tensor = parameter.detach()
    if not isinstance(tensor, DTensor):
        return tensor
    if whole:  # an offloaded shard goes to the device first, whose collectives are fast
        return cast(DTensor, tensor.to(tensor.device_mesh.device_type)).full_tensor()
    return tensor.to_local()
