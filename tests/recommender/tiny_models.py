"""A GAMER of 16 numbers per token, with random weights large enough that no two items score alike."""

import torch

from genrec.item_tokenizers.base import ItemTokenizer
from genrec.models.gamer import GamerConfig, GamerForCausalLM

from ..tiny_shape import TINY_SHAPE

SHAPE = {
    **TINY_SHAPE,
    "initializer_range": 0.4,
    "max_history_items": 5,
}


def tiny_model(tokenizer: ItemTokenizer, **fields: object) -> GamerForCausalLM:
    """Return the same model for the same arguments, in evaluation mode."""
    torch.manual_seed(0)
    return GamerForCausalLM(GamerConfig(**SHAPE, **tokenizer.model_config_fields(), **fields)).eval()
