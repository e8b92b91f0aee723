"""Who may see whom: mask functions, and the masks that attention kernels make of them.

A mask function has the signature of transformers' and flex attention's, `(batch, head, query, key) -> bool`, on column
numbers of the whole sequence. Each is made from per-token arrays (`TokenLayout`) by a function in `MASKS`.

Padding is not their business: `build_mask` hides padded keys. It also lets a token that would see nothing see itself,
so that no row of a mask is empty and every kernel returns finite numbers; cross-level attention puts zero there.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from .token_layout import changes

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def causal_mask(items: Tensor, levels: Tensor, sessions: Tensor | None) -> MaskFunction:
    """See yourself and everything before you."""

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query

    return visible


def session_causal_mask(items: Tensor, levels: Tensor, sessions: Tensor) -> MaskFunction:
    """See your own item up to yourself and all earlier sessions, but no other item of your session.

    The order of items inside one session is noise, so none of them may inform another (GAMER, equations 9 and 10).
    """

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own_item = (items[batch, query] == items[batch, key]) & (key <= query)
        return own_item | (sessions[batch, key] < sessions[batch, query])

    return visible


def cross_level_mask(items: Tensor, levels: Tensor, sessions: Tensor | None) -> MaskFunction:
    """See what came before you at a lower behavior level (GAMER, equation 3)."""

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key < query) & _is_lower(levels[batch, key], levels[batch, query])

    return visible


def session_cross_level_mask(items: Tensor, levels: Tensor, sessions: Tensor) -> MaskFunction:
    """See what came in earlier sessions at a lower behavior level."""

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        earlier_session = sessions[batch, key] < sessions[batch, query]
        return earlier_session & _is_lower(levels[batch, key], levels[batch, query])

    return visible


def within_segments(visible: MaskFunction, segments: Tensor) -> MaskFunction:
    """See what another mask function shows of the same user, where several users share a row."""

    def visible_within(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return visible(batch, head, query, key) & (segments[batch, key] == segments[batch, query])

    return visible_within


def _is_lower(key_levels: Tensor, query_levels: Tensor) -> Tensor:
    return (key_levels >= 0) & (key_levels < query_levels)


MASKS: dict[str, Callable[..., MaskFunction]] = {
    "causal": causal_mask,
    "session_causal": session_causal_mask,
    "cross_level": cross_level_mask,
    "session_cross_level": session_cross_level_mask,
}


def sees_lower_level(levels: Tensor, sessions: Tensor | None, real: Tensor, segments: Tensor | None = None) -> Tensor:
    """Return which tokens have any visible key under the cross-level mask `[batch, tokens]`, without building it.

    The lowest level among the keys a token may look at decides, which is a running minimum: over the tokens before it,
    or, with sessions, over the tokens before its session. It begins anew with each user of a packed row, because levels
    are shifted so that those of later users are lower than all before.

    Example:
        >>> levels = torch.tensor([[1, 0, 1, 0]])
        >>> sees_lower_level(levels, None, torch.ones_like(levels).bool()).tolist()
        [[False, False, True, False]]
    """
    unreachable = 1 << 20  # above any level, and exact as a float, which padding values pass through
    shift = 0 if segments is None else -unreachable * changes(segments).cumsum(dim=1)
    lowest = (torch.where(real & (levels >= 0), levels, unreachable - 1) + shift).cummin(dim=1).values
    lowest_before = torch.nn.functional.pad(lowest[:, :-1], (1, 0), value=unreachable)
    if sessions is not None:
        columns = torch.arange(levels.shape[1], device=levels.device)
        starts = torch.where(changes(sessions), columns, 0).cummax(dim=1).values
        lowest_before = lowest_before.gather(1, starts)
    return lowest_before < levels + shift


def build_mask(
    visible: MaskFunction,
    real: Tensor,
    sees_any: Tensor,
    num_queries: int,
    implementation: str | None,
    dtype: torch.dtype,
) -> Any:
    """Return a mask function's mask for the last `num_queries` tokens of each row, in the form a kernel takes.

    Args:
        visible: The mask function.
        real: False at padding, for cached and new tokens `[batch, keys]`.
        sees_any: Which tokens see anything; the others are let see themselves `[batch, keys]`.
        num_queries: How many of the last tokens ask.
        implementation: The attention implementation: a block mask for `"flex_attention"`, an additive mask of `dtype`
            for `"eager"`, a boolean one otherwise (`[batch, 1, queries, keys]`).
        dtype: The additive mask's type.
    """
    batch_size, num_keys = real.shape
    offset = num_keys - num_queries

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        column = query + offset
        alone = (column == key) & ~sees_any[batch, column]
        return (visible(batch, head, column, key) & real[batch, key]) | alone

    if implementation == "flex_attention":
        return create_block_mask(sees, batch_size, None, num_queries, num_keys, device=real.device)
    batches = torch.arange(batch_size, device=real.device)[:, None, None, None]
    queries = torch.arange(num_queries, device=real.device)[None, None, :, None]
    keys = torch.arange(num_keys, device=real.device)[None, None, None, :]
    mask = sees(batches, torch.zeros_like(batches), queries, keys)
    if implementation != "eager":
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
