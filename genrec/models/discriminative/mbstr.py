"""MB-STR: a bidirectional transformer whose attention, feed-forward and output depend on the behaviors of its items.

Yuan, Guo, He, Hu, Zhang, Zhang and Wang, *Multi-behavior sequential transformer recommender*, SIGIR 2022. Trained on
the Cloze task like BERT4Rec, but a hidden item's behavior is seen: at inference it is the one asked for. There are no
absolute positions. Difference from the paper: embeddings are normalised before the first layer, as in the other models
here.
"""

import math

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init
from transformers.activations import ACT2FN

from .cloze import ClozeConfig, ClozeModel, Masked
from .encoder import attention_mask
from .sequences import positions_of


@strict
class MBSTRConfig(ClozeConfig):
    """The fields of `ClozeConfig`, `TransformerConfig` and `DiscriminativeConfig`, and three more.

    `norm_first` must stay False: the layers are post-LN. `behavior_ids` too: the model reads behaviors itself.

    Args:
        num_buckets: Buckets of relative positions, half of them for each direction.
        max_distance: Positions at least this far apart share the last bucket.
        num_shared_experts: Experts of the output that all behaviors share, beside one of each behavior's own.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> MBSTRConfig(num_items=10, num_behaviors=2).num_shared_experts
        3
    """

    model_type = "mb-str"

    hidden_act: str = "relu"
    last_item_ratio: float | int = 0.0
    num_buckets: int = 32
    max_distance: int = 40
    num_shared_experts: int = 3

    def _check(self) -> None:
        super()._check()
        self._require(not self.norm_first, "norm_first", "false: the layers of this model are post-LN")
        self._require(not self.behavior_ids, "behavior_ids", "false: this model reads behaviors itself")
        self._require(self.num_buckets >= 4 and self.num_buckets % 2 == 0, "num_buckets", "even and at least 4")
        self._require(self.max_distance > self.num_buckets // 4, "max_distance", "above a quarter of `num_buckets`")
        self._require(self.num_shared_experts >= 0, "num_shared_experts", "at least 0")


class MBSTRModel(ClozeModel):
    """MB-STR.

    Example:
        >>> import torch
        >>> model = MBSTRModel(MBSTRConfig(num_items=10, num_behaviors=2, hidden_size=8)).eval()
        >>> history = torch.tensor([[3, 5, -1]])  # two items and a pad
        >>> model.score_items(history, torch.zeros_like(history), asked_behavior=1).shape
        torch.Size([1, 10])
    """

    config_class = MBSTRConfig
    config: MBSTRConfig
    supports_behavior_ids = False

    def __init__(self, config: MBSTRConfig) -> None:
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(MBSTRLayer(config, self.num_behaviors) for _ in range(config.num_hidden_layers))
        self.head = GatedExperts(config, self.num_behaviors)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):  # of the feed-forward networks, which with larger weights learned nothing
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, (PairAttention, GatedExperts)):
            for name, weights in module.named_parameters(recurse=False):
                # Up to three matrices follow each other without a norm between: each must keep the size of a state.
                is_map = name not in ("score_mixing", "value_mixing", "position_bias")
                init.normal_(weights, std=weights.shape[-2] ** -0.5 if is_map else self.config.initializer_range)

    def encode(self, masked: Masked) -> Tensor:
        """Return the state of each place, `[batch, length, width]`."""
        is_real = masked.items >= 0
        behaviors = masked.behaviors.where(is_real, 0)
        states = self.dropout(self.norm(self.item_embeddings(self._masked_ids(masked))))
        buckets = relative_buckets(positions_of(is_real), self.config.num_buckets, self.config.max_distance)
        is_seen = attention_mask(is_real, is_causal=False)
        for layer in self.layers:
            states = layer(states, behaviors, buckets, is_seen)
        return states

    def _logits_parts(self, states: Tensor, behaviors: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.head(states, behaviors), self._item_weights(), None


class MBSTRLayer(nn.Module):
    """Attention between pairs of behaviors, and one feed-forward network per behavior."""

    def __init__(self, config: MBSTRConfig, num_behaviors: int) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.attention = PairAttention(config, num_behaviors)
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, config.intermediate_size),
                ACT2FN[config.hidden_act],
                nn.Dropout(config.dropout),
                nn.Linear(config.intermediate_size, width),
            )
            for _ in range(num_behaviors)
        )
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.feed_forward_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, behaviors: Tensor, buckets: Tensor, is_seen: Tensor) -> Tensor:
        """Return the layer's output `[batch, length, width]`; the arguments are those of `PairAttention`."""
        attended = self.attention(states, behaviors, buckets, is_seen)
        states = self.attention_norm(states + self.dropout(attended))
        transformed = torch.zeros_like(states)
        for behavior, expert in enumerate(self.experts):
            is_own = behaviors == behavior
            transformed[is_own] = expert(states[is_own])
        return self.feed_forward_norm(states + self.dropout(transformed))


class PairAttention(nn.Module):
    """Attention in which queries, keys and values depend on the item's behavior, and their product on the pair of both.

    The score of place i and place j, of behaviors a and b, is `q_i W[a, b] k_j / sqrt(d)` plus a bias for the pair and
    their relative position; what i takes from j is `v_j V[a, b]`. `W` and `V` mix a few basis matrices per head.
    """

    def __init__(self, config: MBSTRConfig, num_behaviors: int) -> None:
        super().__init__()
        self.num_behaviors, self.num_heads = num_behaviors, config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        width = config.hidden_size
        size = width // self.num_heads
        self.projections = nn.Parameter(torch.empty(num_behaviors, width, 3 * width))
        self.score_basis = nn.Parameter(torch.empty(num_behaviors, self.num_heads, size, size))
        self.value_basis = nn.Parameter(torch.empty(num_behaviors, self.num_heads, size, size))
        self.score_mixing = nn.Parameter(torch.empty(num_behaviors, num_behaviors, num_behaviors))
        self.value_mixing = nn.Parameter(torch.empty(num_behaviors, num_behaviors, num_behaviors))
        self.position_bias = nn.Parameter(torch.empty(num_behaviors**2 * config.num_buckets, self.num_heads))
        self.num_buckets = config.num_buckets

    def forward(self, states: Tensor, behaviors: Tensor, buckets: Tensor, is_seen: Tensor) -> Tensor:
        """Return what each place takes from the others, `[batch, length, width]`.

        Args:
            states: `[batch, length, width]`.
            behaviors: `[batch, length]`.
            buckets: Relative positions, `[batch, length, length]`.
            is_seen: Which place sees which, `[batch, 1, length, length]`.
        """
        own = functional.one_hot(behaviors, self.num_behaviors).to(states)  # [batch, length, behaviors]
        projected = torch.einsum("nlb,nlw,bwx->nlx", own, states, self.projections)
        queries, keys, values = projected.unflatten(-1, (3, self.num_heads, -1)).unbind(2)  # [batch, length, heads, d]
        # A key and a value stand in the slot of their behavior; a query has a version of itself for each slot.
        queries = torch.einsum("nla,nlhd,abhde->nlhbe", own, queries, self._pair_weights("score"))
        slots = own[:, :, None, :, None]
        mixed = functional.scaled_dot_product_attention(
            queries.flatten(3).transpose(1, 2),
            (slots * keys[:, :, :, None]).flatten(3).transpose(1, 2),
            (slots * values[:, :, :, None]).flatten(3).transpose(1, 2),
            self._bias(behaviors, buckets).masked_fill(~is_seen, -math.inf),
            dropout_p=self.attention_dropout if self.training else 0.0,
            scale=values.shape[-1] ** -0.5,
        )
        by_slot = mixed.transpose(1, 2).unflatten(-1, (self.num_behaviors, -1))  # [batch, length, heads, behaviors, d]
        return torch.einsum("nla,nlhbd,abhde->nlhe", own, by_slot, self._pair_weights("value")).flatten(2)

    def _pair_weights(self, name: str) -> Tensor:
        """Return one matrix per pair of behaviors and head, `[behaviors, behaviors, heads, d, d]`."""
        mixing, basis = getattr(self, f"{name}_mixing"), getattr(self, f"{name}_basis")
        return torch.einsum("abs,shde->abhde", mixing.softmax(dim=-1), basis)

    def _bias(self, behaviors: Tensor, buckets: Tensor) -> Tensor:
        """Return the bias of each two places, `[batch, heads, length, length]`."""
        pairs = behaviors[:, :, None] * self.num_behaviors + behaviors[:, None, :]
        return self.position_bias[pairs * self.num_buckets + buckets].permute(0, 3, 1, 2)


class GatedExperts(nn.Module):
    """The output's linear experts (Tang et al. 2020, customized gate control): shared ones, and one per behavior.

    A behavior's gate mixes the shared experts and its own; the mixture is normalised and added to the state.
    """

    def __init__(self, config: MBSTRConfig, num_behaviors: int) -> None:
        super().__init__()
        width, self.num_shared = config.hidden_size, config.num_shared_experts
        self.experts = nn.Parameter(torch.empty(self.num_shared + num_behaviors, width, width))
        self.gates = nn.Parameter(torch.empty(num_behaviors, width, self.num_shared + 1))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, behaviors: Tensor) -> Tensor:
        """Return `[places, width]` from states `[places, width]` and their behaviors `[places]`."""
        shares = torch.einsum("nw,nwe->ne", states, self.gates[behaviors]).softmax(dim=-1)
        shared = torch.einsum("nw,ewx->nex", states, self.experts[: self.num_shared])
        own = torch.einsum("nw,nwx->nx", states, self.experts[self.num_shared :][behaviors])
        mixture = (shares[:, :-1, None] * shared).sum(dim=1) + shares[:, -1:] * own
        return states + self.norm(mixture)


def relative_buckets(positions: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Return the bucket of each two positions (T5, Raffel et al. 2020): exact when near, logarithmic when far.

    Args:
        positions: `[batch, length]`.
        num_buckets: The upper half is for keys after the query.
        max_distance: From here on, one bucket.

    Returns:
        `[batch, length, length]`, of queries and keys.
    """
    distances = positions[:, None, :] - positions[:, :, None]
    half, exact = num_buckets // 2, num_buckets // 4
    size = distances.abs()
    share = torch.log(size.clamp(min=1) / exact) / math.log(max_distance / exact)
    far = (exact + (share * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(size < exact, size, far) + half * (distances > 0)
