"""GAMER's two attentions, each split into projecting queries, keys and values and multiplying them.

The split lets a decoder project new tokens only and attend to a prompt that was projected once.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, apply_rotary_pos_emb, eager_attention_forward

from .configuration_gamer import GamerConfig

Rotary = tuple[Tensor, Tensor]
Projected = tuple[Tensor, Tensor, Tensor]


class _SplitAttention(Qwen3Attention):
    """Qwen3's attention with its two halves callable on their own."""

    def project(self, hidden_states: Tensor, rotary: Rotary, behaviors: Tensor | None = None) -> Projected:
        """Return normalised and rotated queries and keys, and values.

        Args:
            hidden_states: The layer's normed input `[batch, tokens, width]`.
            rotary: Cosines and sines of the tokens' rotary positions `[batch, tokens, head dim]`.
            behaviors: 0 for none, i + 1 for behavior i; read by cross-level attention only `[batch, tokens]`.

        Returns:
            Queries `[batch, heads, tokens, head dim]`, keys and values `[batch, key-value heads, tokens, head dim]`.
        """
        queries, keys, values = (
            states.unflatten(-1, (-1, self.head_dim)) for states in self._linear(hidden_states, behaviors)
        )
        queries, keys = self.q_norm(queries).transpose(1, 2), self.k_norm(keys).transpose(1, 2)
        queries, keys = apply_rotary_pos_emb(queries, keys, *rotary)
        return queries, keys, values.transpose(1, 2)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Any) -> tuple[Tensor, Tensor | None]:
        """Return the heads' outputs side by side `[batch, queries, heads * head dim]`, and the weights if eager.

        Without a mask, several queries attend causally and a single one to all keys.
        """
        implementation = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.attention_dropout if self.training else 0.0
        output, weights = implementation(self, queries, keys, values, mask, dropout=dropout, scaling=self.scaling)
        return output.flatten(2), weights

    def _linear(self, hidden_states: Tensor, behaviors: Tensor | None) -> Projected:
        return self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)

    def _cached(self, keys: Tensor, values: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        return (keys, values) if cache is None else cache.update(keys, values, self.layer_idx)


class SelfAttention(_SplitAttention):
    """Causal self-attention, exactly Qwen3's."""

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: Rotary,
        attention_mask: Any,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output `[batch, tokens, width]`, and the attention weights if eager."""
        queries, keys, values = self.project(hidden_states, position_embeddings)
        keys, values = self._cached(keys, values, past_key_values)
        output, weights = self.attend(queries, keys, values, attention_mask)
        return self.o_proj(output), weights


class CrossLevelAttention(_SplitAttention):
    """Cross-level behavior interaction: stronger behaviors look at earlier weaker ones (GAMER, equations 2 to 4).

    Embeddings of the item's behavior are added to queries, keys and values before the norm, and a SiLU gate of the
    input multiplies the output. A token without a visible key gets exactly zero, where the release averages over the
    whole row, the future and padding included. The cache slot comes after those of all self-attentions.

    Args:
        config: The model's configuration.
        layer_idx: The layer's number.
    """

    def __init__(self, config: GamerConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.layer_idx = config.num_hidden_layers + layer_idx
        rows = config.num_behaviors + 1
        self.q_behavior_embedding = nn.Embedding(rows, self.q_proj.out_features)
        self.k_behavior_embedding = nn.Embedding(rows, self.k_proj.out_features)
        self.v_behavior_embedding = nn.Embedding(rows, self.v_proj.out_features)
        self.gate_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        rotary: Rotary,
        behaviors: Tensor,
        mask: Any,
        has_key: Tensor,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Return the gated output `[batch, tokens, width]`; `has_key` `[batch, tokens]` says where it is not zero."""
        queries, keys, values = self.project(hidden_states, rotary, behaviors)
        keys, values = self._cached(keys, values, past_key_values)
        output, _ = self.attend(queries, keys, values, mask)
        return self.finish(output, hidden_states, has_key)

    def finish(self, attended: Tensor, hidden_states: Tensor, has_key: Tensor) -> Tensor:
        """Return the output of `attend`, projected, gated by the layer's input and zero where there is no key."""
        output = self.o_proj(attended) * nn.functional.silu(self.gate_proj(hidden_states))
        return torch.where(has_key[..., None], output, 0)

    def _linear(self, hidden_states: Tensor, behaviors: Tensor | None) -> Projected:
        queries, keys, values = super()._linear(hidden_states, behaviors)
        return (
            queries + self.q_behavior_embedding(behaviors),
            keys + self.k_behavior_embedding(behaviors),
            values + self.v_behavior_embedding(behaviors),
        )
