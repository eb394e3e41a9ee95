"""The policy: a language model that gives hidden states, and applies a head of ours inside its forward pass.

The head runs inside `forward` because only there does FSDP2 hold the output embedding as a full tensor, and only a
forward of the root module starts its gradient reduction.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from resd.model.fast import PACKED, tune
from resd.model.pack import Rows


class Policy(nn.Module):
    """Wraps a Hugging Face causal language model. `packed` is the layout of rows that it wants."""

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm
        self.tuned = tune(lm)
        self.packed = lm.config._attn_implementation in (PACKED, "flash_attention_2")

    def forward(
        self, rows: Rows, head: Callable[[Float[Tensor, "T D"], Float[Tensor, "V D"]], Any] | None = None
    ) -> Any:
        """Hidden states [T, D] of the response rows, or `head(hidden_T_D, output_embedding_V_D)` of them."""
        more = {"lengths": rows.lengths, "predict_T": rows.predict_T} if self.tuned else {}
        output = self.lm.model(input_ids=rows.input_ids, position_ids=rows.position_ids, use_cache=False, **more)
        hidden = output.last_hidden_state
        hidden_T_D = hidden if self.tuned else hidden.flatten(0, 1)[rows.predict_T]
        return hidden_T_D if head is None else head(hidden_T_D, self.output_embedding)

    @property
    def output_embedding(self) -> Float[Tensor, "V D"]:
        return self.lm.get_output_embeddings().weight
