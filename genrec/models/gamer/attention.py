"""GAMER's two attentions, each split into projecting queries, keys and values and multiplying them.

The split lets a decoder project new tokens only and attend to a prompt that was projected once.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, eager_attention_forward

from .configuration_gamer import GamerConfig
from .cross_level_selection import CrossLevelSelection, put_back, taken
from .fused_ops import RMSNorm, prefixes, rotated

NUM_BLOCKS = 8
FEWEST_TOKENS_FOR_BLOCKS = 128
FEWEST_TOKENS_COMPILED = 2 * NUM_BLOCKS  # a compiled model rather has one graph for all lengths

Rotary = tuple[Tensor, Tensor]
Projected = tuple[Tensor, Tensor, Tensor]


class _SplitAttention(Qwen3Attention):
    """Qwen3's attention with its two halves callable on their own."""

    def __init__(self, config: GamerConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.q_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def project(self, hidden_states: Tensor, rotary: Rotary, behaviors: Tensor | None = None) -> Projected:
        """Return normalised and rotated queries and keys, and values.

        Args:
            hidden_states: The layer's normed input `[batch, tokens, width]`.
            rotary: Cosines and sines of the tokens' rotary positions `[batch, tokens, head dim]`.
            behaviors: 0 for none, i + 1 for behavior i; read by cross-level attention only `[batch, tokens]`.

        Returns:
            Queries `[batch, heads, tokens, head dim]`, keys and values `[batch, key-value heads, tokens, head dim]`.
        """
        queries, keys, values = self._linear(hidden_states, behaviors)
        queries, keys = self._positioned(queries, self.q_norm, rotary), self._positioned(keys, self.k_norm, rotary)
        return queries, keys, values.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Any) -> tuple[Tensor, Tensor | None]:
        """Return the heads' outputs side by side `[batch, queries, heads * head dim]`, and the weights if eager.

        Without a mask, several queries attend causally and a single one to all keys. A mask never shows what comes
        after a query.
        """
        is_whole = queries.shape[2] == keys.shape[2]
        if self.config._attn_implementation == "sdpa" and is_whole and _gains_from_blocks(queries):
            sizes = _block_sizes(queries.shape[2])
            mask = _causal_mask(queries) if mask is None else mask
            return self._attend_in_blocks(queries, keys, values, mask, sizes, list(accumulate(sizes))), None
        implementation = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.attention_dropout if self.training else 0.0
        output, weights = implementation(self, queries, keys, values, mask, dropout=dropout, scaling=self.scaling)
        return output.flatten(2), weights

    def _attend_in_blocks(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, sizes: Sequence[int], ends: Sequence[int]
    ) -> Tensor:
        dropout = self.attention_dropout if self.training else 0.0
        return attend_in_blocks(queries, keys, values, mask, sizes, ends, dropout, self.scaling).flatten(2)

    def _linear(self, hidden_states: Tensor, behaviors: Tensor | None) -> Projected:
        return self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)

    def _positioned(self, projected: Tensor, norm: nn.Module, rotary: Rotary) -> Tensor:
        """Return queries or keys, normed and rotated `[batch, heads, tokens, head dim]`."""
        cos, sin = (part[:, :, None] for part in rotary)
        return rotated(norm(projected.unflatten(-1, (-1, self.head_dim))), cos, sin).transpose(1, 2)

    def _cached(self, keys: Tensor, values: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        return (keys, values) if cache is None else cache.update(keys, values, self.layer_idx)


def _gains_from_blocks(queries: Tensor) -> bool:
    """Whether there are enough queries, and the kernel is a CPU's for float32; for bf16 it is slow in small blocks."""
    is_exact = queries.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    fewest = FEWEST_TOKENS_COMPILED if torch.compiler.is_compiling() else FEWEST_TOKENS_FOR_BLOCKS
    return queries.device.type == "cpu" and is_exact and queries.shape[2] >= fewest


def _block_sizes(num_queries: int) -> list[int]:
    size = num_queries // NUM_BLOCKS
    return [size] * (NUM_BLOCKS - 1) + [num_queries - size * (NUM_BLOCKS - 1)]


def _causal_mask(queries: Tensor) -> Tensor:
    num_tokens = queries.shape[2]
    return torch.ones(1, 1, num_tokens, num_tokens, dtype=torch.bool, device=queries.device).tril()


def attend_in_blocks(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    sizes: Sequence[int],
    ends: Sequence[int],
    dropout: float,
    scaling: float,
) -> Tensor:
    """Attend block of queries by block of queries, each to the keys up to an end: little more than half the work.

    On CPUs scaled dot-product attention computes what a mask hides, and in its backward pass even what is not causal.

    Args:
        queries: `[batch, heads, queries, head dim]`.
        keys: `[batch, key-value heads, keys, head dim]`.
        values: Like `keys`.
        mask: Which keys each query sees, nowhere beyond the end of its block; bool `[batch or 1, 1, queries, keys]`.
        sizes: Queries per block.
        ends: How many keys each block gets, never falling; the last one gets all.
        dropout: Dropout rate of the weights.
        scaling: Multiplies the scores.

    Returns:
        `[batch, queries, heads, head dim]`.
    """
    blocks = zip(
        queries.transpose(1, 2).split(list(sizes), dim=1),  # gradients are joined in the order they lie in memory
        prefixes(keys, ends),
        prefixes(values, ends),
        mask.split(list(sizes), dim=2),
        ends,
        strict=True,
    )
    outputs = [
        scaled_dot_product_attention(
            asking.transpose(1, 2),
            seen,
            read,
            attn_mask=shown[..., :end],
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=True,
        ).transpose(1, 2)
        for asking, seen, read, shown, end in blocks
    ]
    return torch.cat(outputs, dim=1)


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
        selection: CrossLevelSelection | None = None,
    ) -> Tensor:
        """Return the gated output `[batch, tokens, width]`; `has_key` `[batch, tokens]` says where it is not zero.

        With a selection only its tokens are computed, without a cache; the result is the same.
        """
        if selection is not None:
            return self._of_selection(hidden_states, selection)
        queries, keys, values = self.project(hidden_states, rotary, behaviors)
        keys, values = self._cached(keys, values, past_key_values)
        output, _ = self.attend(queries, keys, values, mask)
        return self.finish(output, hidden_states, has_key)

    def finish(self, attended: Tensor, hidden_states: Tensor, has_key: Tensor) -> Tensor:
        """Return the output of `attend`, projected, gated by the layer's input and zero where there is no key."""
        output = self.o_proj(attended) * nn.functional.silu(self.gate_proj(hidden_states))
        return torch.where(has_key[..., None], output, 0)

    def _of_selection(self, hidden_states: Tensor, selection: CrossLevelSelection) -> Tensor:
        asking, seen, num_tokens = selection.queries, selection.keys, hidden_states.shape[1]
        of_asking, of_seen = taken(hidden_states, asking.columns), taken(hidden_states, seen.columns)
        queries = self.q_proj(of_asking) + self.q_behavior_embedding(asking.behaviors)
        keys = self.k_proj(of_seen) + self.k_behavior_embedding(seen.behaviors)
        values = self.v_proj(of_seen) + self.v_behavior_embedding(seen.behaviors)
        queries = self._positioned(queries, self.q_norm, asking.rotary)
        keys = self._positioned(keys, self.k_norm, seen.rotary)
        values = values.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        sizes = _block_sizes(queries.shape[2]) if _gains_from_blocks(queries) else [queries.shape[2]]
        ends = selection.ends(sizes)
        attended = self._attend_in_blocks(queries, keys, values, selection.mask, sizes, ends)
        return put_back(self.finish(attended, of_asking, asking.is_chosen), asking.columns, num_tokens)

    def _linear(self, hidden_states: Tensor, behaviors: Tensor | None) -> Projected:
        queries, keys, values = super()._linear(hidden_states, behaviors)
        return (
            queries + self.q_behavior_embedding(behaviors),
            keys + self.k_behavior_embedding(behaviors),
            values + self.v_behavior_embedding(behaviors),
        )
