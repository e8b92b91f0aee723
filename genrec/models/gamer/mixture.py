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

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from .configuration_gamer import GamerConfig
from .item_history import (
    SECONDS_PER_HOUR,
    ItemHistory,
    ItemQueries,
    history_features,
    num_history_features,
    query_times,
    seen_before,
)

NOTHING = -1e30  # the logarithm of no mass: finite, so that gradients of impossible components are 0 and not NaN
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


class Components(NamedTuple):
    """What the pointers and the gate say of each query, before any code is written.

    Args:
        gate_logits: The gate's, of the softmax and then of each pointer, without the part that the state at a token
            adds; `NOTHING` where a component has no candidate `[queries, components]`.
        log_gates: With that part, at the tokens whose states were given `[queries, tokens, components]`.
        log_weights: Of each pointer's candidates, `[queries, candidates]` each.
        codes: Their codes, `[queries, candidates, levels]` each.
        is_by_item: Whether the gates are those of whole items, or each level has its own.
    """

    gate_logits: Tensor
    log_gates: Tensor
    log_weights: list[Tensor]
    codes: list[Tensor]
    is_by_item: bool


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


class MixtureHead(nn.Module):
    """The pointers and the gate.

    Args:
        config: A configuration with at least one of `copy_head`, `trend_head` and `neighbor_head`.
    """

    def __init__(self, config: GamerConfig) -> None:
        super().__init__()
        self.config = config
        num_features = {
            "copy": num_history_features(config)
            + config.num_trend_features * config.trend_head
            + config.num_neighbor_features * config.neighbor_head,
            "trend": config.num_trend_features + SEEN_FEATURES,
            "neighbor": config.num_neighbor_features + SEEN_FEATURES,
        }
        heads = {"copy": config.copy_head, "trend": config.trend_head, "neighbor": config.neighbor_head}
        self.pointers = nn.ModuleDict(
            {
                name: CandidatePointer(config, num_features[name], reads_state=name == "trend")
                for name, is_on in heads.items()
                if is_on
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
        candidates = self._candidates(history, queries, behaviors, trend, neighbors)
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

    def _candidates(
        self,
        history: ItemHistory,
        queries: ItemQueries,
        behaviors: Tensor,
        trend: Candidates | None,
        neighbors: Candidates | None,
    ) -> dict[str, Candidates]:
        visible = seen_before(history, queries)
        codes = history.codes[queries.rows]
        features = history_features(self.config, history, queries, visible)
        counts = history.counts[queries.rows]
        is_done = counts.gather(2, behaviors[:, None, None].expand(-1, counts.shape[1], 1))[..., 0] > 0
        found: dict[str, Candidates] = {}
        for name, given in (("trend", trend), ("neighbor", neighbors)):
            if name not in self.pointers:
                continue
            if given is None:
                raise ValueError(
                    f"A model with `{name}_head` needs `{name}_tokens` and `{name}_features`. `GenerativeRecommender` "
                    f"and `GenRecTrainer` make them; `{name}_head=False` does without."
                )
            if len(given.codes) != len(codes):
                raise ValueError(
                    f"`{name}_tokens` must have one row per query, {len(codes)}, got {len(given.codes)}. With labels "
                    "every item that bears loss is a query, else the last item of each row."
                )
            same = _equal_items(given.codes, codes) & given.real[:, :, None] & visible[:, None]
            seen = torch.stack([same.any(dim=2), (same & is_done[:, None]).any(dim=2)], dim=2)
            own_features = torch.cat([given.features, seen.to(given.features.dtype)], dim=2)
            found[name] = given._replace(features=own_features)
            if "copy" in self.pointers:
                features = torch.cat([features, same.transpose(1, 2).to(features.dtype) @ given.features], dim=2)
                if name == "neighbor":  # an item of the user's own is the copy pointer's
                    found[name] = found[name]._replace(real=given.real & ~seen[..., 0])
        return {"copy": Candidates(codes, features, visible), **found}

    def _gate_logits(self, behaviors: Tensor, features: Tensor, scores: list[Tensor]) -> Tensor:
        totals = torch.stack([each.logsumexp(dim=1) for each in scores], dim=1)
        is_live = totals > NOTHING / 2
        features = torch.cat([torch.where(is_live, totals, 0) / 4, features], dim=1)
        features = features.to(self.gate_feature_proj.weight.dtype)
        logits = self.gate_behavior_embedding(behaviors) + self.gate_feature_proj(features)
        return torch.where(torch.nn.functional.pad(is_live, (1, 0), value=True), logits.float(), NOTHING)


class Prefixes(NamedTuple):
    """What the components make of the codes written so far.

    Args:
        matches: Which of each pointer's candidates begin with the prefix `[queries, prefixes, candidates]` each.
        log_mass: The softmax's log-probability of the prefix `[queries, prefixes]`.
    """

    matches: list[Tensor]
    log_mass: Tensor

    def extended(self, components: Components, level: int, codes: Tensor, log_probabilities: Tensor) -> "Prefixes":
        """Return the prefixes with one more code each.

        Args:
            components: The queries' components.
            level: The level of the codes.
            codes: Token ids `[queries, prefixes]`.
            log_probabilities: What the softmax gave them `[queries, prefixes]`.
        """
        matches = [
            match & (of_candidates[:, None, :, level] == codes[..., None])
            for match, of_candidates in zip(self.matches, components.codes, strict=True)
        ]
        return Prefixes(matches, self.log_mass + log_probabilities)

    def chosen(self, parents: Tensor) -> "Prefixes":
        """Return the prefixes at `parents` `[queries, prefixes]`, in that order."""
        matches = [match.gather(1, parents[..., None].expand(-1, -1, match.shape[2])) for match in self.matches]
        return Prefixes(matches, self.log_mass.gather(1, parents))


def no_prefix(components: Components) -> Prefixes:
    """Return the one prefix, without codes, that each query starts from."""
    matches = [torch.ones_like(each[:, None], dtype=torch.bool) for each in components.log_weights]
    return Prefixes(matches, components.log_gates.new_zeros(len(components.log_gates), 1))


def gates_at(components: Components, level: int) -> Tensor:
    """Return the gates that hold at a level, if they were computed for all of them `[queries, 1, components]`."""
    place = 0 if components.is_by_item else level
    return components.log_gates[:, place : place + 1]


def mix(
    components: Components,
    log_gates: Tensor,
    prefixes: Prefixes,
    log_probabilities: Tensor,
    level: int,
    offset: int,
    size: int,
) -> Tensor:
    """Return the mixture's log-probabilities of the next token.

    Args:
        components: The queries' components.
        log_gates: The gates at this level, of the queries or of each prefix `[queries, 1 or prefixes, components]`.
        prefixes: The codes written so far.
        log_probabilities: The softmax's, over the whole vocabulary or one level of it
            `[queries, prefixes, vocabulary]`.
        level: The level of the next code.
        offset: The level's first token id.
        size: How many there are.

    Returns:
        Like `log_probabilities`, float32.
    """
    masses = _log_masses(components, prefixes)
    weights = _log_shares(log_gates, masses, prefixes.log_mass, components.is_by_item)
    pointed = torch.zeros_like(log_probabilities[..., :size])
    first = offset if log_probabilities.shape[-1] > size else 0
    parts = zip(components.log_weights, components.codes, prefixes.matches, masses, weights[1:], strict=True)
    for log_weights, codes, matches, mass, share in parts:
        conditional = torch.where(matches, (log_weights[:, None] - mass[..., None]).exp(), 0) * share.exp()[..., None]
        places = (codes[:, None, :, level] - offset).clamp(0, size - 1).expand_as(conditional)
        pointed = pointed.scatter_add(2, places, conditional)
    mixed = log_probabilities + weights[0][..., None]
    block = slice(first, first + size)
    of_level = torch.logaddexp(mixed[..., block], pointed.log())
    return torch.cat([mixed[..., : block.start], of_level, mixed[..., block.stop :]], dim=-1)


def log_likelihoods(components: Components, codes: Tensor, log_probabilities: Tensor) -> Tensor:
    """Return the mixture's log-probability of each code of given items; an item's sum is its log-probability.

    The same as `mix` looked up at the items' codes, without a row over the vocabulary.

    Args:
        components: The queries' components.
        codes: The items' codes `[queries, levels]`.
        log_probabilities: What the softmax gave them `[queries, levels]`.

    Returns:
        `[queries, levels]` float32.
    """
    prefixes = no_prefix(components)
    masses = _log_masses(components, prefixes)
    result = []
    for level in range(codes.shape[1]):
        weights = _log_shares(gates_at(components, level), masses, prefixes.log_mass, components.is_by_item)
        prefixes = prefixes.extended(components, level, codes[:, level, None], log_probabilities[:, level, None])
        longer = _log_masses(components, prefixes)
        of_pointers = [
            torch.where(after > NOTHING / 2, weight + after - before, NOTHING)
            for weight, after, before in zip(weights[1:], longer, masses, strict=True)
        ]
        result.append(torch.stack([weights[0] + log_probabilities[:, level, None], *of_pointers]).logsumexp(dim=0))
        masses = longer
    return torch.cat(result, dim=1)


def _log_masses(components: Components, prefixes: Prefixes) -> list[Tensor]:
    """Return the log-probability that each pointer gives the prefixes, `[queries, prefixes]` each."""
    return [
        torch.where(match, weights[:, None], NOTHING).logsumexp(dim=2).clamp(NOTHING, 0)
        for weights, match in zip(components.log_weights, prefixes.matches, strict=True)
    ]


def _log_shares(log_gates: Tensor, masses: list[Tensor], log_mass: Tensor, is_by_item: bool) -> list[Tensor]:
    """Return how much each component counts for the next code, logs that add up to 1, `[queries, prefixes]` each."""
    of_softmax, *of_pointers = log_gates.unbind(dim=2)
    shares = [of_softmax + log_mass if is_by_item else of_softmax]
    for gate, mass in zip(of_pointers, masses, strict=True):
        is_live = (mass > NOTHING / 2) & (gate > NOTHING / 2)
        shares.append(torch.where(is_live, gate + mass if is_by_item else gate, NOTHING))
    total = torch.stack([share.expand_as(log_mass) for share in shares]).logsumexp(dim=0)
    return [torch.where(share > NOTHING / 2, share - total, NOTHING) for share in shares]


def _query_features(history: ItemHistory, queries: ItemQueries) -> Tensor:
    """Return how long the user was away and how much is known of them, as logs `[queries, 2]`."""
    order = history.order[queries.rows]
    asked = history.order[queries.rows, queries.places][:, None]
    is_earlier = (order < asked) & (history.behaviors[queries.rows] >= 0)
    latest = torch.where(is_earlier, history.times[queries.rows], 0).amax(dim=1)
    away = torch.where(is_earlier.any(dim=1), query_times(history, queries) - latest, 0).clamp(min=0)
    return torch.stack([(away / SECONDS_PER_HOUR).log1p() / 4, is_earlier.sum(dim=1).float().log1p() / 4], dim=1)


def _equal_items(left: Tensor, right: Tensor) -> Tensor:
    """Return which of two lists' items have equal codes `[queries, left, right]`."""
    same = left[:, :, None, 0] == right[:, None, :, 0]
    for level in range(1, left.shape[2]):
        same = same & (left[:, :, None, level] == right[:, None, :, level])
    return same
