"""The policy: a language model that gives hidden states, and applies a head of ours inside its forward pass.

The head runs inside `forward` because only there does FSDP2 hold the output embedding as a full tensor, and only a
forward of the root module starts its gradient reduction.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from resd.model import body
from resd.model.pack import Rows


class Policy(nn.Module):
    """Wraps a Hugging Face causal language model. `packed` is the layout of rows that it wants."""

    def __init__(self, lm: Any, compiled: bool = False) -> None:
        super().__init__()
        self.lm = lm
        self.adopted = body.adopt(lm, compiled)
        self.packed = self.adopted or lm.config._attn_implementation == "flash_attention_2"

    def forward(
        self, rows: Rows, head: Callable[[Float[Tensor, "T D"], Float[Tensor, "V D"]], Any] | None = None
    ) -> Any:
        """Hidden states [T, D] of the response rows, or `head(hidden_T_D, output_embedding_V_D)` of them."""
        hidden_T_D = body.hidden(self.lm.model, rows) if self.adopted else self._hidden(rows)
        return hidden_T_D if head is None else head(hidden_T_D, self.output_embedding)

    def _hidden(self, rows: Rows) -> Float[Tensor, "T D"]:
        output = self.lm.model(input_ids=rows.input_ids, position_ids=rows.position_ids, use_cache=False)
        return output.last_hidden_state.flatten(0, 1)[rows.predict_T]

    @property
    def output_embedding(self) -> Float[Tensor, "V D"]:
        return self.lm.get_output_embeddings().weight
