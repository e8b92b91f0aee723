"""The transformer encoder of SASRec and BERT4Rec: BERT's layer, its residual around the feed-forward included.

`norm_first=False` is the layer of BERT (post-LN), `True` that of GPT-2 (pre-LN, with a norm after the last layer).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

from .configuration import TransformerConfig
from .sequences import positions_of


class TransformerEncoder(nn.Module):
    """Adds positions to item embeddings and lets them attend to each other.

    Args:
        config: The shape.
        num_positions: The most items in a row.
        is_causal: Whether an item sees only itself and earlier ones.
    """

    def __init__(self, config: TransformerConfig, num_positions: int, is_causal: bool) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(num_positions, config.hidden_size)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_first = config.norm_first
        self.is_causal = is_causal

    def forward(self, embeddings: Tensor, is_real: Tensor) -> Tensor:
        """Return the state of each place.

        Args:
            embeddings: `[batch, length, width]`.
            is_real: Which places are seen and counted as positions, `[batch, length]`.

        Returns:
            `[batch, length, width]`; pads have some finite state.
        """
        states = embeddings + self.position_embeddings(positions_of(is_real))
        states = self.dropout(states if self.norm_first else self.norm(states))
        mask = attention_mask(is_real, self.is_causal)
        for layer in self.layers:
            states = layer(states, mask)
        return self.norm(states) if self.norm_first else states


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with dropout, residual and norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.up_proj = nn.Linear(width, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, width)
        self.activation = ACT2FN[config.hidden_act]
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.feed_forward_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_first = config.norm_first

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the layer's output, `[batch, length, width]`; `mask` is `[batch, 1, length, length]`."""
        if self.norm_first:
            states = states + self.dropout(self._attention(self.attention_norm(states), mask))
            return states + self.dropout(self._feed_forward(self.feed_forward_norm(states)))
        states = self.attention_norm(states + self.dropout(self._attention(states, mask)))
        return self.feed_forward_norm(states + self.dropout(self._feed_forward(states)))

    def _attention(self, states: Tensor, mask: Tensor) -> Tensor:
        heads = self.in_proj(states).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        rate = self.attention_dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], mask, dropout_p=rate)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _feed_forward(self, states: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.up_proj(states)))


def attention_mask(is_real: Tensor, is_causal: bool) -> Tensor:
    """Return which place sees which, `[batch, 1, length, length]`; a pad sees itself, so that no row is empty.

    >>> attention_mask(torch.tensor([[True, True, False]]), is_causal=True)[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    length = is_real.shape[1]
    square = torch.ones(length, length, dtype=torch.bool, device=is_real.device)
    seen = is_real[:, None, None, :] & (square.tril() if is_causal else square)
    return seen | square.tril().triu()
