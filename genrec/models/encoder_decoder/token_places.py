"""What each token is, read off token ids: its place in the item, and the behavior of the item that it belongs to."""

import torch
from torch import Tensor

from .configuration import FIRST_BEHAVIOR, EncoderDecoderConfig

NO_BEHAVIOR = 0


def token_places(config: EncoderDecoderConfig, input_ids: Tensor) -> Tensor:
    """Return 0 for start, end and padding, 1 for a behavior, and 1 + l for a code of level l, `[batch, tokens]`.

    Example:
        >>> config = EncoderDecoderConfig(codebook_sizes=[2, 2], behavior_levels=[0, 1])
        >>> token_places(config, torch.tensor([[0, 3, 5, 7, 1]])).tolist()
        [[0, 1, 2, 3, 0]]
    """
    first_tokens = torch.tensor([FIRST_BEHAVIOR, *config.level_offsets], device=input_ids.device)
    return torch.bucketize(input_ids.contiguous(), first_tokens, right=True)


def item_behaviors(config: EncoderDecoderConfig, input_ids: Tensor) -> Tensor:
    """Return the behavior of each code's item, counted from 1, and 0 for all other tokens.

    An item's behavior is that of the last behavior token before its codes; codes without one have none.

    Args:
        config: The vocabulary.
        input_ids: Token ids from the first on `[batch, tokens]`.

    Example:
        >>> config = EncoderDecoderConfig(codebook_sizes=[2, 2], behavior_levels=[0, 1])
        >>> item_behaviors(config, torch.tensor([[2, 4, 6, 3, 5, 7, 1]])).tolist()
        [[0, 1, 1, 0, 2, 2, 0]]
    """
    places = token_places(config, input_ids)
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)
    latest = torch.where(places == 1, columns, -1).cummax(dim=1).values
    behaviors = input_ids.gather(1, latest.clamp(min=0)) - FIRST_BEHAVIOR + 1
    return torch.where((places > 1) & (latest >= 0), behaviors, NO_BEHAVIOR)
