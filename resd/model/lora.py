"""Low-rank adapters by peft: one frozen base, and on it two adapters, the student's and the teacher's.

The student's is trained; the teacher's begins as its copy and then follows by the rule of `teacher`. Their B begins as
zero, so that both begin as the base, and a frozen teacher is the base for ever. An average of A and of B is not quite
the average of their product, which is what an averaged whole model would have. peft's layers are ordinary modules:
`body`, sharding and activation checkpointing need not know of them.

Not covered: dropout, biases, adapters of embeddings, and of the fused experts of a mixture (their attention has them).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from resd.model.family import layers
from resd.settings import LoraSettings
from resd.types import UserError

Owner = Literal["student", "teacher"]


def adapt(lm: Any, settings: LoraSettings, seed: int) -> Any:
    """Put both adapters into `lm`, in place; only the student's requires gradients, and is the active one.

    Raises UserError without peft, and for targets that are not linear modules of the layers.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UserError("model.lora needs peft: run pip install 'peft<0.22', or write model.lora=null") from None
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=settings.targets)
    place = {"low_cpu_mem_usage": next(lm.parameters()).is_meta}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wrapped = get_peft_model(lm, config, "student", **place)
            torch.manual_seed(seed)
            wrapped.add_adapter("teacher", config, **place)
    except ValueError as error:
        raise UserError(f"model.lora.targets={settings.targets} does not fit the model ({error})") from None
    inside = set(layers(lm).modules())
    for name, module in _adapted(lm):
        if module not in inside or not isinstance(module.base_layer, nn.Linear):
            raise UserError(f"model.lora.targets means {name} too, which is no linear module of a layer: leave it out")
    lm.requires_grad_(False)
    for parameter in weights(lm, "student").values():
        parameter.requires_grad_(True)
    _activate(lm, "student")
    return lm


def _adapted(lm: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in lm.named_modules() if hasattr(module, "lora_A"))


def weights(module: nn.Module, owner: Owner) -> dict[str, nn.Parameter]:
    """The parameters that tell student and teacher apart: those of the owner's adapter, or all if there is none."""
    every = dict(module.named_parameters())
    return {name: p for name, p in every.items() if ".lora_" in name and f".{owner}." in name} or every


def is_adapted(module: nn.Module) -> bool:
    """Whether student and teacher are adapters on one base."""
    return any(".lora_" in name for name, _ in module.named_parameters())


@contextmanager
def speaking(lm: nn.Module, owner: Owner) -> Iterator[None]:
    """The model computes with the owner's adapter for the time of a block."""
    _activate(lm, owner)
    try:
        yield
    finally:
        _activate(lm, "student")


def _activate(lm: nn.Module, owner: Owner) -> None:
    for _, module in _adapted(lm):
        # not set_adapter, which also changes what requires gradients: FSDP2 looks at that only once
        module._active_adapter = [owner]


def bases(lm: nn.Module) -> Iterator[tuple[str, Tensor, tuple[Tensor, Tensor, float] | None]]:
    """Every parameter of the base by its Hugging Face name, with A, B and scale of the student's adapter on it."""
    layers = dict(_adapted(lm))
    for name, parameter in lm.named_parameters():
        if ".lora_" in name:
            continue
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        adapter = None
        if layer is not None:
            adapter = layer.lora_A["student"].weight, layer.lora_B["student"].weight, layer.scaling["student"]
        yield name.replace(".base_layer.", "."), parameter, adapter
