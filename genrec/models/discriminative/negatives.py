"""The loss against one item drawn at random."""

import torch
from torch import Tensor
from torch.nn import functional


def sampled_loss(states: Tensor, item_weights: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Return the binary cross-entropy of each right item against one wrong one (Kang and McAuley 2018, equation 6).

    Args:
        states: `[targets, width]`.
        item_weights: `[items, width]`.
        targets: The right items, `[targets]`; none gives a loss of 0.
        negatives: As many wrong ones, `[targets]`.
    """
    if len(targets) == 0:
        return states.sum() * 0.0
    right = (states * item_weights[targets]).sum(dim=-1)
    wrong = (states * item_weights[negatives]).sum(dim=-1)
    return -(functional.logsigmoid(right) + functional.logsigmoid(-wrong)).mean()


def draw_negatives(items: Tensor, rows: Tensor, num_items: int) -> Tensor:
    """Draw for each target an item that its row does not hold, all such items being equally likely.

    Args:
        items: What each row holds, `[batch, length]`; negative numbers are nothing.
        rows: The row of each target, `[targets]`.
        num_items: Items are numbered below this.

    Returns:
        `[targets]`. For a row that holds every item, any item.
    """
    held = torch.where(items < 0, num_items, items).sort(dim=1).values
    is_repeated = torch.cat([torch.zeros_like(held[:, :1], dtype=torch.bool), held[:, 1:] == held[:, :-1]], dim=1)
    held = torch.where(is_repeated, num_items, held).sort(dim=1).values
    is_held = held < num_items
    # The r-th free item is r plus the held items before it, that is, those with at most r free items below them.
    free_below = torch.where(is_held, held - torch.arange(held.shape[1], device=items.device), num_items)
    num_free = (num_items - is_held.sum(dim=1))[rows]
    drawn = (torch.rand(len(rows), device=items.device) * num_free.clamp(min=1)).long()
    skipped = torch.searchsorted(free_below[rows].contiguous(), drawn[:, None], right=True)[:, 0]
    return (drawn + skipped).clamp(max=num_items - 1)
