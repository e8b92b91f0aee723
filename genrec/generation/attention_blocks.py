"""Attention in the shapes of the fast search: all beams of a user as one block over keys that are never copied.

All beams of a user look at the same keys. So the beams, and the query heads that share a key-value head, are rows of
one query block, and what differs between them is a mask that is made once per step for all layers.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from genrec.models.gamer.attention import CrossLevelAttention, Rotary
from genrec.models.gamer.fused_ops import rotated

KEYS_MULTIPLE = 16  # CUDA kernels copy a mask whose rows are no multiple of this; hidden keys fill up


class KeyValueStore:
    """Keys and values of each attention: the history's, then room for what the beams add.

    Args:
        room: How many tokens an attention that grows can hold.
    """

    def __init__(self, room: int) -> None:
        self._room = aligned(room)
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def put(self, slot: int, keys: Tensor, values: Tensor) -> None:
        """Store keys and values `[batch, heads, tokens, head dim]` that nothing follows."""
        missing = aligned(keys.shape[2]) - keys.shape[2]
        self._keys[slot], self._values[slot] = pad(keys, (0, 0, 0, missing)), pad(values, (0, 0, 0, missing))

    def append(self, slot: int, keys: Tensor, values: Tensor, start: int) -> None:
        """Store keys and values from the place `start` on, which is 0 at first."""
        if slot not in self._keys:
            self._keys[slot], self._values[slot] = self._with_room(keys), self._with_room(values)
            return
        places = slice(start, start + keys.shape[2])
        self._keys[slot][:, :, places] = keys
        self._values[slot][:, :, places] = values

    def get(self, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """Return the first keys and values, `length` of them rounded up with zeros, as views."""
        return self._keys[slot][:, :, : aligned(length)], self._values[slot][:, :, : aligned(length)]

    def _with_room(self, states: Tensor) -> Tensor:
        """Return a copy with room behind it. The room is zero, because hidden keys too must be finite."""
        return pad(states, (0, 0, 0, self._room - states.shape[2]))


def aligned(length: int) -> int:
    """Return the next multiple of `KEYS_MULTIPLE`."""
    return -(-length // KEYS_MULTIPLE) * KEYS_MULTIPLE


def additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a boolean mask as numbers to add to scores: 0 or `-inf`."""
    return torch.zeros_like(sees, dtype=dtype).masked_fill_(~sees, -torch.inf)


def block_mask(sees: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """Return the mask of one query block, additive and with the keys rounded up.

    Args:
        sees: `[batch, queries, keys]` bool.
        groups: Query heads per key-value head.
        dtype: The queries' type.

    Returns:
        `[batch, 1, groups * queries, aligned keys]`.
    """
    mask = additive(pad(sees, (0, aligned(sees.shape[2]) - sees.shape[2])), dtype)
    return mask[:, None].expand(-1, groups, -1, -1).flatten(1, 2)[:, None]


def project_queries(attention: CrossLevelAttention, hidden_states: Tensor, rotary: Rotary, behaviors: Tensor) -> Tensor:
    """Return the queries of `attention.project`: beams, being of one level, see no beam's keys and values there."""
    queries = attention.q_proj(hidden_states) + attention.q_behavior_embedding(behaviors)
    queries = attention.q_norm(queries.unflatten(-1, (-1, attention.head_dim)))
    cosines, sines = (part[:, :, None] for part in rotary)
    return rotated(queries, cosines, sines).transpose(1, 2)


def attend_as_one_block(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Attend with all beams and heads that share a key-value head as the rows of one query block.

    Neither keys nor values are repeated, for a beam or for a head.

    Args:
        queries: `[batch, heads, beams, head dim]`.
        keys: `[batch, key-value heads, keys, head dim]`.
        values: Like `keys`.
        mask: From `block_mask`. A beam that sees nothing gets an undefined, perhaps not finite, row.
        scaling: Multiplies the scores.

    Returns:
        The heads' outputs side by side, `[batch, beams, heads * head dim]`.
    """
    groups = queries.shape[1] // keys.shape[1]
    block = queries.unflatten(1, (-1, groups)).flatten(2, 3)  # [batch, key-value heads, groups * beams, head dim]
    output = scaled_dot_product_attention(block, keys, values, attn_mask=mask, scale=scaling)
    return output.unflatten(2, (groups, -1)).permute(0, 3, 1, 2, 4).flatten(2)
