"""The sizes of a decoder of the Llama family: parameters, cache, and what a layer keeps for its backward pass.

Activations are counted tensor by tensor as transformers' Qwen3 saves them (`model.body` keeps a fifth to a third less);
the tests compare all of it with real ones. Models of another build have no shape here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

FAMILIES = ("llama", "qwen2", "qwen3", "qwen3_moe")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder of the Llama family, dense (`experts` 0) or a mixture of `experts`, `active` for a token."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    tied: bool
    experts: int = 0
    active: int = 1
    qk_norm: bool = True
    qkv_bias: bool = False

    @staticmethod
    def of(config: Mapping[str, Any]) -> "Shape | None":
        """From what a model's config.json says; None for models of another build."""
        family = config.get("model_type")
        if family not in FAMILIES:
            return None
        heads, width = config["num_attention_heads"], config["hidden_size"]
        sparse = family == "qwen3_moe"
        return Shape(
            vocabulary=config["vocab_size"],
            width=width,
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or width // heads,
            inner=config["moe_intermediate_size" if sparse else "intermediate_size"],
            tied=bool(config.get("tie_word_embeddings")),
            experts=config.get("num_experts", config.get("num_local_experts", 0)) if sparse else 0,
            active=config["num_experts_per_tok"] if sparse else 1,
            qk_norm=family.startswith("qwen3"),
            qkv_bias=family == "qwen2",
        )

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    def layer(self, experts: int | None = None) -> int:
        """Parameters of a layer, with so many of its experts (None: all)."""
        attention = self.width * (2 * self.queries + 2 * self.keys)
        small = 2 * self.width + self.qk_norm * 2 * self.head_dim + self.qkv_bias * (self.queries + 2 * self.keys)
        mlps = (self.experts or 1) if experts is None else experts
        return attention + small + mlps * 3 * self.width * self.inner + self.experts * self.width

    @property
    def embeddings(self) -> int:
        """Parameters outside the layers but the last norm: one matrix if tied, else two."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.layers * self.layer() + self.embeddings + self.width

    @property
    def computed(self) -> int:
        """Parameters that one token is multiplied with."""
        return self.layers * self.layer(self.active) + self.vocabulary * self.width

    @property
    def largest(self) -> int:
        """Numbers of the largest tensor: the embedding, or the first matrix of all experts of a layer."""
        return max(self.vocabulary * self.width, self.experts * 2 * self.inner * self.width)

    def adapter(self, rank: int, targets: Collection[str]) -> int:
        """Parameters of a low-rank adapter on the modules `targets` of all layers; experts have none."""
        sides = dict.fromkeys(("q_proj", "o_proj"), self.queries) | dict.fromkeys(("k_proj", "v_proj"), self.keys)
        if not self.experts:
            sides |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), self.inner)
        return self.layers * sum(rank * (self.width + sides[name]) for name in set(targets) & set(sides))

    def cache(self, size: int) -> int:
        """Bytes of keys and values of one token, in numbers of `size` bytes."""
        return self.layers * 2 * self.keys * size

    def saved(self, size: int) -> int:
        """Bytes that one layer keeps of one token for the backward pass, in numbers of `size` bytes.

        Norms compute in float32 and keep their input so; attention keeps queries, keys, values, output and a row of
        log sums; the MLP keeps gate, activation, up and product, and a mixture of experts its inputs and outputs too.
        """
        norms = (8 + 4 * size) * self.width + 8
        attention = (4 + 3 * size) * (self.queries + self.keys) + 4 * (2 * self.heads + self.kv_heads)
        experts = 2 * size * self.width + 36 if self.experts else 0
        return norms + attention + self.active * (4 * size * self.inner + experts) + 4 * self.experts
