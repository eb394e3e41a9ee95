"""The policy: a language model that gives hidden states, and applies a head of ours inside its forward pass.

The head runs inside `forward` because only there does FSDP2 hold the output embedding as a full tensor, and only a
forward of the root module starts its gradient reduction.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resd.model import body
from resd.model.family import layers
from resd.model.pack import Rows


class Policy(nn.Module):
    """Wraps a Hugging Face causal language model. `packed` is the layout of rows that it wants.

    Hidden states are those that times the output embedding make the logits: `logit_scale` is in them. `recomputed`
    keeps only the input of each layer for the backward pass. The model stays in evaluation mode throughout, in which no
    family has dropout.
    """

    def __init__(self, lm: Any, compiled: bool = False, *, recomputed: bool = False) -> None:
        super().__init__()
        self.lm = lm
        self.logit_scale = 1.0
        self.adopted = self.packed = body.adopt(lm, compiled)
        if recomputed:
            for layer in layers(lm):
                # not Hugging Face's own, which wants training mode and with it dropout
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)

    def forward(
        self, rows: Rows, head: Callable[[Float[Tensor, "T D"], Float[Tensor, "V D"]], Any] | None = None
    ) -> Any:
        """Hidden states [T, D] of the response rows, or `head(hidden_T_D, output_embedding_V_D)` of them."""
        hidden_T_D = body.hidden(self.lm.model, rows) if self.adopted else self._hidden(rows)
        if self.logit_scale != 1:
            hidden_T_D = hidden_T_D * self.logit_scale
        return hidden_T_D if head is None else head(hidden_T_D, self.output_embedding)

    def _hidden(self, rows: Rows) -> Float[Tensor, "T D"]:
        output = self.lm.base_model(input_ids=rows.input_ids, use_cache=False, return_dict=True)
        return output.last_hidden_state.flatten(0, 1)[rows.predict_T]

    @property
    def output_embedding(self) -> Float[Tensor, "V D"]:
        return self.lm.get_output_embeddings().weight
