"""A GAMER of 16 numbers per token, with random weights large enough that no two items score alike."""

import torch

from genrec.item_tokenizers.base import ItemTokenizer
from genrec.models.gamer import GamerConfig, GamerForCausalLM

SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "behavior_embedding_dim": 4,
    "initializer_range": 0.4,
    "max_history_items": 5,
}


def tiny_model(tokenizer: ItemTokenizer, **fields: object) -> GamerForCausalLM:
    """Return the same model for the same arguments, in evaluation mode."""
    torch.manual_seed(0)
    return GamerForCausalLM(GamerConfig(**SHAPE, **tokenizer.model_config_fields(), **fields)).eval()
