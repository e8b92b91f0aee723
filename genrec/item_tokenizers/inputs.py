"""Histories as model inputs: one row of token ids per user, ending with the behavior that is asked for."""

import numpy as np
import torch
from torch import Tensor

from genrec.data.histories import Histories
from genrec.item_tokenizers.vocabulary import FIRST_BEHAVIOR, PAD, Vocabulary


def prompt_tensors(
    histories: Histories,
    item_tokens: Tensor,
    vocabulary: Vocabulary,
    behavior: int,
    max_history_items: int | None = None,
) -> dict[str, Tensor]:
    """Write each history as the tokens of its items, left-padded, followed by the asked behavior's token.

    Args:
        histories: Items are rows of `item_tokens`.
        item_tokens: Token ids of each item's code, `[items, levels]`.
        vocabulary: Says where behaviors have their tokens.
        behavior: Index of the asked behavior.
        max_history_items: Only the last so many interactions are written; None writes all.

    Returns:
        `input_ids`, `attention_mask` and `session_ids`, each `[users, longest history * tokens per item + 1]` int64.
        Sessions are numbered from 1 in the order they are written, the asked behavior comes in a session of its own
        after the last, and padding has 0.
    """
    if max_history_items is not None:
        histories = histories.last(max_history_items)
    num_users, per_item = len(histories), vocabulary.tokens_per_item
    longest = int(histories.lengths.max(initial=0))
    input_ids = torch.full((num_users, longest, per_item), PAD)
    session_ids = torch.zeros(num_users, longest, per_item, dtype=torch.long)
    rows, ranks = histories.rows, session_ranks(histories)
    columns = np.arange(len(rows)) - np.repeat(histories.offsets[1:] - longest, histories.lengths)
    row_index, column_index = torch.from_numpy(rows), torch.from_numpy(columns)
    input_ids[row_index, column_index] = _interaction_tokens(histories, item_tokens)
    session_ids[row_index, column_index] = torch.from_numpy(ranks)[:, None].expand(-1, per_item)
    last_rank = np.zeros(num_users, dtype=np.int64)
    np.maximum.at(last_rank, rows, ranks)
    asked = torch.full((num_users, 1), vocabulary.behavior_token(behavior))
    input_ids = torch.cat([input_ids.flatten(1), asked], dim=1)
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != PAD).long(),
        "session_ids": torch.cat([session_ids.flatten(1), torch.from_numpy(last_rank + 1)[:, None]], dim=1),
    }


def session_ranks(histories: Histories) -> np.ndarray:
    """Number each user's sessions 1, 2, ... in the order they occur, `[events]`.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> times = [("a", "view", 0), ("a", "view", 60), ("a", "view", 90_000)]
        >>> session_ranks(as_histories([times, times[:1]], item_ids=["a"], ladder="view")).tolist()
        [1, 1, 2, 1]
    """
    rows, sessions = histories.rows, histories.sessions
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    is_first_of_user = np.concatenate([[True], rows[1:] != rows[:-1]])
    starts = np.concatenate([[True], sessions[1:] != sessions[:-1]]) | is_first_of_user
    numbers = np.cumsum(starts)
    before_user = numbers[is_first_of_user] - 1
    return numbers - before_user[np.cumsum(is_first_of_user) - 1]


def _interaction_tokens(histories: Histories, item_tokens: Tensor) -> Tensor:
    """Return the tokens of each interaction, `[events, levels + 1]`: its behavior, then its item's code."""
    behaviors = torch.from_numpy(histories.behaviors + FIRST_BEHAVIOR)
    return torch.cat([behaviors[:, None], item_tokens[torch.from_numpy(histories.items)]], dim=1)
