"""PBAT: a bidirectional transformer over Gaussians, in which each user has behaviors of their own.

Su, Chen, Lin, Li, Liu and Zheng, *Personalized behavior-aware transformer for multi-behavior sequential
recommendation*, MM 2023. Items, behaviors, positions and relations between behaviors are Gaussians. A user's version
of a behavior is the product of the user's Gaussian and the behavior's; the distances of these versions scale the
relations. Attention compares queries and keys by Wasserstein distance, each fused with relation and position. Trained
on the Cloze task; the item whose Gaussian is nearest scores highest.

Differences from the paper: there is no embedding per user, which somebody new would lack; a user is pooled from the
history's items and behaviors. Positions are normalised like all else, and the distances that scale relations are means
over coordinates: without this it learned much later.
Differences from the release: logits are minus the distance, not the distance; feed-forward networks keep their
residual; variances are positive wherever their root is taken; means and variances share no networks or norms.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional

from .cloze import ClozeConfig, ClozeModel, Masked
from .encoder import attention_mask
from .gaussians import Gaussian, coordinates, positive, product, self_adaptive_product, wasserstein
from .sequences import positions_of


@strict
class PBATConfig(ClozeConfig):
    """The fields of `ClozeConfig`, `TransformerConfig` and `DiscriminativeConfig`.

    `norm_first` must stay False: the layers are post-LN. `behavior_ids` too: the model reads behaviors itself.
    `hidden_act` is `"elu"`, of which variances are made too.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> PBATConfig(num_items=10, num_behaviors=2).hidden_act
        'elu'
    """

    model_type = "pbat"

    hidden_act: str = "elu"
    last_item_ratio: float | int = 0.0

    def _check(self) -> None:
        super()._check()
        self._require(not self.norm_first, "norm_first", "false: the layers of this model are post-LN")
        self._require(not self.behavior_ids, "behavior_ids", "false: this model reads behaviors itself")
        self._require(self.hidden_act == "elu", "hidden_act", "'elu': this model's variances are made of it too")


class PBATModel(ClozeModel):
    """PBAT.

    An item's Gaussian has its mean in `item_embeddings` and what its variance is made of in `item_variances`.

    Example:
        >>> import torch
        >>> model = PBATModel(PBATConfig(num_items=10, num_behaviors=2, hidden_size=8)).eval()
        >>> history = torch.tensor([[3, 5, -1]])  # two items and a pad
        >>> model.score_items(history, torch.zeros_like(history), asked_behavior=1).shape
        torch.Size([1, 10])
    """

    config_class = PBATConfig
    config: PBATConfig
    supports_behavior_ids = False

    def __init__(self, config: PBATConfig) -> None:
        super().__init__(config)
        width, eps = config.hidden_size, config.layer_norm_eps
        self.item_variances = nn.Embedding(len(self.item_embeddings.weight), width, padding_idx=0)
        self.positions = GaussianEmbedding(config.max_history_items + 1, config)
        self.behaviors = GaussianEmbedding(self.num_behaviors, config)
        self.patterns = BehaviorPatterns(config, self.num_behaviors)
        self.mean_norm, self.variance_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(PBATLayer(config, self.num_behaviors) for _ in range(config.num_hidden_layers))
        self.pattern_map = nn.Linear(width, width)
        self.mean_head, self.variance_head = nn.Linear(width, width), nn.Linear(width, width)
        self.post_init()

    def encode(self, masked: Masked) -> Tensor:
        """Return the state of each place, `[batch, length, 2 * width]`: the `coordinates` of the guessed item."""
        is_real = masked.items >= 0
        behaviors = masked.behaviors.where(is_real, 0)
        ids = self._masked_ids(masked)
        means = self.mean_norm(self.item_embeddings(ids))
        raw_variances = self.variance_norm(self.item_variances(ids))
        known = (is_real & ~masked.is_hidden).to(means)
        users = self._users(means, raw_variances, behaviors, known)
        patterns, relations = self.patterns(users, self.behaviors.table())
        states = Gaussian(self.dropout(means), positive(self.dropout(raw_variances)))
        positions = self.positions(positions_of(is_real))
        is_seen = attention_mask(is_real, is_causal=False)
        for layer in self.layers:
            states = layer(states, behaviors, self.behaviors(behaviors), relations, positions, is_seen)
        return coordinates(self._guess(states, patterns, behaviors))

    def _users(self, means: Tensor, raw_variances: Tensor, behaviors: Tensor, known: Tensor) -> Gaussian:
        """Return a Gaussian per row, `[batch, width]`, pooled from items not hidden and their behaviors."""
        counts = known.sum(dim=1, keepdim=True).clamp(min=1)
        behavior_means, behavior_raw_variances = self.behaviors.raw(behaviors)
        mean = (means + behavior_means) * known[..., None]
        raw_variance = (raw_variances + behavior_raw_variances) * known[..., None]
        return self.patterns.user(mean.sum(dim=1) / counts, raw_variance.sum(dim=1) / counts)

    def _guess(self, states: Gaussian, patterns: Gaussian, behaviors: Tensor) -> Gaussian:
        """Return the Gaussian of the item that each place expects under its behavior, `[batch, length, width]`."""
        rows = torch.arange(len(behaviors), device=behaviors.device)[:, None]
        own = Gaussian(self.pattern_map(patterns.mean[rows, behaviors]), patterns.variance[rows, behaviors])
        mean, variance = self_adaptive_product(states, own)
        return Gaussian(functional.elu(self.mean_head(mean)), positive(self.variance_head(variance)))

    def _logits_parts(self, states: Tensor, behaviors: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        # Minus a squared distance, written as an inner product: 2 q.x - |q|^2 - |x|^2.
        items = coordinates(Gaussian(self._item_weights(), positive(self.item_variances.weight[1:][: self.num_items])))
        queries = torch.cat([2 * states, -states.square().sum(dim=-1, keepdim=True)], dim=-1)
        weights = torch.cat([items, torch.ones_like(items[:, :1])], dim=-1)
        return queries, weights, -items.square().sum(dim=-1)


class GaussianEmbedding(nn.Module):
    """A table of Gaussians, normalised before variances are made positive."""

    def __init__(self, size: int, config: PBATConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.means, self.raw_variances = nn.Embedding(size, width), nn.Embedding(size, width)
        self.mean_norm, self.variance_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)

    def raw(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means of ids of any shape, and what their variances are made of, `[..., width]`."""
        return self.mean_norm(self.means(ids)), self.variance_norm(self.raw_variances(ids))

    def forward(self, ids: Tensor) -> Gaussian:
        """Return the Gaussians of ids of any shape, `[..., width]`."""
        mean, raw_variance = self.raw(ids)
        return Gaussian(mean, positive(raw_variance))

    def table(self) -> Gaussian:
        """Return all Gaussians, `[size, width]`."""
        return self(torch.arange(self.means.num_embeddings, device=self.means.weight.device))


class BehaviorPatterns(nn.Module):
    """What each behavior is for a user, and how each two of them relate."""

    def __init__(self, config: PBATConfig, num_behaviors: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.user_mean, self.user_variance = nn.Linear(width, width), nn.Linear(width, width)
        self.behavior_map = nn.Linear(width, width)
        self.relations = GaussianEmbedding(num_behaviors**2, config)

    def user(self, mean: Tensor, raw_variance: Tensor) -> Gaussian:
        """Return the user's Gaussian of pooled embeddings, all `[batch, width]`."""
        return Gaussian(self.user_mean(mean), positive(self.user_variance(raw_variance)))

    def forward(self, users: Gaussian, behaviors: Gaussian) -> tuple[Gaussian, Gaussian]:
        """Return the patterns of users and their relations.

        Args:
            users: `[batch, width]`.
            behaviors: `[behaviors, width]`.

        Returns:
            The users' versions of behaviors, `[batch, behaviors, width]`, and the relations of each two of them,
            `[batch, behaviors, behaviors, width]`: learned ones, times minus the distance of the two versions per
            coordinate.
        """
        mapped = Gaussian(self.behavior_map(behaviors.mean), behaviors.variance)
        users = Gaussian(users.mean[:, None], users.variance[:, None])
        patterns = self_adaptive_product(users, mapped)
        first = Gaussian(patterns.mean[:, :, None], patterns.variance[:, :, None])
        second = Gaussian(patterns.mean[:, None], patterns.variance[:, None])
        strengths = -wasserstein(first, second)[..., None] / users.mean.shape[-1]
        pairs = torch.arange(self.relations.means.num_embeddings, device=strengths.device)
        means, raw_variances = self.relations.raw(pairs.unflatten(0, strengths.shape[1:3]))
        return patterns, Gaussian(strengths * means, positive(strengths * raw_variances))


class PBATLayer(nn.Module):
    """Attention by distance, and one feed-forward network per behavior, for means and variances each."""

    def __init__(self, config: PBATConfig, num_behaviors: int) -> None:
        super().__init__()
        self.attention = FusedAttention(config, num_behaviors)
        self.mean_block = BehaviorFeedForward(config, num_behaviors)
        self.variance_block = BehaviorFeedForward(config, num_behaviors)

    def forward(
        self,
        states: Gaussian,
        behaviors: Tensor,
        behavior_states: Gaussian,
        relations: Gaussian,
        positions: Gaussian,
        is_seen: Tensor,
    ) -> Gaussian:
        """Return the layer's output, `[batch, length, width]`; the arguments are those of `FusedAttention`."""
        mean, variance = self.attention(states, behaviors, behavior_states, relations, positions, is_seen)
        return Gaussian(
            self.mean_block(states.mean, mean, behaviors),
            positive(self.variance_block(states.variance, variance, behaviors)),
        )


class BehaviorFeedForward(nn.Module):
    """What follows attention in one of the two streams: residual, norm, the behavior's network, residual, norm."""

    def __init__(self, config: PBATConfig, num_behaviors: int) -> None:
        super().__init__()
        width, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inner), nn.ELU(), nn.Dropout(config.dropout), nn.Linear(inner, width))
            for _ in range(num_behaviors)
        )
        self.attention_norm, self.norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, attended: Tensor, behaviors: Tensor) -> Tensor:
        """Return `[batch, length, width]` from states and what attention took, both so, and behaviors."""
        states = self.attention_norm(states + self.dropout(attended))
        transformed = torch.zeros_like(states)
        for behavior, expert in enumerate(self.experts):
            is_own = behaviors == behavior
            transformed[is_own] = expert(states[is_own])
        return self.norm(states + self.dropout(transformed))


class FusedAttention(nn.Module):
    """Attention whose scores are minus the Wasserstein distance of fused queries and keys, over `sqrt(d)`.

    The query of place i and the key of place j are each a product of three Gaussians: the place's own (of its item and
    behavior), the relation of the two behaviors, and the place's position. A relation depends on the places through
    their behaviors only, so that a place has one query per behavior of the other, not one per other place.
    """

    def __init__(self, config: PBATConfig, num_behaviors: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_behaviors, self.num_heads = num_behaviors, config.num_attention_heads
        self.mean_in, self.variance_in = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)
        self.behavior_mean_in = nn.Linear(width, 3 * width, bias=False)
        self.behavior_variance_in = nn.Linear(width, 3 * width, bias=False)
        self.relation_maps = nn.Linear(width, 2 * width)
        self.position_maps = nn.Linear(width, 2 * width)
        self.mean_out, self.variance_out = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(
        self,
        states: Gaussian,
        behaviors: Tensor,
        behavior_states: Gaussian,
        relations: Gaussian,
        positions: Gaussian,
        is_seen: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return what each place takes from the others: of means and of variances, `[batch, length, width]` both.

        Args:
            states: `[batch, length, width]`.
            behaviors: `[batch, length]`.
            behavior_states: The Gaussians of these behaviors, `[batch, length, width]`.
            relations: Of each two behaviors, `[batch, behaviors, behaviors, width]`.
            positions: `[batch, length, width]`.
            is_seen: Which place sees which, `[batch, 1, length, length]`.
        """
        means = self.mean_in(states.mean) + self.behavior_mean_in(behavior_states.mean)
        variances = positive(self.variance_in(states.variance) + self.behavior_variance_in(behavior_states.variance))
        queries, keys, values = map(Gaussian, means.chunk(3, dim=-1), variances.chunk(3, dim=-1))
        query_relations, key_relations = self._relations(relations, behaviors)
        query_positions, key_positions = map(
            Gaussian, self.position_maps(positions.mean).chunk(2, -1), 2 * [positions.variance]
        )
        scores = self._scores(
            self._fused(queries, query_relations, query_positions),
            self._fused(keys, key_relations, key_positions),
            functional.one_hot(behaviors, self.num_behaviors).to(means),
        )
        weights = self.dropout(scores.masked_fill(~is_seen, -torch.inf).softmax(dim=-1))
        # A weighted sum of independent Gaussians has the squared weights in its variance.
        return self.mean_out(self._mixed(weights, values.mean)), self.variance_out(
            self._mixed(weights.square(), values.variance)
        )

    def _relations(self, relations: Gaussian, behaviors: Tensor) -> tuple[Gaussian, Gaussian]:
        """Return each place's relations as a query and as a key, `[batch, length, behaviors of the other, width]`."""
        rows = torch.arange(len(behaviors), device=behaviors.device)[:, None]
        query_means, key_means = self.relation_maps(relations.mean).chunk(2, dim=-1)
        as_query = Gaussian(query_means[rows, behaviors], relations.variance[rows, behaviors])
        as_key = Gaussian(
            key_means.transpose(1, 2)[rows, behaviors], relations.variance.transpose(1, 2)[rows, behaviors]
        )
        return as_query, as_key

    def _fused(self, own: Gaussian, relations: Gaussian, positions: Gaussian) -> Tensor:
        """Return the coordinates of the fused Gaussians, `[behaviors of the other, batch, heads, length, 2 * d]`."""
        own, positions = (Gaussian(part.mean[:, :, None], part.variance[:, :, None]) for part in (own, positions))
        fused = product(own, relations, positions)
        heads = Gaussian(*(part.unflatten(-1, (self.num_heads, -1)) for part in fused))
        return coordinates(heads).permute(2, 0, 3, 1, 4).contiguous()

    def _scores(self, queries: Tensor, keys: Tensor, own: Tensor) -> Tensor:
        """Return minus the distances of places, `[batch, heads, length, length]`, over the root of a head's width.

        Args:
            queries: `[behaviors of the key, batch, heads, length, 2 * d]`.
            keys: `[behaviors of the query, batch, heads, length, 2 * d]`.
            own: The places' behaviors, one-hot, `[batch, length, behaviors]`.
        """
        query_norms = torch.einsum("bnhi,njb->nhij", queries.square().sum(dim=-1), own)
        key_norms = torch.einsum("anhj,nia->nhij", keys.square().sum(dim=-1), own)
        scores = -query_norms - key_norms
        for query_behavior, key in enumerate(keys):
            for key_behavior, query in enumerate(queries):
                is_pair = own[:, :, None, query_behavior] * own[:, None, :, key_behavior]
                scores = scores + 2 * is_pair[:, None] * (query @ key.transpose(-1, -2))
        return scores / (queries.shape[-1] // 2) ** 0.5

    def _mixed(self, weights: Tensor, values: Tensor) -> Tensor:
        """Return `[batch, length, width]` of weights `[batch, heads, length, length]` and values so."""
        heads = values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return (weights @ heads).transpose(1, 2).flatten(2)
