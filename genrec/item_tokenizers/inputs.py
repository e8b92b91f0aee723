"""Histories as model inputs: one row of token ids per user, ending with the behavior that is asked for."""

import numpy as np
import torch
from torch import Tensor

from genrec.data.candidates import Asked, QueryContext
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
        `input_ids`, `attention_mask`, `session_ids` and, if times are known, `event_times` (seconds), each
        `[users, longest history * tokens per item + 1]` int64. Sessions are numbered from 1 in the order they are
        written, the asked behavior comes in a session of its own after the last, and padding has 0.

    Raises:
        ValueError: If `max_history_items` is below 0.
    """
    if max_history_items is not None:
        if max_history_items < 0:
            raise ValueError(
                f"`max_history_items` must be at least 0, got {max_history_items}. Leave it out to write all of a "
                "history."
            )
        histories = histories.last(max_history_items)
    num_users, longest = len(histories), int(histories.lengths.max(initial=0))
    rows, ranks = histories.rows, session_ranks(histories)
    columns = np.arange(len(rows)) - np.repeat(histories.offsets[1:] - longest, histories.lengths)
    places = torch.from_numpy(rows), torch.from_numpy(columns)

    def placed(values: Tensor, asked: np.ndarray) -> Tensor:
        """Write values of the interactions, and behind them one of what is asked."""
        grid = torch.zeros(num_users, longest, vocabulary.tokens_per_item, dtype=torch.long)
        grid[places] = values if values.ndim == 2 else values[:, None]
        return torch.cat([grid.flatten(1), torch.from_numpy(asked)[:, None]], dim=1)

    last_rank = np.zeros(num_users, dtype=np.int64)
    np.maximum.at(last_rank, rows, ranks)
    asked_token = np.full(num_users, vocabulary.behavior_token(behavior))
    input_ids = placed(_interaction_tokens(histories, item_tokens), asked_token)
    prompts = {
        "input_ids": input_ids,
        "attention_mask": (input_ids != PAD).long(),
        "session_ids": placed(torch.from_numpy(ranks), last_rank + 1),
    }
    if histories.query_times is not None or histories.has_times:
        prompts["event_times"] = placed(torch.from_numpy(histories.times), moments_asked(histories))
    return prompts


def moments_asked(histories: Histories) -> np.ndarray:
    """Return when each history is asked about, seconds `[users]`: where unknown, a second after its last event.

    A history without events is asked about at 0.
    """
    if histories.query_times is not None:
        return histories.query_times
    latest = np.full(len(histories), np.iinfo(np.int64).min)  # below any time, also those before 1970
    np.maximum.at(latest, histories.rows, histories.times)
    return np.where(histories.lengths > 0, latest + 1, 0)


def candidate_tensors(
    context: QueryContext, asked: Asked, item_tokens: Tensor, *, has_trend: bool, has_neighbors: bool
) -> dict[str, Tensor]:
    """Return the candidates of queries as a model with `trend_head` or `neighbor_head` takes them.

    Args:
        context: What all users did.
        asked: The queries.
        item_tokens: Token ids of each item's code, `[items, levels]`.
        has_trend: Whether to return rising items.
        has_neighbors: Whether to return neighbors of the users' items.

    Returns:
        `trend_tokens` and `neighbor_tokens` `[queries, candidates, levels]` int64, 0 where there is no candidate, with
        `trend_features` and `neighbor_features` `[queries, candidates, features]` float32.
    """
    tensors = {}
    for name, find in (("trend", context.rising), ("neighbor", context.nearby)):
        if has_trend if name == "trend" else has_neighbors:
            items, features = find(asked)
            rows = torch.from_numpy(items.astype(np.int64))
            tensors[f"{name}_tokens"] = torch.where(rows[..., None] >= 0, item_tokens[rows.clamp(min=0)], PAD)
            tensors[f"{name}_features"] = torch.from_numpy(features)
    return tensors


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
