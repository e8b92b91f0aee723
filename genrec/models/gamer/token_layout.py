"""What each token is: its place in its item, its item's behavior and level, and its session.

All of it is arithmetic on token ids: `0` pads, `1` masks, then one id per behavior, then one contiguous block of codes
per level, and an item is `[behavior, c1, ..., cL]`. Nothing is looked up and nothing is remembered between calls, so a
model that is given only token ids knows all it needs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .configuration_gamer import FIRST_BEHAVIOR, GamerConfig
from .item_embedding import item_numbers

NO_LEVEL = -1


class TokenLayout(NamedTuple):
    """What a batch of token ids means, one value per token.

    Args:
        places: Place in the item: 0 for its behavior token, l for its code of level l `[batch, tokens]`.
        items: A number that the tokens of one item, and no others of the row, share `[batch, tokens]`.
        behaviors: 0 for none, i + 1 for behavior i, the same for all tokens of an item `[batch, tokens]`.
        levels: The behavior's level, -1 for none `[batch, tokens]`.
        sessions: The session's rank in the row, from 0; `None` unless the model is session-wise `[batch, tokens]`.
        real: False at padding `[batch, tokens]`.
        segments: Which user of the row, where several share one (packing); `None` if each has a row
            `[batch, tokens]`.
        numbers: The item that each last code completes, see `item_numbers`; `None` unless the model embeds items
            `[batch, tokens]`.
    """

    places: Tensor
    items: Tensor
    behaviors: Tensor
    levels: Tensor
    sessions: Tensor | None
    real: Tensor
    segments: Tensor | None = None
    numbers: Tensor | None = None

    def last(self, num_tokens: int) -> "TokenLayout":
        """Return the layout of the last `num_tokens` tokens of each row."""
        return TokenLayout._make(None if part is None else part[:, -num_tokens:] for part in self)

    def to(self, device: torch.device | str) -> "TokenLayout":
        """Return the layout with its tensors on `device`."""
        return TokenLayout._make(None if part is None else part.to(device) for part in self)

    def rotary_positions(self, tokens_per_item: int) -> Tensor:
        """Return each token's rotary position: its rank among real tokens, or its session's rank and its place.

        The second form is the session-wise variant's: all items of a session share positions (GAMER, equation 8).
        Both begin anew with each user of a packed row.
        """
        if self.sessions is None:
            return self._since_segment_start((self.real.long().cumsum(-1) - 1).clamp(min=0))
        return self._since_segment_start(self.sessions) * tokens_per_item + self.places

    def _since_segment_start(self, counts: Tensor) -> Tensor:
        """Return counts that never fall along a row, less what they are at the first token of the segment."""
        if self.segments is None:
            return counts
        return counts - torch.where(changes(self.segments), counts, 0).cummax(dim=1).values


def token_places(config: GamerConfig, token_ids: Tensor) -> Tensor:
    """Return the place in its item that each token id can take: 0 below the first code, l for codes of level l.

    Example:
        >>> config = GamerConfig(num_hidden_layers=2, codebook_sizes=[4, 4], behavior_levels=[0, 1])
        >>> token_places(config, torch.tensor([2, 5, 11, 3, 4, 8, 0])).tolist()
        [0, 1, 2, 0, 1, 2, 0]
    """
    places = torch.zeros_like(token_ids)
    for offset in config.level_offsets:
        places = places + (token_ids >= offset)
    return places


def read_layout(
    config: GamerConfig,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    session_ids: Tensor | None = None,
    segment_ids: Tensor | None = None,
) -> TokenLayout:
    """Return what each token of whole sequences is.

    Args:
        config: The vocabulary and whether the model is session-wise.
        input_ids: Token ids from the first token on, padded on either side `[batch, tokens]`.
        attention_mask: 0 at padding; everything is real without it `[batch, tokens]`.
        session_ids: Each token's session, non-decreasing among a user's tokens; read by session-wise models only
            `[batch, tokens]`.
        segment_ids: Which user of the row each token is of, from 1, and 0 at padding, which comes last; `None` if each
            user has a row `[batch, tokens]`.

    Raises:
        ValueError: If a session-wise model is not told the sessions, or an argument's shape differs from `input_ids`.
    """
    _check_shapes(input_ids, attention_mask=attention_mask, session_ids=session_ids, segment_ids=segment_ids)
    if attention_mask is None:
        attention_mask = segment_ids
    real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    places = token_places(config, input_ids)
    starts = places == 0
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)
    start_columns = torch.where(starts, columns, 0).cummax(dim=1).values
    start_ids = torch.where(starts, input_ids, 0).gather(1, start_columns)
    behaviors = (start_ids - (FIRST_BEHAVIOR - 1)).clamp(min=0) * real
    return TokenLayout(
        places=places,
        items=starts.long().cumsum(dim=1),
        behaviors=behaviors,
        levels=_levels_of(config, behaviors),
        sessions=session_ranks(session_ids, real, segment_ids) if config.session_wise else None,
        real=real,
        segments=segment_ids,
        numbers=item_numbers(config, input_ids, places) if config.item_embedding_rows else None,
    )


def _check_shapes(input_ids: Tensor, **arguments: Tensor | None) -> None:
    for name, argument in arguments.items():
        if argument is not None and argument.shape != input_ids.shape:
            raise ValueError(
                f"`{name}` must have one value per token of the whole sequence, {tuple(input_ids.shape)}, "
                f"got {tuple(argument.shape)}."
            )


def _levels_of(config: GamerConfig, behaviors: Tensor) -> Tensor:
    levels = torch.full_like(behaviors, NO_LEVEL)
    for behavior, level in enumerate(config.behavior_levels):
        levels = torch.where(behaviors == behavior + 1, level, levels)
    return levels


def session_ranks(session_ids: Tensor | None, real: Tensor, segment_ids: Tensor | None = None) -> Tensor:
    """Return how many sessions of the row precede each token's; padding takes the rank of the real token before it.

    Each user of a packed row has sessions of their own, whatever their numbers. Padding there comes last, and its rank
    is never read.
    """
    if session_ids is None:
        raise ValueError(
            "A session-wise model needs `session_ids`, one per token and non-decreasing along each row. An item "
            "tokenizer returns them; `session_wise=False` in the configuration does without."
        )
    if segment_ids is not None:
        return (changes(session_ids) | changes(segment_ids)).long().cumsum(dim=1)
    nothing = torch.iinfo(session_ids.dtype).min
    filled = torch.where(real, session_ids, nothing).cummax(dim=1).values
    previous = filled[:, :-1]
    starts = (filled[:, 1:] != previous) & (previous != nothing)
    return torch.nn.functional.pad(starts.long().cumsum(dim=1), (1, 0))


def changes(values: Tensor) -> Tensor:
    """Return where a row's value differs from the one before it; the first column counts as no change."""
    return torch.nn.functional.pad(values[:, 1:] != values[:, :-1], (1, 0))
