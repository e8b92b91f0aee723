"""Recommending what was met, what is rising and what goes together, inside the model that writes codes.

The softmax over codes is one of several components. The others are pointers over *candidates*, items whose codes are
known: the user's own earlier items (`copy_head`), the items that all users met lately (`trend_head`), and the neighbors
of the user's items (`neighbor_head`). A gate g weighs the components per query, and the model's probability of an item
is the mixture

    P(item) = sum over k of g_k P_k(item),

written one code at a time: with P_k(prefix) the mass of all of k's items that begin with the prefix,

    P(c | prefix) = sum over k of w_k P_k(c | prefix),    w_k = g_k P_k(prefix) / sum over j of g_j P_j(prefix).

Pointer networks over a vocabulary are See et al. 2017 (arXiv 1704.04368, equation 9); a prefix's mass over a trie is
what makes them exact for item codes. `mixture="level"` is the simpler form: a gate of its own at each level, over the
components that hold the prefix. Everything else, `generate`, trie and fast search, sees log-probabilities as before.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from .configuration_gamer import GamerConfig
from .item_history import SECONDS_PER_HOUR, ItemHistory, ItemQueries, query_times
from .pointers import CandidatePointer, Candidates, gather_candidates, pointer_features
from .prefix_mixture import NOTHING, Components, gates_at, mix, no_prefix


class MixtureHead(nn.Module):
    """The pointers and the gate.

    Args:
        config: A configuration with at least one of `copy_head`, `trend_head` and `neighbor_head`.
    """

    def __init__(self, config: GamerConfig) -> None:
        super().__init__()
        self.config = config
        self.pointers = nn.ModuleDict(
            {
                name: CandidatePointer(config, num_features, reads_state=name == "trend")
                for name, num_features in pointer_features(config).items()
            }
        )
        self.num_components = 1 + len(self.pointers)
        self.gate_behavior_embedding = nn.Embedding(config.num_behaviors, self.num_components)
        self.gate_proj = nn.Linear(config.hidden_size, self.num_components)
        self.gate_feature_proj = nn.Linear(len(self.pointers) + 2, self.num_components, bias=False)

    def forward(
        self,
        logits: Tensor,
        states: Tensor,
        history: ItemHistory,
        embeddings: Tensor,
        trend: Candidates | None = None,
        neighbors: Candidates | None = None,
    ) -> Tensor:
        """Return the logs of the mixture at the tokens of each row's last item.

        Args:
            logits: The softmax's logits at the tokens that codes follow `[batch, tokens, vocabulary]`.
            states: The hidden states there `[batch, tokens, width]`.
            history: The items of the batch.
            embeddings: The model's embedding table `[vocabulary, width]`.
            trend: One row per row of the batch, needed by `trend_head`.
            neighbors: One row per row of the batch, needed by `neighbor_head`.

        Returns:
            Log-probabilities `[batch, tokens, vocabulary]`.
        """
        rows = torch.arange(len(logits), device=logits.device)
        queries = ItemQueries(rows, torch.full_like(rows, history.tokens.shape[1] - 1))
        components = self.components(states, history, queries, embeddings, trend, neighbors)
        log_probabilities = log_softmax(logits.float(), dim=2)
        codes = history.codes[:, -1]
        prefixes, mixed = no_prefix(components), []
        for level in range(logits.shape[1]):
            of_softmax = log_probabilities[:, level, None]
            offset, size = self.config.level_offsets[level], self.config.codebook_sizes[level]
            gates = gates_at(components, level)
            mixed.append(mix(components, gates, prefixes, of_softmax, level, offset, size))
            written = codes[:, level, None]
            of_written = of_softmax.gather(2, written[..., None])[..., 0]
            prefixes = prefixes.extended(components, level, written, of_written)
        return torch.cat(mixed, dim=1)

    def components(
        self,
        states: Tensor,
        history: ItemHistory,
        queries: ItemQueries,
        embeddings: Tensor,
        trend: Candidates | None = None,
        neighbors: Candidates | None = None,
    ) -> Components:
        """Return what the components say of each query.

        Args:
            states: Hidden states of the queries' behavior tokens, for the level mixture followed by those of the codes
                written so far `[queries, tokens, width]`.
            history: The items of the batch.
            queries: Who asks.
            embeddings: The model's embedding table `[vocabulary, width]`.
            trend: What all users met lately, needed by `trend_head`.
            neighbors: What goes with the user's items, needed by `neighbor_head`.
        """
        behaviors = history.behaviors[queries.rows, queries.places].clamp(min=0)
        given = {"trend": trend, "neighbor": neighbors}
        candidates = gather_candidates(self.config, history, queries, behaviors, given)
        scores = [
            pointer(states[:, 0], behaviors, candidates[name], embeddings) for name, pointer in self.pointers.items()
        ]
        gate_logits = self._gate_logits(behaviors, _query_features(history, queries), scores)
        is_by_item = self.config.mixture == "item"
        log_weights = [torch.where(each > NOTHING / 2, log_softmax(each.float(), dim=1), NOTHING) for each in scores]
        return Components(
            gate_logits,
            self.log_gates(gate_logits, states[:, :1] if is_by_item else states),
            log_weights,
            [candidates[name].codes for name in self.pointers],
            is_by_item,
        )

    def log_gates(self, gate_logits: Tensor, states: Tensor) -> Tensor:
        """Return the gates' logarithms at tokens `[queries, tokens, components]`.

        Args:
            gate_logits: Of the components `[queries, components]`.
            states: Hidden states `[queries, tokens, width]`.
        """
        is_live = gate_logits[:, None] > NOTHING / 2
        logits = torch.where(is_live, gate_logits[:, None] + self.gate_proj(states), NOTHING)
        return torch.where(is_live, log_softmax(logits.float(), dim=2), NOTHING)

    def _gate_logits(self, behaviors: Tensor, features: Tensor, scores: list[Tensor]) -> Tensor:
        totals = torch.stack([each.logsumexp(dim=1) for each in scores], dim=1)
        is_live = totals > NOTHING / 2
        features = torch.cat([torch.where(is_live, totals, 0) / 4, features], dim=1)
        features = features.to(self.gate_feature_proj.weight.dtype)
        logits = self.gate_behavior_embedding(behaviors) + self.gate_feature_proj(features)
        return torch.where(torch.nn.functional.pad(is_live, (1, 0), value=True), logits.float(), NOTHING)


def _query_features(history: ItemHistory, queries: ItemQueries) -> Tensor:
    """Return how long the user was away and how much is known of them, as logs `[queries, 2]`."""
    order = history.order[queries.rows]
    asked = history.order[queries.rows, queries.places][:, None]
    is_earlier = (order < asked) & (history.behaviors[queries.rows] >= 0)
    latest = torch.where(is_earlier, history.times[queries.rows], 0).amax(dim=1)
    away = torch.where(is_earlier.any(dim=1), query_times(history, queries) - latest, 0).clamp(min=0)
    return torch.stack([(away / SECONDS_PER_HOUR).log1p() / 4, is_earlier.sum(dim=1).float().log1p() / 4], dim=1)
