"""How fast an update was, in closed form; and what it took."""

import pytest
import torch

from resd.report.perf import memory_gb, parameters, speed
from resd.types import Sample


@pytest.mark.parametrize(("frozen", "work"), [(False, 6), (True, 4)])
def test_utilisation(frozen: bool, work: int) -> None:
    """Two samples of 3 + 2 tokens, one of them scored by a teacher who reads 5 tokens more."""
    model = torch.nn.ModuleDict({"base": torch.nn.Linear(10, 4, bias=False)})
    if frozen:
        model.requires_grad_(False)
        model["lora_A"] = torch.nn.Linear(10, 1, bias=False)
        model = torch.nn.ModuleDict({"layer": model})
    assert parameters(model) == 40
    samples = [Sample([1, 2, 3], [4, 5], [0.0, 0.0], teacher) for teacher in (None, [0] * 8)]
    found = speed(model, samples, seconds=2.0, peak=1000.0)
    assert found["perf/tokens_per_s"] == (5 + 5 + 10) / 2
    assert found["perf/mfu"] == pytest.approx(40 * (work * 10 + 2 * 10) / 2000)


def test_memory_is_what_the_device_has_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what torch counts, which includes what a sleeping engine has given back."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 199 * 2**30)
    assert memory_gb("cuda") == 50
    assert 0 < memory_gb("cpu") < 50  # the process alone, also beside a GPU
