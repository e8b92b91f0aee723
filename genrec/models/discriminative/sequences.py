"""Reading padded histories: which places are real, and where a prediction comes from.

A history is a row of catalog rows, `PAD_ITEM` (-1) where there is none. Real items may stand at the left or at the
right; nothing here depends on it.
"""

import torch
from torch import Tensor

PAD_ITEM = -1
IGNORED_LABEL = -100


def positions_of(is_real: Tensor) -> Tensor:
    """Number the real items of each row from 0, `[batch, length]`; pads get some valid number.

    >>> positions_of(torch.tensor([[False, True, True]])).tolist()
    [[0, 0, 1]]
    """
    return (is_real.cumsum(dim=1) - 1).clamp(min=0)


def last_places(is_real: Tensor) -> Tensor:
    """Return the column of each row's last real item, `[batch]`, 0 for an empty row.

    >>> last_places(torch.tensor([[True, True, False], [False, False, True]])).tolist()
    [1, 2]
    """
    return torch.where(is_real, torch.arange(is_real.shape[1], device=is_real.device), 0).amax(dim=1)


def places_before(is_real: Tensor, sessions: Tensor | None = None) -> Tensor:
    """Return the column from whose state each item is predicted, `[batch, length]`, -1 where there is none.

    Args:
        is_real: Where items are, `[batch, length]`.
        sessions: None predicts an item from the one before it. Session numbers `[batch, length]` predict it from the
            last item of an earlier session, as at inference, where nothing of the asked session is known.

    >>> is_real = torch.tensor([[True, True, True, True]])
    >>> places_before(is_real).tolist(), places_before(is_real, torch.tensor([[1, 1, 2, 2]])).tolist()
    ([[-1, 0, 1, 2]], [[-1, -1, 1, 1]])
    """
    columns = torch.arange(is_real.shape[1], device=is_real.device)
    latest = torch.where(is_real, columns, -1).cummax(dim=1).values
    before = torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], dim=1)
    if sessions is None:
        return before
    is_first = is_real & ((before < 0) | (sessions.gather(1, before.clamp(min=0)) != sessions))
    return torch.where(is_first, before, -1).cummax(dim=1).values
