"""The models of a run: the student, the teacher's copy of it, and what the built-in engine starts from.

Weights are read once, by the first process: everybody else begins with an outline and is given what it needs. The peak
of main memory is one whole model in float32 on that process, and one whole tensor on each device.
"""

from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from resd import dist, seeds
from resd.model.family import logit_scale
from resd.model.hidden import Policy
from resd.model.load import load_model, outline
from resd.model.lora import adapt
from resd.model.shard import copy_shards, fill, named_tensors, shard
from resd.settings import HardwareSettings, ModelSettings
from resd.types import UserError


def build_student(model: ModelSettings, hardware: HardwareSettings, mesh: DeviceMesh, seed: int = 0) -> Policy:
    """The model of `model.path`, sharded; with adapters begun by `seed` if it has any.

    Raises UserError on all ranks if the first one cannot read it.
    """
    student = _empty(model, hardware, mesh, hardware.offload == "all", seed)
    lm = None
    found: float | UserError = 1.0
    if dist.first():
        try:
            lm = load_model(model)
            scale = logit_scale(model.path, lm)
            lm = _adapted(lm, model, seed)
            _check_same(model.path, lm, student.lm)
            found = scale
        except UserError as raised:
            found = raised
    found = dist.broadcast(found)
    if isinstance(found, UserError):
        raise found
    student.logit_scale = found
    fill(student, lm, mesh)
    return student


def _check_same(path: str, lm: Any, described: Any) -> None:
    other = named_tensors(lm).keys() ^ named_tensors(described).keys()
    if other:
        raise UserError(
            f"model.path={path} has weights that its config.json does not describe, or the reverse ({min(other)}): "
            "correct tie_word_embeddings there"
        )


def build_copy(model: ModelSettings, hardware: HardwareSettings, mesh: DeviceMesh, student: Policy) -> Policy:
    """A second set of the student's weights, as they are now."""
    policy = _empty(model, hardware, mesh, hardware.offload is not None)
    copy_shards(policy, student)
    policy.logit_scale = student.logit_scale
    return policy


def _empty(model: ModelSettings, hardware: HardwareSettings, mesh: DeviceMesh, offload: bool, seed: int = 0) -> Policy:
    lm = _adapted(outline(model), model, seed)
    policy = Policy(lm, hardware.compile, recomputed=hardware.activation_checkpointing)
    return shard(policy, mesh, getattr(torch, hardware.dtype), offload=offload)


def _adapted(lm: Any, model: ModelSettings, seed: int) -> Any:
    return lm if model.lora is None else adapt(lm, model.lora, seeds.derive(seed, "lora"))


def blank(model: ModelSettings, student: Policy, device: str, dtype: torch.dtype) -> Any:
    """A whole model in `dtype` on `device` that waits for its weights; what can be computed is the student's."""
    lm = outline(model, dtype).to_empty(device=device)
    lm.tie_weights()
    buffers = dict(student.lm.named_buffers(remove_duplicate=False))
    for name, buffer in lm.named_buffers(remove_duplicate=False):
        buffer.data = buffers[name].detach().to(device, copy=True)
    return lm
