"""S-MBRec against LightGCN by dense matrices, and its losses by hand."""

import math

import pytest
import torch

from genrec.models.discriminative import SMBRecConfig, SMBRecModel
from genrec.models.discriminative.graph import Targets, UserStates
from genrec.models.discriminative.smbrec import info_nce, mutual_information, similar_nodes

from .conftest import NUM_BEHAVIORS, NUM_ITEMS, draw_histories
from .graph_oracles import dense_graphs, last_states, training_histories


@torch.no_grad()
@pytest.mark.parametrize("num_layers", [1, 2])
def test_propagation_is_lightgcn_without_user_embeddings(num_layers, make_model):
    """Over users and items at once: items change in even layers only, users are met in odd ones."""
    model = make_model(SMBRecModel, num_hidden_layers=num_layers)
    graph, states = model.graph_states(), last_states(model, training_histories())
    for behavior, dense in enumerate(dense_graphs()):
        num_users = len(dense)
        square = torch.zeros(num_users + NUM_ITEMS, num_users + NUM_ITEMS)
        square[:num_users, num_users:], square[num_users:, :num_users] = dense, dense.T
        layer = torch.cat([torch.zeros(num_users, 16), model.item_embeddings.weight[1:]])
        total = layer.clone()
        for _ in range(2 * num_layers + 1):
            layer = square @ layer
            total += layer
        expected = total / (num_layers + 1)
        # The last layer reaches users only: items would get nothing but from users' zero embeddings in it.
        torch.testing.assert_close(graph.by_behavior[behavior], expected[num_users:], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(states.by_behavior[:, behavior], expected[:num_users], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_user_is_mixed_by_weights_times_counts_and_an_item_by_a_network(make_model):
    model = make_model(SMBRecModel)
    model.behavior_weights.copy_(torch.tensor([0.0, math.log(2), math.log(3)]))
    items, behaviors = torch.tensor([[1, 2, 2, 5, 7]]), torch.tensor([[0, 0, 0, 1, 0]])
    users = last_states(model, {"items": items, "behaviors": behaviors})
    by_behavior = users.by_behavior[0]
    assert users.counts.tolist() == [[3, 1, 0]]
    torch.testing.assert_close(users.mixed[0], model.user_map((3 * by_behavior[0] + 2 * by_behavior[1]) / 5))
    graph = model.graph_states()
    expected = model.item_network(torch.cat(list(graph.by_behavior[:, 4])))
    torch.testing.assert_close(graph.mixed[4], expected)
    scores = [model.score_items(items, behaviors, asked_behavior=asked)[0] for asked in range(NUM_BEHAVIORS)]
    torch.testing.assert_close(scores[0], graph.mixed @ users.mixed[0])
    assert torch.equal(scores[0], scores[2])


@torch.no_grad()
def test_only_the_target_behaviors_items_bear_the_ranking_loss(make_model):
    model = make_model(SMBRecModel)
    graph, users = model.graph_states(), last_states(model, draw_histories([5, 2, 4]))
    targets = Targets(torch.tensor([2, 0, 2]), torch.tensor([3, 4, 11]), torch.tensor([7, 0, 2]))
    expected = 0.0
    for row in (0, 2):
        margin = users.mixed[row] @ (graph.mixed[targets.items[row]] - graph.mixed[targets.negatives[row]])
        expected += math.log(1 + math.exp(-float(margin))) / 2
    assert float(model._loss(graph, users, targets)) == pytest.approx(expected, rel=1e-4)
    none = Targets(*(part[1:2] for part in targets))
    assert float(model._loss(graph, UserStates(*(part[1:2] for part in users)), none)) == 0.0


def test_info_nce_by_hand():
    anchors, others = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    # Cosines are those of the axes: 1 with itself, 0 with the other; over the temperature 2 and 0.
    expected = -math.log(math.exp(2) / (math.exp(2) + 1))
    assert float(info_nce(anchors, others, torch.eye(2).bool(), 0.5)) == pytest.approx(expected)
    assert float(info_nce(anchors, others, torch.ones(2, 2).bool(), 0.5)) == pytest.approx(0.0, abs=1e-6)
    one_more = torch.tensor([[True, True], [False, True]])
    assert float(info_nce(anchors, others, one_more, 0.5)) == pytest.approx(expected / 2)
    assert float(info_nce(anchors[:0], others[:0], torch.ones(0, 0).bool(), 0.5)) == 0.0


def test_mutual_information_is_that_of_sets():
    generator = torch.Generator().manual_seed(0)
    owners = torch.randint(8, (30,), generator=generator)
    members = torch.randint(10, (30,), generator=generator)
    nodes = torch.tensor([6, 0, 3, 5, 1])
    got = mutual_information(owners, members, nodes, 8)
    total = int(members.max()) + 1
    sets = [{int(m) for o, m in zip(owners, members) if o == node} for node in nodes]
    for i, first in enumerate(sets):
        for j, second in enumerate(sets):
            both = len(first & second)
            if both == 0:
                assert got[i, j] == -torch.inf
            else:
                expected = math.log((both / total) / (len(first) / total * len(second) / total))
                assert float(got[i, j]) == pytest.approx(expected, abs=1e-5)


def test_positives_are_the_node_itself_and_its_most_similar_ones_if_it_has_any():
    inf = float("inf")
    information = torch.tensor([[9.0, 1.0, 2.0, 0.5], [1.0, 9.0, -inf, -inf], [2.0, -inf, 9.0, 3.0], [-inf] * 4])
    assert similar_nodes(information, 1).int().tolist() == [[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert similar_nodes(information, 2).int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 1]]
    assert torch.equal(similar_nodes(information, 0), torch.eye(4).bool())
    assert similar_nodes(information, 9).sum() == 4 + 3 + 1 + 2


@torch.no_grad()
def test_the_contrast_is_a_star_around_the_target_behavior_among_nodes_that_have_both(make_model):
    model = make_model(SMBRecModel, num_similar=0, contrast_weight=0.5, temperature=0.3)
    batch = draw_histories([7, 6, 1, 7, 5, 7, 7, 6])
    graph, users = model.graph_states(), last_states(model, batch)
    targets = Targets(*(torch.tensor(values) for values in ([0] * 13, [*range(12), 4], [1] * 13)))
    expected = 0.0
    nodes = torch.arange(12)
    for states, known in (
        (users.by_behavior, users.counts > 0),
        (graph.by_behavior[:, nodes].transpose(0, 1), model.item_degrees[:, nodes].T > 0),
    ):
        for auxiliary in (0, 1):
            both = [node for node in range(len(states)) if known[node, 2] and known[node, auxiliary]]
            assert len(both) > 1
            for node in both:
                similarities = [
                    torch.cosine_similarity(states[node, 2], states[other, auxiliary], dim=0) / 0.3 for other in both
                ]
                own = similarities[both.index(node)]
                expected += float(torch.stack(similarities).logsumexp(dim=0) - own) / len(both)
    assert float(model._contrast(graph, users, batch["items"], targets)) == pytest.approx(0.5 * expected, rel=1e-4)
    assert make_model(SMBRecModel, contrast_weight=0)._contrast(graph, users, batch["items"], targets) == 0


def test_training_makes_behaviors_agree(make_model):
    batch = draw_histories([8] * 12)
    losses = {}
    for weight in (0.0, 2.0):
        model = make_model(SMBRecModel, contrast_weight=weight, num_similar=0).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(30):
            loss = model(batch["items"], batch["behaviors"], labels=batch["items"]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        users = last_states(model.eval(), batch)
        states = users.by_behavior[(users.counts > 0).all(dim=1)]
        itself = torch.eye(len(states)).bool()
        losses[weight] = float(info_nce(states[:, 2], states[:, 0], itself, 0.2).detach())
    assert losses[2.0] < 0.9 * losses[0.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0}, "`temperature` must be above 0, got 0"),
        ({"contrast_weight": -1}, "`contrast_weight` must be at least 0, got -1"),
        ({"num_similar": -1}, "`num_similar` must be at least 0, got -1"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SMBRecConfig(**fields)
