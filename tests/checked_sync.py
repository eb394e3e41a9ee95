"""`resd.train` in which transformers gets every weight that vLLM gets, and both then answer the same prompts greedily.

    torchrun tests/checked_sync.py FOLDER engine=vllm …

The prompts are always the same ones, longer than a block of the prefix cache: a stale weight or a stale cache shows.
Every rank writes `FOLDER/RANK.json`: for the weights that both read themselves, and for those of each sync, the tokens
and how far their log-probabilities are apart at most.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from resd import dist
from resd.engine import vllm
from resd.engine.transformers import TransformersEngine
from resd.train import main
from resd.types import Request

PROMPTS = [Request([3 + (7 * i) % 250 for i in range(start, start + 140)], 12, temperature=0.0) for start in range(4)]


class Checked(vllm.VllmEngine):
    """Compares itself with a reference after each sync."""

    folder: Path

    def __init__(self, path: str, *arguments: Any, **options: Any) -> None:
        super().__init__(path, *arguments, **options)
        self.found: list[dict[str, Any]] = []
        self.reference = TransformersEngine(
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
            eos_ids=self.eos_ids,
            max_batch=len(PROMPTS),
            max_length=self.max_length,
        )
        self.compare()

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        copies: list[tuple[str, Tensor]] = []

        def copied() -> Iterator[tuple[str, Tensor]]:
            for name, weight in weights:
                copies.append((name, weight.clone()))
                yield name, weight

        super().sync(copied())
        self.reference.sync(copies)
        self.compare()

    def compare(self) -> None:
        ours, theirs = (dict(engine.generate(PROMPTS)) for engine in (self, self.reference))
        assert all(ours[i].ids == theirs[i].ids for i in theirs), f"comparison {len(self.found)}: other greedy tokens"
        gaps = [abs(a - b) for i in theirs for a, b in zip(ours[i].logprobs, theirs[i].logprobs, strict=True)]
        self.found.append({"tokens": [theirs[i].ids for i in sorted(theirs)], "gap": max(gaps)})
        (self.folder / f"{dist.rank()}.json").write_text(json.dumps(self.found))


if __name__ == "__main__":
    Checked.folder = Path(sys.argv.pop(1))
    vllm.VllmEngine = Checked  # type: ignore[misc]
    main()
