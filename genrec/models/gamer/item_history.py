"""Token rows read as items: who met which item when, and what a pointer may know about it.

The mixture heads (`mixture.py`) think in items, not in tokens. A *query* is an item to be predicted: its behavior token
is known, its codes are not. What it may look at are the items of earlier sessions, each once, at its latest event.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from .configuration_gamer import FIRST_BEHAVIOR, GamerConfig
from .token_layout import session_ranks

SECONDS_PER_HOUR = 3600.0
NEVER = torch.iinfo(torch.int64).max


class ItemHistory(NamedTuple):
    """The items of a batch of rows; the last one may still lack codes.

    Args:
        tokens: Behavior token and codes of each item, padding where a code is not written yet
            `[batch, items, tokens per item]`.
        behaviors: The behavior's index, -1 at padding `[batch, items]`.
        order: The session's rank (session-wise models) or the item's place; an item sees those of lower order
            `[batch, items]`.
        times: Seconds of each event, the query's own included; zero throughout if unknown `[batch, items]`.
        next_order: The order of the same item's next event in the row, `NEVER` where there is none `[batch, items]`.
        counts: How often the item was met by each behavior up to and with this event `[batch, items, behaviors]`.
    """

    tokens: Tensor
    behaviors: Tensor
    order: Tensor
    times: Tensor
    next_order: Tensor
    counts: Tensor

    @property
    def codes(self) -> Tensor:
        """Token ids of the items' codes `[batch, items, levels]`."""
        return self.tokens[..., 1:]


class ItemQueries(NamedTuple):
    """Items to be predicted, as flat lists over the batch.

    Args:
        rows: The row of each `[queries]`.
        places: Its item's place in the row `[queries]`.
    """

    rows: Tensor
    places: Tensor


def read_item_history(
    config: GamerConfig, input_ids: Tensor, session_ids: Tensor | None = None, event_times: Tensor | None = None
) -> ItemHistory:
    """Return the items of whole sequences.

    Args:
        config: The vocabulary and whether the model is session-wise.
        input_ids: Rows of whole items, padded by whole items on either side; the last item may be incomplete
            `[batch, tokens]`.
        session_ids: Each token's session; needed by session-wise models `[batch, tokens]`.
        event_times: Each token's time in seconds, that of the query at the behavior token asked for; None if unknown
            `[batch, tokens]`.

    Example:
        >>> config = GamerConfig(num_hidden_layers=2, codebook_sizes=[4, 4], behavior_levels=[0, 1])
        >>> history = read_item_history(config, torch.tensor([[2, 4, 8, 3, 4, 8, 2]]))
        >>> history.behaviors.tolist(), history.next_order[0, 0].item(), history.counts[0, 1].tolist()
        ([[0, 1, 0]], 1, [1, 1])
    """
    per_item = config.tokens_per_item
    missing = -input_ids.shape[1] % per_item
    tokens = pad(input_ids, (0, missing)).unflatten(1, (-1, per_item))
    behaviors = tokens[..., 0] - FIRST_BEHAVIOR
    is_real = behaviors >= 0
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(behaviors)
    order = places
    if config.session_wise:
        order = session_ranks(None if session_ids is None else session_ids[:, ::per_item], is_real)
    times = torch.zeros_like(order) if event_times is None else event_times[:, ::per_item]
    same = _same_items(tokens[..., 1:], is_real)
    is_later = places[:, None, :] > places[:, :, None]
    next_order = torch.where(same & is_later, order[:, None, :], NEVER).amin(dim=2)
    met = one_hot(behaviors.clamp(min=0), config.num_behaviors)
    counts = (same & ~is_later).to(torch.float32) @ met.to(torch.float32)
    return ItemHistory(tokens, torch.where(is_real, behaviors, -1), order, times, next_order, counts.long())


def _same_items(codes: Tensor, is_real: Tensor) -> Tensor:
    """Return which items have equal codes `[batch, items, items]`; padding equals nothing."""
    same = (codes[:, :, None] == codes[:, None]).all(dim=3)
    return same & is_real[:, :, None] & is_real[:, None]


def seen_before(history: ItemHistory, queries: ItemQueries) -> Tensor:
    """Return which items of its row each query may point at: each earlier item, at its latest event before the query.

    Returns:
        `[queries, items]` bool.
    """
    asked = history.order[queries.rows, queries.places][:, None]
    is_earlier = (history.order[queries.rows] < asked) & (history.behaviors[queries.rows] >= 0)
    return is_earlier & (history.next_order[queries.rows] >= asked)


def query_times(history: ItemHistory, queries: ItemQueries) -> Tensor:
    """Return when each query is asked, in seconds `[queries]`: at the first event of its session.

    At inference that is the time of the question; in training no item may know that it came late in its session.
    """
    order = history.order[queries.rows]
    asked = history.order[queries.rows, queries.places][:, None]
    in_session = (order == asked) & (history.behaviors[queries.rows] >= 0)
    return torch.where(in_session, history.times[queries.rows], NEVER).amin(dim=1)


def loss_weights(history: ItemHistory, queries: ItemQueries, unit: str) -> Tensor:
    """Return weights that let each `"query"`, a user's session and behavior, or each `"user"` count once `[queries]`.

    Evaluation asks for one session of each user, and a long session of one behavior is one record. A user's queries
    share the weight of one, so that those with hundreds of sessions do not drown those with three. The weights' mean
    is 1.
    """
    same = (history.order[:, :, None] == history.order[:, None]) & (
        history.behaviors[:, :, None] == history.behaviors[:, None]
    )
    weights = 1 / same.sum(dim=2)[queries.rows, queries.places]
    if unit == "user":
        of_users = weights.new_zeros(len(history.order)).index_add(0, queries.rows, weights)
        weights = weights / of_users[queries.rows]
    return weights * (len(weights) / weights.sum())


def num_history_features(config: GamerConfig) -> int:
    """Return how many features `history_features` gives."""
    return 9 + 2 * config.num_behaviors


def history_features(config: GamerConfig, history: ItemHistory, queries: ItemQueries, visible: Tensor) -> Tensor:
    """Return what is known of each item that a query may point at.

    How long ago it was met (log hours), how many other items and sessions ago (logs), how often (log), how many items
    the user met (log), by which behaviors ever and which one last, whether the asked behavior was already done to it,
    the highest level below the asked one that it reached, whether it reached one above, and whether it was met in the
    last session.

    Args:
        config: The ladder.
        history: The items.
        queries: Who asks.
        visible: From `seen_before` `[queries, items]`.

    Returns:
        `[queries, items, features]` float32; meaningless where not visible.
    """
    asked_behaviors = history.behaviors[queries.rows, queries.places].clamp(min=0)
    counts = history.counts[queries.rows]
    met = counts > 0
    last = one_hot(history.behaviors[queries.rows].clamp(min=0), config.num_behaviors)
    age = (query_times(history, queries)[:, None] - history.times[queries.rows]).clamp(min=0) / SECONDS_PER_HOUR
    sessions_ago = (history.order[queries.rows, queries.places][:, None] - history.order[queries.rows] - 1).clamp(min=0)
    items_ago = visible.flip(1).cumsum(1).flip(1) - 1
    # Made on the device: a captured graph cannot copy from the host.
    levels = torch.stack([counts.new_full((), level) for level in config.behavior_levels])
    asked_levels = levels[asked_behaviors][:, None, None]
    reached = torch.where(met & (levels < asked_levels), levels + 1, 0).amax(dim=2) / (max(config.behavior_levels) + 1)
    columns = [
        age.log1p() / 4,
        items_ago.clamp(min=0).float().log1p(),
        sessions_ago.float().log1p(),
        (sessions_ago == 0).float(),
        counts.sum(dim=2).float().log1p(),
        visible.sum(dim=1, keepdim=True).expand_as(visible).float().log1p() / 4,
        counts.gather(2, asked_behaviors[:, None, None].expand(-1, counts.shape[1], 1))[..., 0].float().clamp(max=1),
        reached,
        (met & (levels > asked_levels)).any(dim=2).float(),
    ]
    return torch.cat([torch.stack(columns, dim=2), met.float(), last.float()], dim=2).float()
