"""The tokens that cross-level attention is about: few, since most behaviors in a log are of the lowest level.

A token of the lowest level sees nothing, and its output is zero; one of the highest is seen by nobody. Neither needs
queries, or keys and values. How many remain depends on the data, so this is for eager mode, where the host may know; on
a GPU one dense kernel over all tokens is faster than gathering them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .behavior_masks import MaskFunction
from .token_layout import TokenLayout

Rotary = tuple[Tensor, Tensor]


class ChosenTokens(NamedTuple):
    """Some tokens of each row, in their order; rows with fewer are filled up with others.

    Args:
        columns: `[batch, chosen]`.
        is_chosen: False at what fills a row up `[batch, chosen]`.
        behaviors: `[batch, chosen]`.
        rotary: Cosines and sines `[batch, chosen, head dim]`.
    """

    columns: Tensor
    is_chosen: Tensor
    behaviors: Tensor
    rotary: Rotary

    @classmethod
    def of(cls, is_chosen: Tensor, behaviors: Tensor, rotary: Rotary) -> "ChosenTokens":
        """Return the tokens where `is_chosen` `[batch, tokens]` is true, at least one per row."""
        number = max(int(is_chosen.sum(dim=1).max()), 1)
        columns = (~is_chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :number]
        cos, sin = (taken(part, columns) for part in rotary)
        return cls(columns, is_chosen.gather(1, columns), behaviors.gather(1, columns), (cos, sin))


class CrossLevelSelection(NamedTuple):
    """Who asks, who is seen, and by whom.

    Args:
        queries: The tokens that see anything.
        keys: The tokens that some token may see.
        mask: Which keys each query sees; those that fill a row up see all `[batch, 1, queries, keys]`.
        last_seen: How many keys it takes until the last one that this query of any row sees `[queries]`.
    """

    queries: ChosenTokens
    keys: ChosenTokens
    mask: Tensor
    last_seen: Tensor

    def ends(self, sizes: Sequence[int]) -> list[int]:
        """Return how many keys blocks of these sizes need: never falling, the last one all."""
        furthest = torch.stack([part.amax() for part in self.last_seen.split(list(sizes))]).cummax(dim=0).values
        return [*furthest.clamp(min=1).tolist()[:-1], self.mask.shape[3]]


def select(visible: MaskFunction, layout: TokenLayout, has_key: Tensor, rotary: Rotary) -> CrossLevelSelection:
    """Return who asks and who is seen.

    Args:
        visible: The cross-level mask.
        layout: What all tokens are; nothing is cached.
        has_key: Which tokens see anything `[batch, tokens]`.
        rotary: The tokens' rotary positions.
    """
    levels, behaviors = layout.levels, layout.behaviors
    queries = ChosenTokens.of(has_key, behaviors, rotary)
    is_below = (levels >= 0) & (levels < levels.amax(dim=1, keepdim=True))
    keys = ChosenTokens.of(is_below & layout.real, behaviors, rotary)
    batch = torch.arange(len(levels), device=levels.device)[:, None, None]
    mask = visible(batch, batch, queries.columns[:, :, None], keys.columns[:, None, :])
    mask = mask & keys.is_chosen[:, None, :] & queries.is_chosen[:, :, None]
    numbers = torch.arange(1, mask.shape[2] + 1, device=mask.device)  # keys lie in the order of columns
    last_seen = torch.where(mask, numbers, 0).amax(dim=(0, 2))
    return CrossLevelSelection(queries, keys, (mask | ~queries.is_chosen[:, :, None])[:, None], last_seen)


def taken(states: Tensor, columns: Tensor) -> Tensor:
    """Return the states at some columns of each row.

    Args:
        states: `[batch, tokens, width]`, or one row for all `[1, tokens, width]`.
        columns: `[batch, chosen]`.

    Returns:
        `[batch, chosen, width]`.
    """
    states = states.expand(len(columns), -1, -1)
    return states.flatten(0, 1).index_select(0, _flat(columns, states.shape[1])).view(*columns.shape, -1)


def put_back(states: Tensor, columns: Tensor, num_tokens: int) -> Tensor:
    """Return states at some columns of each row, and zero elsewhere `[batch, num_tokens, width]`."""
    rows = states.new_zeros(len(columns) * num_tokens, states.shape[2])
    return rows.index_copy(0, _flat(columns, num_tokens), states.flatten(0, 1)).view(len(columns), num_tokens, -1)


def _flat(columns: Tensor, num_tokens: int) -> Tensor:
    return (columns + torch.arange(len(columns), device=columns.device)[:, None] * num_tokens).flatten()
