"""An embedding of the whole item beside those of its codes, added where its last code is read.

Codes shared by similar items say what kind of item one is; the item's own embedding says which one. It is found by
arithmetic on the codes, so that a model is still given token ids alone.
"""

import torch
from torch import Tensor, nn

from .configuration_gamer import GamerConfig

NO_ITEM = 0
SPREAD = 2_654_435_761  # Knuth's multiplier: neighbors in code must not be neighbors in the table


class ItemEmbedding(nn.Embedding):
    """A row for each item, as `item_numbers` counts them; row 0 is no item and stays zero.

    Args:
        config: A configuration with `item_embedding_rows` above 0.
    """

    def __init__(self, config: GamerConfig) -> None:
        super().__init__(config.item_embedding_rows + 1, config.hidden_size, padding_idx=NO_ITEM)


def item_numbers(config: GamerConfig, input_ids: Tensor, places: Tensor) -> Tensor:
    """Return the row of the item that each last code completes, `NO_ITEM` at all other tokens `[batch, tokens]`.

    Where the table has a row for each combination of codes, items share none; else they are spread over it, and some
    share a row.

    Args:
        config: The codes and the size of the table.
        input_ids: Whole sequences `[batch, tokens]`.
        places: Place of each token in its item `[batch, tokens]`.

    Example:
        >>> sizes = {"codebook_sizes": [4, 4], "behavior_levels": [0]}
        >>> config = GamerConfig(num_hidden_layers=2, item_embedding_rows=16, **sizes)
        >>> item_numbers(config, torch.tensor([[2, 3, 7, 2, 4, 9]]), torch.tensor([[0, 1, 2, 0, 1, 2]])).tolist()
        [[0, 0, 1, 0, 0, 7]]
    """
    num_levels, numbers, combinations = config.num_levels, torch.zeros_like(input_ids), 1
    for level, (offset, size) in enumerate(zip(config.level_offsets, config.codebook_sizes, strict=True)):
        back = num_levels - 1 - level
        codes = torch.nn.functional.pad(input_ids, (back, 0))[:, : input_ids.shape[1]]
        numbers = numbers * size + (codes - offset)
        combinations *= size
    rows = config.item_embedding_rows
    numbers = numbers if combinations <= rows else numbers * SPREAD % 2**32 % rows
    return torch.where(places == num_levels, numbers + 1, NO_ITEM)
