"""S-MBRec: graph convolutions per behavior, trained to rank the target behavior and to agree across behaviors.

Gu, Wang, Shi and Xiao, *Self-supervised graph neural networks for multi-behavior recommendation*, IJCAI 2022. A user's
state is a linear map of those of the behaviors, mixed by learned weights times the number of interactions; an item's is
a small network of those of all behaviors. The loss is BPR on the target behavior plus a star of contrasts: what a user
(or an item) is under the target behavior must resemble what it is under each other one. Scores are the same whatever
behavior is asked for. Differences from the paper: users are their histories (see `graph.py`); similar nodes are sought
in the batch.
"""

import warnings

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init

from .graph import GraphConfig, GraphModel, GraphStates, Targets, UserStates, spread, taken_from_history

MAX_CONTRASTED = 1024  # nodes of a batch; all pairs of them are compared


@strict
class SMBRecConfig(GraphConfig):
    """The fields of `GraphConfig` and `DiscriminativeConfig`, and three more.

    One layer here, from items to users and back, is two of LightGCN, and users add a third. `dropout` is that of the
    network that mixes an item's states.

    Args:
        contrast_weight: What the contrasts count for in the loss.
        temperature: Divides the similarities.
        num_similar: How many nodes of the batch count as positives beside a node itself: those with the largest
            pointwise mutual information, if they have anything in common at all.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> SMBRecConfig(num_items=10, num_behaviors=2).temperature
        0.2
    """

    model_type = "s-mbrec"

    dropout: float | int = 0.0
    contrast_weight: float | int = 0.1
    temperature: float | int = 0.2
    num_similar: int = 5

    def _check(self) -> None:
        super()._check()
        self._require(self.contrast_weight >= 0, "contrast_weight", "at least 0")
        self._require(self.temperature > 0, "temperature", "above 0")
        self._require(self.num_similar >= 0, "num_similar", "at least 0")


class SMBRecModel(GraphModel):
    """S-MBRec.

    Example:
        >>> import torch
        >>> model = SMBRecModel(SMBRecConfig(num_items=10, num_behaviors=2, hidden_size=8)).eval()
        >>> model.set_graph(torch.tensor([0, 0, 1]), torch.tensor([3, 5, 5]), torch.tensor([0, 1, 1]))
        >>> history = torch.tensor([[3, 5, -1]])  # two items and a pad
        >>> model.score_items(history, torch.zeros_like(history), asked_behavior=1).shape
        torch.Size([1, 10])
    """

    config_class = SMBRecConfig
    config: SMBRecConfig

    def __init__(self, config: SMBRecConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.target = self.num_behaviors - 1
        self.behavior_weights = nn.Parameter(torch.empty(self.num_behaviors))
        self.user_map = nn.Linear(width, width)
        self.item_network = nn.Sequential(
            nn.Linear(self.num_behaviors * width, width),
            nn.LeakyReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.zeros_(self.behavior_weights)

    def propagate(self) -> GraphStates:
        """Return the mean of the items' states over all layers; users take from that mean."""
        matrix = self.adjacency()
        layers = [self._item_table()]
        for _ in range(self.config.num_hidden_layers):
            layers.append(spread(matrix.t(), spread(matrix, layers[-1])))
        by_behavior = torch.stack(layers).mean(dim=0)
        mixed = self.item_network(by_behavior.transpose(0, 1).flatten(1))
        return GraphStates([by_behavior], by_behavior, mixed)

    def user_states(self, items: Tensor, behaviors: Tensor, graph: GraphStates) -> UserStates:
        """Return the users' states after each of their items, both `[batch, length]`."""
        by_behavior, counts = taken_from_history(graph.read[0], items, behaviors, self.item_degrees)
        shares = self.behavior_weights.exp() * counts
        shares = shares / shares.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
        return UserStates(by_behavior, self.user_map((shares[..., None] * by_behavior).sum(dim=-2)), counts)

    def _loss(self, graph: GraphStates, users: UserStates, targets: Targets) -> Tensor:
        """Return the mean BPR loss of the target behavior's items; 0 if there are none."""
        is_asked = targets.behaviors == self.target
        states, right, wrong = users.mixed[is_asked], targets.items[is_asked], targets.negatives[is_asked]
        margins = (states * (graph.mixed[right] - graph.mixed[wrong])).sum(dim=-1)
        return -functional.logsigmoid(margins).sum() / max(1, len(margins))

    def _contrast(self, graph: GraphStates, users: UserStates, items: Tensor, targets: Targets) -> Tensor | float:
        if self.config.contrast_weight == 0:
            return 0.0
        rows, columns = (items >= 0).nonzero(as_tuple=True)
        chosen = torch.randperm(len(items), device=items.device)[:MAX_CONTRASTED]
        of_users = self._star(
            users.by_behavior[chosen], users.counts[chosen] > 0, rows, items[rows, columns], chosen, len(items)
        )
        nodes = targets.items.unique()
        nodes = nodes[torch.randperm(len(nodes), device=nodes.device)[:MAX_CONTRASTED]]
        linked, members = self.edges[1] % self.num_items, self.edges[0] % max(1, self.config.num_graph_users)
        states, degrees = graph.by_behavior[:, nodes].transpose(0, 1), self.item_degrees[:, nodes].T
        of_items = self._star(states, degrees > 0, linked, members, nodes, self.num_items)
        return self.config.contrast_weight * (of_users + of_items)

    def _star(
        self, states: Tensor, is_known: Tensor, owners: Tensor, members: Tensor, nodes: Tensor, num_owners: int
    ) -> Tensor:
        """Return the sum over the other behaviors of the contrast with the target behavior.

        Args:
            states: `[nodes, behaviors, width]`.
            is_known: Whether a node has links under a behavior, `[nodes, behaviors]`.
            owners: Of all links that tell how similar nodes are, the one side, `[links]`.
            members: The other side, `[links]`.
            nodes: Which owners the nodes are, `[nodes]`.
            num_owners: Owners are numbered below this.
        """
        total = states.sum() * 0.0
        information = mutual_information(owners, members, nodes, num_owners)
        for behavior in range(self.target):
            is_both = is_known[:, behavior] & is_known[:, self.target]
            is_positive = similar_nodes(information[is_both][:, is_both], self.config.num_similar)
            chosen = states[is_both]
            total = total + info_nce(
                chosen[:, self.target], chosen[:, behavior], is_positive, float(self.config.temperature)
            )
        return total

    def _all_scores(self, graph: GraphStates, users: UserStates, asked: int) -> Tensor:
        return users.mixed @ graph.mixed.T


@torch.no_grad()
def mutual_information(owners: Tensor, members: Tensor, nodes: Tensor, num_owners: int) -> Tensor:
    """Return the pointwise mutual information of each two nodes, `[nodes, nodes]`, -inf if they have nothing in common.

    A node's probability is its share of all members; that of two nodes is the share that both have.

    Args:
        owners: `[links]`.
        members: What each owner has, `[links]`; a pair that stands there again counts once.
        nodes: Different owners, `[nodes]`.
        num_owners: Owners are numbered below this.

    Example:
        >>> owners, members = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 3])
        >>> mutual_information(owners, members, torch.tensor([0, 1, 2]), 3).exp()[0].tolist()  # of 4 members
        [2.0, 2.0, 0.0]
    """
    places = torch.full((num_owners,), -1, device=nodes.device)
    places[nodes] = torch.arange(len(nodes), device=nodes.device)
    is_chosen = places[owners] >= 0
    num_members = int(members.max()) + 1 if len(members) else 1
    keys = (places[owners[is_chosen]] * num_members + members[is_chosen]).unique()
    links = torch.stack([keys // num_members, keys % num_members])
    ones, size = torch.ones(len(keys), device=nodes.device), (len(nodes), num_members)
    table = torch.sparse_coo_tensor(links, ones, size, is_coalesced=True, check_invariants=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # which the product uses inside
        together = torch.sparse.mm(table, table.t()).to_dense()
    counts = links[0].bincount(minlength=len(nodes)).to(together)
    expected = counts[:, None] * counts[None, :] / num_members
    return (together / expected.clamp(min=torch.finfo(together.dtype).tiny)).log()


def similar_nodes(information: Tensor, num_similar: int) -> Tensor:
    """Return which nodes are positives of which, `[nodes, nodes]` bool: each of itself, and of its most similar ones.

    Args:
        information: `[nodes, nodes]`, -inf for what can be no positive.
        num_similar: How many beside itself.
    """
    itself = torch.eye(len(information), dtype=torch.bool, device=information.device)
    others = information.masked_fill(itself, -torch.inf)
    best = others.topk(min(num_similar, len(others)), dim=1).indices
    is_best = torch.zeros_like(itself).scatter(1, best, True)
    return itself | (is_best & others.isfinite())


def info_nce(anchors: Tensor, others: Tensor, is_positive: Tensor, temperature: float) -> Tensor:
    """Return the mean over anchors of `-log(sum over positives of exp(s) / sum over all of exp(s))`.

    Args:
        anchors: `[nodes, width]`.
        others: `[nodes, width]`; s is the cosine of an anchor and one of these, over the temperature.
        is_positive: `[nodes, nodes]` bool, at least one in each row.
        temperature: Above 0.
    """
    if len(anchors) == 0:
        return anchors.sum() * 0.0
    similarities = functional.normalize(anchors, dim=-1) @ functional.normalize(others, dim=-1).T / temperature
    positives = similarities.masked_fill(~is_positive, -torch.inf)
    return (similarities.logsumexp(dim=1) - positives.logsumexp(dim=1)).mean()
