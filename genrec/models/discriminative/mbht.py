"""MBHT: a transformer of several scales, and a hypergraph of the history's items, fused.

Yang, Huang, Xia, Liang, Yu and Li, *Multi-behavior hypergraph-enhanced transformer for sequential recommendation*,
KDD 2022. Trained on the Cloze task, the last item always among the hidden ones.

Differences from the paper and its release: rows are laid out with their last item in the last of a fixed number of
places, and pads are kept out of projections and windows, so that padding changes nothing; windows are of neighbouring
items (the release averages items far apart); a hidden item's behavior is seen, at inference the asked one; hidden items
are no nodes of the hypergraph; propagation has no weights.
"""

import dataclasses
import math

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init
from transformers.activations import ACT2FN

from .cloze import ClozeConfig, ClozeModel, Masked
from .encoder import attention_mask
from .hypergraph import HypergraphView, window_means
from .sequences import IGNORED_LABEL, last_places


@strict
class MBHTConfig(ClozeConfig):
    """The fields of `ClozeConfig`, `TransformerConfig` and `DiscriminativeConfig`, and six more.

    `norm_first` must stay False: the layers are post-LN. `behavior_ids` too: the model reads behaviors itself.

    Args:
        num_projected: Keys and values that the attention over all items is projected to.
        window_sizes: Items per window of each further attention, which is one of windows.
        num_similar_items: Hyperedges of similar items that an item joins, its own included.
        readout_before: Earlier items of whose hypergraph states a hidden item's is the mean.
        readout_after: Later ones, the hidden item itself counted.
        graph_dropout: Dropout rate of the hypergraph's states.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> MBHTConfig(num_items=10, num_behaviors=2).num_places  # for 59 items and the one to guess
        60
    """

    model_type = "mbht"

    max_history_items: int = 59
    dropout: float | int = 0.5
    last_item_ratio: float | int = 0.0
    num_projected: int = 5
    window_sizes: list[int] = dataclasses.field(default_factory=lambda: [4, 20])
    num_similar_items: int = 6
    readout_before: int = 10
    readout_after: int = 6
    graph_dropout: float | int = 0.2

    @property
    def num_places(self) -> int:
        """Places of a row inside the model: those of the history and the item to guess, in whole windows."""
        multiple = math.lcm(*self.window_sizes)
        return math.ceil((self.max_history_items + 1) / multiple) * multiple

    def _check(self) -> None:
        super()._check()
        self._require(not self.norm_first, "norm_first", "false: the layers of this model are post-LN")
        self._require(not self.behavior_ids, "behavior_ids", "false: this model reads behaviors itself")
        for name in ("num_projected", "num_similar_items", "readout_before", "readout_after"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        self._require(all(size >= 1 for size in self.window_sizes), "window_sizes", "sizes of at least 1")
        self._require(0 <= self.graph_dropout < 1, "graph_dropout", "a rate from 0 to below 1")


class MBHTModel(ClozeModel):
    """MBHT.

    Example:
        >>> import torch
        >>> model = MBHTModel(MBHTConfig(num_items=10, num_behaviors=2, hidden_size=8)).eval()
        >>> history = torch.tensor([[3, 5, -1]])  # two items and a pad
        >>> model.score_items(history, torch.zeros_like(history), asked_behavior=1).shape
        torch.Size([1, 10])
    """

    config_class = MBHTConfig
    config: MBHTConfig
    supports_behavior_ids = False

    def __init__(self, config: MBHTConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.position_embeddings = nn.Embedding(config.num_places, width)
        self.behavior_embeddings = nn.Embedding(self.num_behaviors, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(MultiScaleLayer(config) for _ in range(config.num_hidden_layers))
        self.hypergraph = HypergraphView(width, config.num_similar_items, config.graph_dropout)
        self.fusion = ViewFusion(width)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HypergraphView):
            init.normal_(module.metrics, std=self.config.initializer_range)

    def encode(self, masked: Masked) -> Tensor:
        """Return the state of each place, `[batch, length, width]`."""
        order = (masked.items >= 0).sort(dim=1, stable=True).indices  # pads first
        num_added = self.config.num_places - order.shape[1]

        def laid_out(values: Tensor, filler: int) -> Tensor:
            return functional.pad(values.gather(1, order), (num_added, 0), value=filler)

        states = self._encode_laid_out(
            Masked(
                laid_out(masked.items, -1),
                laid_out(masked.behaviors, 0),
                laid_out(masked.is_hidden, 0),
            )
        )
        back = order.argsort(dim=1) + num_added
        return states.gather(1, back[..., None].expand(-1, -1, states.shape[2]))

    def _encode_laid_out(self, masked: Masked) -> Tensor:
        """Return the states of rows whose last item stands in the last place, `[batch, places, width]`."""
        is_real = masked.items >= 0
        embeddings = self.item_embeddings(self._masked_ids(masked))
        states = (
            embeddings + self.position_embeddings.weight + self.behavior_embeddings(masked.behaviors.where(is_real, 0))
        )
        states = self.dropout(self.norm(states))
        for layer in self.layers:
            states = layer(states, is_real)
        is_known = is_real & ~masked.is_hidden
        graph = self.hypergraph(embeddings, masked.items, is_known)
        means = window_means(graph, is_known, self.config.readout_before, self.config.readout_after)
        return self.fusion(states, torch.where(is_known[..., None], graph, means))

    def _draw(self, items: Tensor, labels: Tensor) -> Tensor:
        """Draw the hidden places of rows with labels, `[batch, length]`; the last item is always one of them."""
        columns = torch.arange(items.shape[1], device=items.device)
        is_last = (items >= 0) & (columns == last_places(items >= 0)[:, None])
        return super()._draw(items, labels) | (is_last & (labels != IGNORED_LABEL).any(dim=1, keepdim=True))

    def _logits_parts(self, states: Tensor, behaviors: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return states, self._item_weights(), None


class MultiScaleLayer(nn.Module):
    """Attention of several scales and a feed-forward network, each with dropout, residual and norm.

    The outputs of all scales stand one after the other, and a linear map over places brings them back to as many as
    there were.
    """

    def __init__(self, config: MBHTConfig) -> None:
        super().__init__()
        width, inner, eps, places = (
            config.hidden_size,
            config.intermediate_size,
            config.layer_norm_eps,
            config.num_places,
        )
        self.window_sizes = config.window_sizes
        self.global_attention = LowRankAttention(config)
        self.window_attentions = nn.ModuleList(HeadAttention(config) for _ in config.window_sizes)
        self.merge = PlaceMap(places + sum(places // size for size in config.window_sizes), places)
        self.up_proj, self.down_proj = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation = ACT2FN[config.hidden_act]
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, is_real: Tensor) -> Tensor:
        """Return `[batch, places, width]` from states so and which places hold an item, `[batch, places]`."""
        scales = [self.global_attention(states, is_real)]
        for size, attention in zip(self.window_sizes, self.window_attentions, strict=True):
            windows, is_filled = pooled(states, is_real, size)
            scales.append(attention(windows, is_filled))
        merged = self.merge(torch.cat(scales, dim=1))
        states = self.attention_norm(states + self.dropout(merged))
        transformed = self.down_proj(self.activation(self.up_proj(states)))
        return self.feed_forward_norm(states + self.dropout(transformed))


class HeadAttention(nn.Module):
    """Self-attention of several heads with dropout, residual and norm, zero at places that hold nothing."""

    def __init__(self, config: MBHTConfig) -> None:
        super().__init__()
        self.num_heads, self.attention_dropout = config.num_attention_heads, config.attention_dropout
        self.in_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, is_real: Tensor) -> Tensor:
        """Return `[batch, places, width]` from states so and which places hold something, `[batch, places]`."""
        queries, keys, values = self.in_proj(states).chunk(3, dim=-1)
        attended = self._attended(queries, keys, values, is_real)
        return self.norm(states + self.dropout(attended)) * is_real[..., None]

    def _attended(self, queries: Tensor, keys: Tensor, values: Tensor, is_real: Tensor) -> Tensor:
        """Return what each place takes from others, each `[batch, places, width]`."""
        return self._mixed(queries, keys, values, attention_mask(is_real, is_causal=False))

    def _mixed(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        heads = [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (queries, keys, values)]
        rate = self.attention_dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], mask, dropout_p=rate)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class LowRankAttention(HeadAttention):
    """Attention to a few learned combinations of all places (Wang et al. 2020, Linformer)."""

    def __init__(self, config: MBHTConfig) -> None:
        super().__init__(config)
        self.key_map = PlaceMap(config.num_places, config.num_projected, bias=False)
        self.value_map = PlaceMap(config.num_places, config.num_projected, bias=False)

    def _attended(self, queries: Tensor, keys: Tensor, values: Tensor, is_real: Tensor) -> Tensor:
        keys, values = keys * is_real[..., None], values * is_real[..., None]
        return self._mixed(queries, self.key_map(keys), self.value_map(values), None)


class PlaceMap(nn.Linear):
    """A linear map over the places of a row, the same for each coordinate."""

    def forward(self, states: Tensor) -> Tensor:
        """Return `[batch, places out, width]` from `[batch, places in, width]`."""
        return super().forward(states.transpose(1, 2)).transpose(1, 2)


class ViewFusion(nn.Module):
    """The two views of a place, weighted by attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scores = nn.Sequential(nn.Linear(width, width, bias=False), nn.Linear(width, 1, bias=False))

    def forward(self, sequence: Tensor, graph: Tensor) -> Tensor:
        """Return `[batch, length, width]` from two views of that shape."""
        views = torch.stack([sequence, graph])
        return (views * self.scores(views).softmax(dim=0)).sum(dim=0)


def pooled(states: Tensor, is_real: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the means of windows of neighbouring places, pads not counted, and which windows hold anything.

    Args:
        states: `[batch, places, width]`.
        is_real: `[batch, places]`.
        size: Places per window; must divide their number.

    Returns:
        `[batch, windows, width]` and `[batch, windows]`.

    >>> means, is_filled = pooled(torch.tensor([[[9.0], [9.0], [9.0], [2.0]]]), torch.tensor([[0, 0, 0, 1]]).bool(), 2)
    >>> means[0, :, 0].tolist(), is_filled.tolist()
    ([0.0, 2.0], [[False, True]])
    """
    counts = is_real.unflatten(1, (-1, size)).sum(dim=2)
    sums = (states * is_real[..., None]).unflatten(1, (-1, size)).sum(dim=2)
    return sums / counts.clamp(min=1)[..., None], counts > 0
