"""Histories as an encoder reads them, and what a decoder starts with."""

import numpy as np
import torch
from torch import Tensor

from genrec.item_tokenizers.vocabulary import FIRST_BEHAVIOR, MASK, PAD

START = PAD
END = MASK  # encoder-decoder models mask nothing, and close histories and items with this token


def encoder_tensors(
    items: np.ndarray, behaviors: np.ndarray, counts: np.ndarray, item_tokens: Tensor, writes_behaviors: bool
) -> dict[str, Tensor]:
    """Write histories as their items' tokens, oldest first, and the end token; padded on the right.

    Args:
        items: Rows of `item_tokens`, one history after the other `[events]`.
        behaviors: The behavior of each interaction, an index of the ladder `[events]`.
        counts: Interactions per history, 0 for a cold user `[histories]`.
        item_tokens: Token ids of each item's code, `[items, levels]`.
        writes_behaviors: Whether a behavior token stands before each code.

    Returns:
        `input_ids` and `attention_mask`, `[histories, longest history * tokens per item + 1]` int64.

    Example:
        >>> tokens = torch.tensor([[4, 6], [5, 7]])
        >>> events = np.array([1, 0, 1]), np.array([0, 1, 1])
        >>> encoder_tensors(*events, np.array([2, 1]), tokens, writes_behaviors=True)["input_ids"].tolist()
        [[2, 5, 7, 3, 4, 6, 1], [3, 5, 7, 1, 0, 0, 0]]
    """
    tokens = event_tokens(items, behaviors, item_tokens, writes_behaviors)
    per_item, longest = tokens.shape[1], int(counts.max(initial=0))
    rows = np.repeat(np.arange(len(counts)), counts)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    grid = torch.full((len(counts), longest, per_item), PAD)
    grid[torch.from_numpy(rows), torch.from_numpy(columns)] = tokens
    lengths = torch.from_numpy(counts.astype(np.int64)) * per_item
    input_ids = torch.cat([grid.flatten(1), torch.full((len(counts), 1), PAD)], dim=1)
    input_ids[torch.arange(len(counts)), lengths] = END
    return {"input_ids": input_ids, "attention_mask": (input_ids != PAD).long()}


def event_tokens(items: np.ndarray, behaviors: np.ndarray, item_tokens: Tensor, writes_behaviors: bool) -> Tensor:
    """Return each interaction's tokens, perhaps its behavior and then its code, `[events, tokens per item]`."""
    codes = item_tokens[torch.from_numpy(items)]
    if not writes_behaviors:
        return codes
    return torch.cat([torch.from_numpy(behaviors)[:, None] + FIRST_BEHAVIOR, codes], dim=1)


def decoder_prefix(num_rows: int, behavior_token: int | None) -> Tensor:
    """Return what an item is written behind, `[rows, 1 or 2]`: the start token, and the behavior asked for if any.

    Example:
        >>> decoder_prefix(1, behavior_token=3).tolist(), decoder_prefix(1, None).tolist()
        ([[0, 3]], [[0]])
    """
    tokens = [START] if behavior_token is None else [START, behavior_token]
    return torch.tensor([tokens]).expand(num_rows, -1)
