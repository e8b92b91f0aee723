"""MB-GMN: message passing and prediction with weights made from what is known of a node under a behavior.

Xia, Xu, Huang, Dai and Bo, *Graph meta network for multi-behavior recommendation*, SIGIR 2021. The meta knowledge of a
node under a behavior is what its neighbours send, its own state and the behavior's embedding; from it comes a low-rank
map for what the node sends. What arrives under the behaviors is related by attention and mixed; layers are summed. The
prediction network's weights come from user, item and behavior too. The loss is a pairwise hinge, over all behaviors.
Differences from the paper: users are their histories (see `graph.py`), with the mean over behaviors of what they take
from the items' own embeddings as their first state; the network that makes the prediction's weights is linear.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional

from .graph import GraphConfig, GraphModel, GraphStates, Targets, UserStates, spread, taken_from_history

PAIRS_PER_CHUNK = 1 << 20  # with 16 numbers each, 64 MB of float32


@strict
class MBGMNConfig(GraphConfig):
    """The fields of `GraphConfig` and `DiscriminativeConfig`, and three more. `dropout` is that of messages.

    Args:
        rank: Inner width of the maps made from meta knowledge.
        num_attention_heads: Heads of the attention over behaviors; must divide `hidden_size`.
        margin: How much better than a wrong item the right one must be.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> MBGMNConfig(num_items=10, num_behaviors=2).hidden_size
        16
    """

    model_type = "mb-gmn"

    hidden_size: int = 16
    dropout: float | int = 0.0
    num_hidden_layers: int = 2
    rank: int = 4
    num_attention_heads: int = 2
    margin: float | int = 1.0

    def _check(self) -> None:
        super()._check()
        self._require(self.rank >= 1, "rank", "at least 1")
        self._require(self.num_attention_heads >= 1, "num_attention_heads", "at least 1")
        self._require(self.margin > 0, "margin", "above 0")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads`, got {self.hidden_size} and "
                f"{self.num_attention_heads}."
            )


class MBGMNModel(GraphModel):
    """MB-GMN.

    Example:
        >>> import torch
        >>> model = MBGMNModel(MBGMNConfig(num_items=10, num_behaviors=2, hidden_size=8)).eval()
        >>> model.set_graph(torch.tensor([0, 0, 1]), torch.tensor([3, 5, 5]), torch.tensor([0, 1, 1]))
        >>> history = torch.tensor([[3, 5, -1]])  # two items and a pad
        >>> model.score_items(history, torch.zeros_like(history), asked_behavior=1).shape
        torch.Size([1, 10])
    """

    config_class = MBGMNConfig
    config: MBGMNConfig
    layers: Any  # a list of MBGMNLayer

    def __init__(self, config: MBGMNConfig) -> None:
        super().__init__(config)
        self.behavior_embeddings = nn.Embedding(self.num_behaviors, config.hidden_size)
        self.layers = nn.ModuleList(MBGMNLayer(config) for _ in range(config.num_hidden_layers))
        self.prediction = MetaPrediction(config)
        self.post_init()

    def propagate(self) -> GraphStates:
        """Return the items' states; users take the first embeddings, and then each layer's messages."""
        matrix, behaviors, table = self.adjacency(), self.behavior_embeddings.weight, self._item_table()
        items, users = table[0], spread(matrix, table).mean(dim=0)
        read, total = [table], items
        for layer in self.layers:
            near_items = spread(matrix.t(), users.expand(self.num_behaviors, -1, -1)).transpose(0, 1)
            near_users = spread(matrix, items.expand(self.num_behaviors, -1, -1)).transpose(0, 1)
            by_items = layer.messages(items, near_items, behaviors).transpose(0, 1)
            by_users = layer.messages(users, near_users, behaviors).transpose(0, 1)
            by_behavior, items = layer.mix(items, spread(matrix.t(), by_users).transpose(0, 1))
            _, users = layer.mix(users, spread(matrix, by_items).transpose(0, 1))
            read.append(by_items)
            total = total + items
        return GraphStates(read, by_behavior.transpose(0, 1), total)

    def user_states(self, items: Tensor, behaviors: Tensor, graph: GraphStates) -> UserStates:
        """Return the users' states after each of their items, both `[batch, length]`."""
        taken, counts = taken_from_history(graph.read[0], items, behaviors, self.item_degrees)
        states = taken.mean(dim=-2)
        total = states
        for layer, messages in zip(self.layers, graph.read[1:], strict=True):
            taken, _ = taken_from_history(messages, items, behaviors, self.item_degrees)
            by_behavior, states = layer.mix(states, taken)
            total = total + states
        return UserStates(by_behavior, total, counts)

    def _loss(self, graph: GraphStates, users: UserStates, targets: Targets) -> Tensor:
        """Return the sum over behaviors of the mean hinge loss of their targets; 0 if there are none."""
        own = users.by_behavior[torch.arange(len(targets.items), device=targets.items.device), targets.behaviors]
        asked = self.behavior_embeddings(targets.behaviors)
        scores = [
            self.prediction(users.mixed, own, graph.mixed[items], graph.by_behavior[targets.behaviors, items], asked)
            for items in (targets.items, targets.negatives)
        ]
        losses = functional.relu(self.config.margin - scores[0] + scores[1])
        return (losses / targets.behaviors.bincount()[targets.behaviors]).sum()

    def _all_scores(self, graph: GraphStates, users: UserStates, asked: int) -> Tensor:
        behavior, own = self.behavior_embeddings.weight[asked], users.by_behavior[:, asked]
        chunk = max(1, PAIRS_PER_CHUNK // max(1, len(own)))
        items = zip(graph.mixed.split(chunk), graph.by_behavior[asked].split(chunk), strict=True)
        parts = [self.prediction.of_all_pairs(users.mixed, own, *part, behavior) for part in items]
        return torch.cat(parts, dim=1)


class MBGMNLayer(nn.Module):
    """What nodes send, and what they make of what they take (the paper's sections 3.1 and 3.2)."""

    def __init__(self, config: MBGMNConfig) -> None:
        super().__init__()
        width, self.num_heads = config.hidden_size, config.num_attention_heads
        self.transform = MetaTransform(width, config.rank)
        self.dropout = nn.Dropout(config.dropout)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mixing = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, 1, bias=False))

    def messages(self, states: Tensor, neighbours: Tensor, behaviors: Tensor) -> Tensor:
        """Return what each node sends under each behavior, `[nodes, behaviors, width]`.

        Args:
            states: `[nodes, width]`.
            neighbours: What the node's neighbours are, `[nodes, behaviors, width]`.
            behaviors: Embeddings, `[behaviors, width]`.
        """
        return self.dropout(self.transform(states, neighbours, behaviors))

    def mix(self, states: Tensor, taken: Tensor) -> tuple[Tensor, Tensor]:
        """Return nodes' next states, under each behavior `[..., behaviors, width]` and all in one `[..., width]`.

        Args:
            states: `[..., width]`.
            taken: What arrived under each behavior, `[..., behaviors, width]`.
        """
        smoothed = states[..., None, :] + functional.leaky_relu(taken)
        related = smoothed + self._attended(smoothed)
        shares = self.mixing(related).softmax(dim=-2)
        return related, (shares * related).sum(dim=-2)

    def _attended(self, states: Tensor) -> Tensor:
        """Return what each behavior's state takes from those of all behaviors, `[..., behaviors, width]`."""
        heads = self.attention_in(states).unflatten(-1, (3, self.num_heads, -1)).flatten(0, -5)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # [nodes, heads, behaviors, width of a head]
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        return self.attention_out(mixed.transpose(1, 2).reshape(states.shape))


class MetaTransform(nn.Module):
    """A low-rank map per node and behavior, made from the node's meta knowledge (the paper's section 3.1)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.width, self.rank = width, rank
        self.weights = nn.Linear(3 * width, 2 * rank * width)

    def forward(self, states: Tensor, neighbours: Tensor, behaviors: Tensor) -> Tensor:
        """Return `V2 V1 state` under each behavior, `[nodes, behaviors, width]`; arguments as in `messages`."""
        own = states[:, None].expand_as(neighbours)
        knowledge = torch.cat([behaviors.expand_as(neighbours), own, neighbours], dim=-1)
        down, up = self.weights(knowledge).unflatten(-1, (2, self.rank, self.width)).unbind(2)
        inner = (down * own[:, :, None]).sum(dim=-1, keepdim=True)  # [nodes, behaviors, rank, 1]
        return (up * inner).sum(dim=-2)


class MetaPrediction(nn.Module):
    """The score of a user and an item, by a network whose weights follow from both and from the behavior.

    With p the product of their states, the score is `(1 + z) (LeakyReLU(V p + b) + p)`: near the inner product while
    the weights are small. V, b and z are linear in the meta knowledge of the three, and so sums of a user's, an item's
    and a behavior's part; no pair needs weights of its own.
    """

    def __init__(self, config: MBGMNConfig) -> None:
        super().__init__()
        self.width = config.hidden_size
        size = self.width * (self.width + 2)
        self.from_user = nn.Linear(self.width, size, bias=False)
        self.from_item = nn.Linear(self.width, size, bias=False)
        self.from_behavior = nn.Linear(self.width, size)

    def forward(self, users: Tensor, users_own: Tensor, items: Tensor, items_own: Tensor, behaviors: Tensor) -> Tensor:
        """Return the score of each pair, `[pairs]`.

        Args:
            users: Mixed states, `[pairs, width]`.
            users_own: States under the asked behavior, `[pairs, width]`.
            items: `[pairs, width]`.
            items_own: `[pairs, width]`.
            behaviors: The asked behavior's embedding, `[pairs, width]`.
        """
        weights = self.from_user(users_own) + self.from_item(items_own) + self.from_behavior(behaviors)
        maps, bias, output = self._split(weights)
        products = users * items
        hidden = functional.leaky_relu((maps * products[:, None]).sum(dim=-1) + bias) + products
        return ((1 + output) * hidden).sum(dim=-1)

    def of_all_pairs(
        self, users: Tensor, users_own: Tensor, items: Tensor, items_own: Tensor, behavior: Tensor
    ) -> Tensor:
        """Return the score of each user and each item, `[users, items]`, of states as in `forward`.

        Args:
            users: `[users, width]`.
            users_own: `[users, width]`.
            items: `[items, width]`.
            items_own: `[items, width]`.
            behavior: `[width]`.
        """
        user_maps, user_bias, user_output = self._split(self.from_user(users_own) + self.from_behavior(behavior))
        item_maps, item_bias, item_output = self._split(self.from_item(items_own))
        products = users[:, None] * items  # [users, items, width]
        by_item = torch.bmm(products.transpose(0, 1), item_maps.transpose(1, 2)).transpose(0, 1)
        mapped = torch.bmm(products, user_maps.transpose(1, 2)) + by_item
        hidden = functional.leaky_relu(mapped + user_bias[:, None] + item_bias) + products
        return torch.einsum("uiw,uw->ui", hidden, 1 + user_output) + torch.einsum("uiw,iw->ui", hidden, item_output)

    def _split(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return V `[rows, width, width]`, b and z `[rows, width]` from weights `[rows, width * (width + 2)]`."""
        maps, bias, output = weights.split([self.width**2, self.width, self.width], dim=-1)
        return maps.unflatten(-1, (self.width, self.width)), bias, output
