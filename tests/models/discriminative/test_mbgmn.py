"""MB-GMN against its equations, node by node and pair by pair, and its users against those of the stored graph."""

import math

import pytest
import torch
from torch.nn import functional

from genrec.models.discriminative import MBGMNConfig, MBGMNModel, mbgmn
from genrec.models.discriminative.graph import Targets

from .conftest import NUM_BEHAVIORS, NUM_ITEMS, draw_histories
from .graph_oracles import dense_graphs, last_states, training_histories

WIDTH, RANK, HEADS = 16, 4, 2


@pytest.fixture
def model(make_model):
    return make_model(MBGMNModel, num_hidden_layers=2)


def test_a_message_goes_through_the_low_rank_map_that_meta_knowledge_makes(model):
    transform = model.layers[0].transform
    states, neighbours = torch.randn(5, WIDTH), torch.randn(5, NUM_BEHAVIORS, WIDTH)
    behaviors = torch.randn(NUM_BEHAVIORS, WIDTH)
    got = transform(states, neighbours, behaviors)
    for node in range(5):
        for behavior in range(NUM_BEHAVIORS):
            knowledge = torch.cat([behaviors[behavior], states[node], neighbours[node, behavior]])
            weights = transform.weights.weight @ knowledge + transform.weights.bias
            inner = weights[: RANK * WIDTH].reshape(RANK, WIDTH) @ states[node]
            expected = weights[RANK * WIDTH :].reshape(RANK, WIDTH).T @ inner
            torch.testing.assert_close(got[node, behavior], expected, atol=1e-5, rtol=1e-4)


def test_behaviors_are_related_by_attention_and_mixed_by_shares(model):
    layer = model.layers[0]
    states, taken = torch.randn(4, 2, WIDTH), torch.randn(4, 2, NUM_BEHAVIORS, WIDTH)
    by_behavior, mixed = layer.mix(states, taken)
    size = WIDTH // HEADS
    for row in range(4):
        smoothed = states[row, 1] + functional.leaky_relu(taken[row, 1])
        queries, keys, values = layer.attention_in(smoothed).split(WIDTH, dim=-1)
        parts = []
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            weights = (queries[:, own] @ keys[:, own].T / math.sqrt(size)).softmax(dim=-1)
            parts.append(weights @ values[:, own])
        related = smoothed + layer.attention_out(torch.cat(parts, dim=-1))
        torch.testing.assert_close(by_behavior[row, 1], related, atol=1e-5, rtol=1e-4)
        logits = torch.stack([layer.mixing(one)[0] for one in related])
        expected = sum(share * one for share, one in zip(logits.softmax(dim=0), related))
        torch.testing.assert_close(mixed[row, 1], expected, atol=1e-5, rtol=1e-4)


def naive_propagation(model, dense):
    """All states by dense matrices: mixed and per behavior, of items and of the stored users."""
    items, behaviors = model.item_embeddings.weight[1:], model.behavior_embeddings.weight
    users = sum(graph @ items for graph in dense) / NUM_BEHAVIORS
    totals = [items, users]
    for layer in model.layers:
        near_items = torch.stack([graph.T @ users for graph in dense], dim=1)
        near_users = torch.stack([graph @ items for graph in dense], dim=1)
        by_items = layer.transform(items, near_items, behaviors)
        by_users = layer.transform(users, near_users, behaviors)
        to_items = torch.stack([graph.T @ by_users[:, b] for b, graph in enumerate(dense)], dim=1)
        to_users = torch.stack([graph @ by_items[:, b] for b, graph in enumerate(dense)], dim=1)
        items_own, items = layer.mix(items, to_items)
        users_own, users = layer.mix(users, to_users)
        totals = [totals[0] + items, totals[1] + users]
    return totals[0], items_own, totals[1], users_own


@torch.no_grad()
def test_propagation_is_that_of_dense_matrices_and_a_history_is_the_stored_user(model):
    items, items_own, users, users_own = naive_propagation(model, dense_graphs())
    graph = model.graph_states()
    torch.testing.assert_close(graph.mixed, items, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(graph.by_behavior.transpose(0, 1), items_own, atol=1e-4, rtol=1e-4)
    states = last_states(model, training_histories())
    torch.testing.assert_close(states.mixed, users, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states.by_behavior, users_own, atol=1e-4, rtol=1e-4)


def naive_score(model, user, user_own, item, item_own, behavior):
    """The score of one pair, its weights cut out of the sum of three parts."""
    prediction = model.prediction
    weights = (
        prediction.from_user.weight @ user_own
        + prediction.from_item.weight @ item_own
        + prediction.from_behavior.weight @ model.behavior_embeddings.weight[behavior]
        + prediction.from_behavior.bias
    )
    maps, bias, output = weights[: WIDTH**2].reshape(WIDTH, WIDTH), weights[WIDTH**2 : -WIDTH], weights[-WIDTH:]
    product = user * item
    return (1 + output) @ (functional.leaky_relu(maps @ product + bias) + product)


@torch.no_grad()
@pytest.mark.parametrize("pairs_per_chunk", [1, 7, 1 << 20])
def test_all_scores_are_those_of_single_pairs(model, pairs_per_chunk, monkeypatch):
    monkeypatch.setattr(mbgmn, "PAIRS_PER_CHUNK", pairs_per_chunk)
    batch, graph = draw_histories([5, 2, 4]), model.graph_states()
    users = last_states(model, batch)
    scores = model.score_items(**batch, asked_behavior=1)
    for row in range(3):
        for item in range(NUM_ITEMS):
            pair = users.mixed[row], users.by_behavior[row, 1], graph.mixed[item], graph.by_behavior[1, item]
            torch.testing.assert_close(scores[row, item], naive_score(model, *pair, 1), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_the_loss_is_the_sum_over_behaviors_of_their_mean_hinges(model):
    graph, users = model.graph_states(), last_states(model, draw_histories([5, 2, 4]))
    targets = Targets(torch.tensor([0, 2, 0]), torch.tensor([3, 4, 11]), torch.tensor([7, 0, 2]))
    expected = 0.0
    for row, (behavior, right, wrong) in enumerate(zip(*(part.tolist() for part in targets))):
        user = users.mixed[row], users.by_behavior[row, behavior]
        score, other = (
            naive_score(model, *user, graph.mixed[item], graph.by_behavior[behavior, item], behavior)
            for item in (right, wrong)
        )
        expected += max(0.0, 1.0 - float(score) + float(other)) / (2 if behavior == 0 else 1)
    assert float(model._loss(graph, users, targets)) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_asked_behavior_counts(model):
    batch = draw_histories([5])
    scores = [model.score_items(**batch, asked_behavior=asked) for asked in range(NUM_BEHAVIORS)]
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)
    assert not torch.allclose(scores[1], scores[2], atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "`rank` must be at least 1, got 0"),
        ({"margin": 0}, "`margin` must be above 0, got 0"),
        ({"num_attention_heads": 0}, "`num_attention_heads` must be at least 1, got 0"),
        ({"num_attention_heads": 3}, "`hidden_size` must be a multiple of `num_attention_heads`, got 16 and 3"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MBGMNConfig(**fields)
