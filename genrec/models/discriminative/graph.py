"""What graph models share: the graphs of a log, one per behavior, and users that are no more than their histories.

A graph links users and items; the link of user u and item i under a behavior has the weight 1 / sqrt(d_u d_i), where d
counts a node's links under that behavior (He et al., *LightGCN*, SIGIR 2020, equation 3). Published graph models give
each user an embedding and serve those users only. Here items alone have embeddings: a user's state is what one step of
propagation takes from the items of a history, so that a user of the training part and one never seen are the same to
the model. What items learn from each other through the users of the training part comes from the stored graph.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import initialization as init

from .base import DiscriminativeModel, DiscriminativeOutput, check_length
from .configuration import DiscriminativeConfig
from .negatives import draw_negatives
from .sequences import IGNORED_LABEL, last_places, places_before


@strict
class GraphConfig(DiscriminativeConfig):
    """The further fields of graph models. `behavior_ids` must stay False: there is a graph per behavior.

    Args:
        num_hidden_layers: Times that the items' states go to the users and back.
        num_graph_users: Users of the stored graph; follows from the data, see `GraphModel.set_graph`.
        num_edges: Links of the stored graph; follows from the data.
    """

    max_history_items: int = 100
    initializer_range: float | int = 0.1
    num_hidden_layers: int = 1
    num_graph_users: int = 0
    num_edges: int = 0

    def _check(self) -> None:
        super()._check()
        self._require(not self.behavior_ids, "behavior_ids", "false: this model has a graph per behavior")
        self._require(self.num_hidden_layers >= 1, "num_hidden_layers", "at least 1")
        for name in ("num_graph_users", "num_edges"):
            self._require(getattr(self, name) >= 0, name, "at least 0")


class GraphStates(NamedTuple):
    """What propagation over the stored graph makes of the items.

    Args:
        read: What users take from items, one tensor `[behaviors, items, width]` per step.
        by_behavior: The items' states under each behavior, `[behaviors, items, width]`.
        mixed: The items' states that scores are made of, `[items, width]`.
    """

    read: list[Tensor]
    by_behavior: Tensor
    mixed: Tensor


class UserStates(NamedTuple):
    """What is known of users; the first axes are `[batch, length]`, or one axis of chosen places.

    Args:
        by_behavior: Under each behavior, `[..., behaviors, width]`.
        mixed: From all behaviors, `[..., width]`.
        counts: Different items of the history under each behavior, `[..., behaviors]`.
    """

    by_behavior: Tensor
    mixed: Tensor
    counts: Tensor

    def at(self, rows: Tensor, places: Tensor) -> "UserStates":
        """Return the states after these places of these rows, both `[chosen]`."""
        return UserStates(*(part[rows, places] for part in self))


class Targets(NamedTuple):
    """What a batch is trained on, `[targets]` each.

    Args:
        behaviors: The behavior of each target.
        items: The right items.
        negatives: As many wrong ones.
    """

    behaviors: Tensor
    items: Tensor
    negatives: Tensor


class GraphModel(DiscriminativeModel):
    """A model whose items' states come from the graphs of the training part. Without `set_graph` these have no links.

    Attributes:
        edges: The links, a user's node `behavior * num_graph_users + user` above an item's node
            `behavior * num_items + item`, `[2, links]`, saved with the weights.
        item_degrees: Links of each item, `[behaviors, items]`.
    """

    config: GraphConfig
    supports_behavior_ids = False
    edges: Tensor
    item_degrees: Tensor

    def __init__(self, config: GraphConfig) -> None:
        super().__init__(config)
        self.register_buffer("edges", torch.zeros(2, config.num_edges, dtype=torch.int64))
        self.register_buffer("item_degrees", torch.zeros(self.num_behaviors, self.num_items))
        self._cached: tuple[tuple[tuple[int, int], ...], GraphStates] | None = None

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):  # several follow each other without a norm, and must keep the size of a state
            init.normal_(module.weight, std=module.in_features**-0.5)

    def set_graph(self, users: Tensor, items: Tensor, behaviors: Tensor) -> None:
        """Store who met what under which behavior; meeting it again changes nothing.

        Args:
            users: A number per user, `[events]`.
            items: `[events]`.
            behaviors: `[events]`.

        Raises:
            ValueError: If an item or a behavior is not of this model.
        """
        for name, values, size in (("items", items, self.num_items), ("behaviors", behaviors, self.num_behaviors)):
            if len(values) and not 0 <= int(values.min()) <= int(values.max()) < size:
                raise ValueError(
                    f"`{name}` must be from 0 to {size - 1}, got {int(values.min())} to {int(values.max())}. Pass the "
                    "training histories of the catalog and ladder that the model was made for."
                )
        names, rows = users.unique(return_inverse=True)
        keys = ((behaviors * len(names) + rows) * self.num_items + items).unique()
        user_nodes, linked = keys // self.num_items, keys % self.num_items
        item_nodes = user_nodes // max(1, len(names)) * self.num_items + linked
        degrees = item_nodes.bincount(minlength=self.item_degrees.numel())
        self.edges = torch.stack([user_nodes, item_nodes]).to(self.edges)
        self.item_degrees.copy_(degrees.reshape(self.num_behaviors, -1))
        self.config.num_graph_users, self.config.num_edges = len(names), len(keys)
        self._cached = None

    def adjacency(self) -> Tensor:
        """Return all graphs as one block-diagonal sparse matrix, `[behaviors * users, behaviors * items]`."""
        num_rows = self.num_behaviors * self.config.num_graph_users
        return normalised_adjacency(self.edges, num_rows, self.num_behaviors * self.num_items)

    @abstractmethod
    def propagate(self) -> GraphStates:
        """Return the items' states."""

    @abstractmethod
    def user_states(self, items: Tensor, behaviors: Tensor, graph: GraphStates) -> UserStates:
        """Return the users' states after each of their items, both `[batch, length]`."""

    @abstractmethod
    def _loss(self, graph: GraphStates, users: UserStates, targets: Targets) -> Tensor:
        """Return the loss of targets, before which `users` are in these states, `[targets, ...]`."""

    @abstractmethod
    def _all_scores(self, graph: GraphStates, users: UserStates, asked: int) -> Tensor:
        """Return the scores of all items for users `[users, ...]`, `[users, items]`."""

    def _contrast(self, graph: GraphStates, users: UserStates, items: Tensor, targets: Targets) -> Tensor | float:
        """Return a further loss; `users` are the batch's, `[batch, ...]`, and `items` what they met."""
        return 0.0

    def graph_states(self) -> GraphStates:
        """Return the items' states, kept between calls as long as no weight has changed and nothing is trained."""
        if self.training or torch.is_grad_enabled():
            return self.propagate()
        key = tuple((values.data_ptr(), values._version) for values in (*self.parameters(), *self.buffers()))
        if self._cached is None or self._cached[0] != key:
            self._cached = key, self.propagate()
        return self._cached[1]

    def train(self, mode: bool = True) -> "GraphModel":
        """Switch training on or off; what was kept is dropped when it is switched on."""
        if mode:
            self._cached = None
        super().train(mode)
        return self

    def forward(
        self,
        items: Tensor,
        behaviors: Tensor,
        labels: Tensor | None = None,
        sessions: Tensor | None = None,
        times: Tensor | None = None,
    ) -> DiscriminativeOutput:
        """Return the users' states after each item, and with labels the loss.

        Args:
            items: `[batch, length]`, at most `max_history_items` without labels and one more with them.
            behaviors: `[batch, length]`.
            labels: The items that bear loss, in their own places, `[batch, length]`; -100 elsewhere. Each is predicted
                from the items before it, against one item that the row does not hold. One that has none before it
                bears no loss.
            sessions: Not read: from earlier sessions alone these models learned less (docs/log.md).
            times: Not read.

        Raises:
            ValueError: If a row is too long.
        """
        limit, graph = self.config.max_history_items, self.graph_states()
        if labels is None:
            check_length(items, limit, "A history")
            return DiscriminativeOutput(states=self.user_states(items, behaviors, graph).mixed)
        check_length(items, limit + 1, "A sample, its last target included,")
        read = max(1, items.shape[1] - 1)  # from the last item, nothing is predicted
        users = self.user_states(items[:, :read], behaviors[:, :read], graph)
        before = places_before(items >= 0)
        rows, columns = ((labels != IGNORED_LABEL) & (before >= 0)).nonzero(as_tuple=True)
        negatives = draw_negatives(items, rows, self.num_items)
        targets = Targets(behaviors[rows, columns], labels[rows, columns], negatives)
        loss = self._loss(graph, users.at(rows, before[rows, columns]), targets)
        everyone = torch.arange(len(items), device=items.device)
        last = users.at(everyone, last_places(items[:, :read] >= 0))
        return DiscriminativeOutput(loss + self._contrast(graph, last, items[:, :read], targets), users.mixed)

    def _scores(
        self, items: Tensor, behaviors: Tensor, asked: int, sessions: Tensor | None, times: Tensor | None
    ) -> Tensor:
        graph = self.graph_states()
        everyone = torch.arange(len(items), device=items.device)
        users = self.user_states(items, behaviors, graph).at(everyone, last_places(items >= 0))
        return self._all_scores(graph, users, asked)

    def _item_table(self) -> Tensor:
        """Return the items' own embeddings, once per behavior, `[behaviors, items, width]`."""
        return self._item_weights().expand(self.num_behaviors, -1, -1)


def normalised_adjacency(edges: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """Return a sparse matrix with 1 / sqrt(links of the row * links of the column) at each link.

    Args:
        edges: Rows above columns, sorted, none twice, `[2, links]`.
        num_rows: Rows of the matrix.
        num_columns: Columns of the matrix.

    Example:
        >>> edges = torch.tensor([[0, 0, 1], [0, 1, 1]])
        >>> [[round(weight, 3) for weight in row] for row in normalised_adjacency(edges, 2, 2).to_dense().tolist()]
        [[0.707, 0.5], [0.0, 0.707]]
    """
    rows, columns = edges
    links = rows.bincount(minlength=num_rows)[rows] * columns.bincount(minlength=num_columns)[columns]
    weights = links.float().rsqrt()
    return torch.sparse_coo_tensor(edges, weights, (num_rows, num_columns), is_coalesced=True, check_invariants=False)


def spread(matrix: Tensor, states: Tensor) -> Tensor:
    """Return what the nodes at the other side take, `[behaviors, others, width]`.

    Args:
        matrix: Sparse, `[behaviors * others, behaviors * nodes]`.
        states: `[behaviors, nodes, width]`.
    """
    with torch.autocast(states.device.type, enabled=False):  # there are no sparse products in half precision
        taken = torch.sparse.mm(matrix, states.float().flatten(0, 1))
    return taken.reshape(len(states), -1, states.shape[-1]).to(states)


def is_first_meeting(items: Tensor, behaviors: Tensor) -> Tensor:
    """Say where a row meets an item under a behavior for the first time, `[batch, length]` bool; pads never do.

    >>> is_first_meeting(torch.tensor([[4, 4, 4, -1]]), torch.tensor([[0, 1, 0, 0]])).tolist()
    [[True, True, False, False]]
    """
    num_behaviors = int(behaviors.max()) + 1 if behaviors.numel() else 1
    keys, order = (items * num_behaviors + behaviors).sort(dim=1, stable=True)
    is_new = torch.ones_like(keys, dtype=torch.bool)
    is_new[:, 1:] = keys[:, 1:] != keys[:, :-1]
    return torch.zeros_like(is_new).scatter(1, order, is_new) & (items >= 0)


def taken_from_history(states: Tensor, items: Tensor, behaviors: Tensor, item_degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a user with the links of a history takes from its items, after each of them.

    Args:
        states: `[behaviors, items in catalog, width]`.
        items: `[batch, length]`.
        behaviors: `[batch, length]`.
        item_degrees: `[behaviors, items in catalog]`; an item without links counts as having one.

    Returns:
        `[batch, length, behaviors, width]`, and the number of links so far, `[batch, length, behaviors]`.
    """
    known, own = items.clamp(min=0), behaviors.where(items >= 0, 0)
    weights = item_degrees.clamp(min=1).rsqrt()[own, known]
    is_linked = nn.functional.one_hot(own, len(states)) * is_first_meeting(items, own)[..., None]
    given = (states[own, known] * weights[..., None])[:, :, None] * is_linked[..., None]
    counts = is_linked.cumsum(dim=1)
    return given.cumsum(dim=1) * counts.clamp(min=1).to(states).rsqrt()[..., None], counts
