"""TIGER: T5 over semantic ids (Rajput et al., *Recommender Systems with Generative Retrieval*, NeurIPS 2023).

Differs from the paper: no hashed user token, and the vocabulary holds codes and behaviors alone. With
`behavior_tokens` it is TIGER-MB, the multi-behavior baseline of GAMER (Wang et al., section 4): a behavior token stands
before each item, in the history and in what is written, and bears loss there.
"""

from .base import ItemCodeT5
from .configuration import TigerConfig


class TigerForConditionalGeneration(ItemCodeT5):
    """TIGER, or with `behavior_tokens` TIGER-MB.

    Args:
        config: A configuration with its vocabulary filled in.

    Raises:
        ValueError: If the configuration has no vocabulary.

    Example:
        >>> import torch
        >>> shape = dict(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        >>> config = TigerConfig(codebook_sizes=[4, 4], behavior_levels=[0, 1], behavior_tokens=True, **shape)
        >>> history, item = torch.tensor([[2, 4, 8, 3, 5, 9, 1]]), torch.tensor([[3, 6, 10, 1]])
        >>> TigerForConditionalGeneration(config)(input_ids=history, labels=item).logits.shape
        torch.Size([1, 4, 12])
    """

    config_class = TigerConfig
    config: TigerConfig
