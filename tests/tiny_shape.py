"""The shape of the GAMER that tests make: 16 numbers per token, two layers, nothing dropped out."""

from typing import Any

TINY_SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "behavior_embedding_dim": 4,
    "dropout": 0.0,
}
