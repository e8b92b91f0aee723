"""Pointers: scores over candidates, items whose codes are known.

Candidates are the user's own earlier items, the items that all users met lately, and the neighbors of the user's
items. What is known of one as a rising item or as a neighbor, the pointer at the user's own items reads too.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .configuration_gamer import GamerConfig
from .item_history import ItemHistory, ItemQueries, history_features, num_history_features, seen_before
from .prefix_mixture import NOTHING

SEEN_FEATURES = 2


class Candidates(NamedTuple):
    """Items with known codes that a component may choose from.

    Args:
        codes: Token ids of their codes, anything where not real `[queries, candidates, levels]`.
        features: What is known of them `[queries, candidates, features]`.
        real: Which ones there are `[queries, candidates]`.
    """

    codes: Tensor
    features: Tensor
    real: Tensor


def as_candidates(tokens: Tensor | None, features: Tensor | None) -> Candidates | None:
    """Return candidates given as tensors; those whose first token is padding are not real.

    Args:
        tokens: Token ids of their codes `[queries, candidates, levels]`, or None.
        features: What is known of them `[queries, candidates, features]`, or None.
    """
    if tokens is None or features is None:
        return None
    return Candidates(tokens.long(), features.float(), tokens[..., 0] > 0)


class ScaledLinear(nn.Linear):
    """A layer that starts at the scale of its inputs: features are few and must count from the first step on."""


class CandidatePointer(nn.Module):
    """Scores candidates by their features and the asked behavior, and perhaps by the user's state.

    Args:
        config: The model's configuration.
        num_features: Features per candidate.
        reads_state: Whether the user's state counts: by itself, and by how well it fits a candidate's codes. A pointer
            at the user's own items or at their neighbors does without: few training queries choose one, too few to
            learn that much from.
    """

    def __init__(self, config: GamerConfig, num_features: int, reads_state: bool) -> None:
        super().__init__()
        self.reads_state = reads_state
        width = config.pointer_dim
        self.feature_proj = ScaledLinear(num_features, width)
        self.behavior_embedding = nn.Embedding(config.num_behaviors, width)
        self.score_proj = ScaledLinear(width, 1, bias=False)
        if reads_state:
            self.state_proj = nn.Linear(config.hidden_size, width, bias=False)
            self.affinity_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.act_fn = nn.SiLU()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, behaviors: Tensor, candidates: Candidates, embeddings: Tensor) -> Tensor:
        """Return scores, `NOTHING` where there is no candidate `[queries, candidates]` float32.

        Args:
            states: The model's hidden states at the queries' behavior tokens `[queries, width]`.
            behaviors: The asked behaviors' indices `[queries]`.
            candidates: The candidates.
            embeddings: The model's embedding table `[vocabulary, width]`.
        """
        asked, states = self.behavior_embedding(behaviors), self.dropout(states)
        if self.reads_state:
            asked = asked + self.state_proj(states)
        features = candidates.features.to(self.feature_proj.weight.dtype)
        inner = self.act_fn(self.feature_proj(features) + asked[:, None])
        scores = self.score_proj(inner)[..., 0].float()
        if self.reads_state:
            affinities = linear(self.affinity_proj(states), embeddings)  # [queries, vocabulary]
            of_codes = affinities.gather(1, candidates.codes.flatten(1)).view_as(candidates.codes)
            scores = scores + of_codes.float().sum(dim=2)
        return torch.where(candidates.real, scores, NOTHING)


def pointer_features(config: GamerConfig) -> dict[str, int]:
    """Return the features per candidate of each pointer that a configuration has."""
    of_trend, of_neighbors = config.num_trend_features, config.num_neighbor_features
    of_history = num_history_features(config) + of_trend * config.trend_head + of_neighbors * config.neighbor_head
    features = {
        "copy": (config.copy_head, of_history),
        "trend": (config.trend_head, of_trend + SEEN_FEATURES),
        "neighbor": (config.neighbor_head, of_neighbors + SEEN_FEATURES),
    }
    return {name: number for name, (is_on, number) in features.items() if is_on}


def gather_candidates(
    config: GamerConfig,
    history: ItemHistory,
    queries: ItemQueries,
    behaviors: Tensor,
    given: dict[str, Candidates | None],
) -> dict[str, Candidates]:
    """Return the candidates of each pointer that a configuration has, each item once.

    Args:
        config: The configuration.
        history: The items of the batch.
        queries: Who asks.
        behaviors: The asked behaviors' indices `[queries]`.
        given: What all users met lately as `"trend"`, what goes with the user's items as `"neighbor"`.

    Raises:
        ValueError: If a pointer has nothing to choose from, or a row per query is missing.
    """
    visible = seen_before(history, queries)
    codes = history.codes[queries.rows]
    features = history_features(config, history, queries, visible)
    counts = history.counts[queries.rows]
    is_done = counts.gather(2, behaviors[:, None, None].expand(-1, counts.shape[1], 1))[..., 0] > 0
    found: dict[str, Candidates] = {}
    for name in (name for name in pointer_features(config) if name in given):
        candidates = _checked(name, given[name], len(codes))
        same = _equal_items(candidates.codes, codes) & candidates.real[:, :, None] & visible[:, None]
        seen = torch.stack([same.any(dim=2), (same & is_done[:, None]).any(dim=2)], dim=2)
        own_features = torch.cat([candidates.features, seen.to(candidates.features.dtype)], dim=2)
        found[name] = candidates._replace(features=own_features)
        if config.copy_head:
            features = torch.cat([features, same.transpose(1, 2).to(features.dtype) @ candidates.features], dim=2)
            if name == "neighbor":  # an item of the user's own is the copy pointer's
                found[name] = found[name]._replace(real=candidates.real & ~seen[..., 0])
    return {"copy": Candidates(codes, features, visible), **found}


def _checked(name: str, given: Candidates | None, num_queries: int) -> Candidates:
    if given is None:
        raise ValueError(
            f"A model with `{name}_head` needs `{name}_tokens` and `{name}_features`. `GenerativeRecommender` "
            f"and `GenRecTrainer` make them; `{name}_head=False` does without."
        )
    if len(given.codes) != num_queries:
        raise ValueError(
            f"`{name}_tokens` must have one row per query, {num_queries}, got {len(given.codes)}. With labels "
            "every item that bears loss is a query, else the last item of each row."
        )
    return given


def _equal_items(left: Tensor, right: Tensor) -> Tensor:
    """Return which of two lists' items have equal codes `[queries, left, right]`."""
    same = left[:, :, None, 0] == right[:, None, :, 0]
    for level in range(1, left.shape[2]):
        same = same & (left[:, :, None, level] == right[:, None, :, level])
    return same
