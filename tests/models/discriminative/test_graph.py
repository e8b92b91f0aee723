"""The graphs, against arithmetic by hand and dense matrices; users who are their histories; two clusters."""

import math

import pytest
import torch

from genrec.models.discriminative import GraphModel, MBGMNModel, SMBRecModel
from genrec.models.discriminative.graph import (
    is_first_meeting,
    normalised_adjacency,
    spread,
    taken_from_history,
)

from .conftest import NUM_BEHAVIORS, NUM_ITEMS, draw_events, draw_histories
from .graph_oracles import dense_graphs

GRAPH_MODELS = [MBGMNModel, SMBRecModel]


def test_a_link_weighs_one_over_the_root_of_both_degrees():
    edges = torch.tensor([[0, 0, 0, 1], [0, 1, 3, 1]])
    expected = [[1 / math.sqrt(3), 1 / math.sqrt(6), 0, 1 / math.sqrt(3)], [0, 1 / math.sqrt(2), 0, 0]]
    torch.testing.assert_close(normalised_adjacency(edges, 2, 4).to_dense(), torch.tensor(expected))


@pytest.mark.parametrize("kind", GRAPH_MODELS)
def test_the_stored_graphs_are_those_of_the_events_one_block_per_behavior(kind, make_model):
    model = make_model(kind)
    expected = dense_graphs()
    assert len(draw_events(NUM_ITEMS, NUM_BEHAVIORS)[0]) > int((expected > 0).sum())  # some were met again
    torch.testing.assert_close(model.adjacency().to_dense(), torch.block_diag(*expected))
    torch.testing.assert_close(model.item_degrees, (expected > 0).sum(dim=1).float())
    model.set_graph(*(part[:0] for part in draw_events(NUM_ITEMS, NUM_BEHAVIORS)))
    assert model.edges.shape == (2, 0)
    assert model.adjacency().shape == (0, NUM_BEHAVIORS * NUM_ITEMS)
    assert torch.isfinite(model.score_items(**draw_histories([3]), asked_behavior=0)).all()


@pytest.mark.parametrize(
    ("name", "place", "value"), [("items", 1, NUM_ITEMS), ("items", 1, -1), ("behaviors", 2, NUM_BEHAVIORS)]
)
def test_events_of_another_catalog_or_ladder_are_refused(name, place, value, make_model):
    events = [part.clone() for part in draw_events(NUM_ITEMS, NUM_BEHAVIORS)]
    events[place][7] = value
    with pytest.raises(ValueError, match=f"`{name}` must be from 0 to"):
        make_model(SMBRecModel).set_graph(*events)


def test_spreading_is_a_product_per_behavior_and_passes_gradients():
    dense = dense_graphs()
    states = torch.randn(NUM_BEHAVIORS, NUM_ITEMS, 4, dtype=torch.float32, requires_grad=True)
    matrix = torch.block_diag(*dense).to_sparse_coo()
    torch.testing.assert_close(spread(matrix, states), dense @ states)
    received = torch.randn(dense.shape[0], dense.shape[1], 4)
    (spread(matrix, states) * received).sum().backward()
    torch.testing.assert_close(states.grad, dense.transpose(1, 2) @ received)
    back = spread(matrix.t(), received)
    torch.testing.assert_close(back, dense.transpose(1, 2) @ received)


def test_an_item_counts_once_per_behavior_wherever_pads_are():
    items = torch.tensor([[3, 3, 5, 3, -1], [-1, 0, 0, 7, 0]])
    behaviors = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 1, 1]])
    assert is_first_meeting(items, behaviors).tolist() == [
        [True, True, True, False, False],
        [False, True, False, True, True],
    ]
    assert is_first_meeting(items[:, :0], behaviors[:, :0]).shape == (2, 0)


def test_what_a_history_gives_is_its_row_of_the_graph_after_each_item():
    batch, degrees = draw_histories([6, 3]), torch.randint(0, 4, (NUM_BEHAVIORS, NUM_ITEMS)).float()
    states = torch.randn(NUM_BEHAVIORS, NUM_ITEMS, 4)
    taken, counts = taken_from_history(states, batch["items"], batch["behaviors"], degrees)
    for row, length in enumerate([6, 3]):
        for end in range(length):
            for behavior in range(NUM_BEHAVIORS):
                seen = [
                    item
                    for item, own in zip(batch["items"][row, : end + 1].tolist(), batch["behaviors"][row].tolist())
                    if own == behavior
                ]
                expected = torch.zeros(4)
                for item in set(seen):
                    expected += states[behavior, item] / math.sqrt(len(set(seen)) * max(1, degrees[behavior, item]))
                torch.testing.assert_close(taken[row, end, behavior], expected)
                assert counts[row, end, behavior] == len(set(seen))


@pytest.mark.parametrize("kind", GRAPH_MODELS)
def test_a_history_is_a_set_under_each_behavior(kind, make_model):
    """The order of a history, meeting an item again, and sessions and times change nothing; behaviors do."""
    model, batch = make_model(kind), draw_histories([6])
    scores = model.score_items(**batch, asked_behavior=2)
    for order in (torch.arange(6).flip(0), torch.tensor([3, 1, 2, 0, 5, 4]), torch.tensor([0, 1, 2, 3, 4, 5, 5, 0])):
        shuffled = {name: values[:, order] for name, values in batch.items()}
        shuffled |= {"sessions": batch["sessions"] + 9, "times": None}
        torch.testing.assert_close(model.score_items(**shuffled, asked_behavior=2), scores, atol=1e-5, rtol=1e-4)
    other = {**batch, "behaviors": (batch["behaviors"] + 1) % NUM_BEHAVIORS}
    assert not torch.allclose(model.score_items(**other, asked_behavior=2), scores, atol=1e-3)


@pytest.mark.parametrize("kind", GRAPH_MODELS)
def test_no_later_item_is_part_of_a_state(kind, make_model):
    model, batch = make_model(kind), draw_histories([6])
    states = model(batch["items"], batch["behaviors"]).states
    changed = batch["items"].clone()
    changed[0, 4:] = (changed[0, 4:] + 1) % NUM_ITEMS
    other = model(changed, batch["behaviors"]).states
    torch.testing.assert_close(other[0, :4], states[0, :4])
    assert not torch.allclose(other[0, 4:], states[0, 4:], atol=1e-4)


@pytest.mark.parametrize("kind", GRAPH_MODELS)
def test_what_is_kept_between_calls_is_dropped_when_a_weight_or_the_graph_changes(kind, make_model, monkeypatch):
    model, batch, calls = make_model(kind), draw_histories([4]), []
    propagate = model.propagate
    monkeypatch.setattr(model, "propagate", lambda: calls.append(1) or propagate())
    scores = [model.score_items(**batch, asked_behavior=2) for _ in range(3)]
    assert len(calls) == 1
    with torch.no_grad():
        model.item_embeddings.weight.mul_(1.5)
    scores.append(model.score_items(**batch, asked_behavior=2))
    model.set_graph(*(part[:9] for part in draw_events(NUM_ITEMS, NUM_BEHAVIORS)))
    scores.append(model.score_items(**batch, asked_behavior=2))
    model.train()
    model(batch["items"], batch["behaviors"])
    assert len(calls) == 4
    assert torch.equal(scores[0], scores[2])
    assert not torch.allclose(scores[2], scores[3], atol=1e-3)
    assert not torch.allclose(scores[3], scores[4], atol=1e-3)


@pytest.mark.parametrize("kind", GRAPH_MODELS)
def test_no_targets_give_a_loss_of_zero(kind, make_model):
    model, batch = make_model(kind).train(), draw_histories([1, 1])
    loss = model(**batch, labels=torch.full_like(batch["items"], -100)).loss
    loss.backward()
    assert torch.isfinite(loss)
    if kind is MBGMNModel:
        assert float(loss.detach()) == 0.0


def two_clusters(num_users: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Users of even number meet some of the 12 even items, the others odd ones; `[users, 6]` items and behaviors."""
    drawn = torch.stack([torch.randperm(12)[:6] for _ in range(num_users)])
    return 2 * drawn + (torch.arange(num_users) % 2)[:, None], torch.randint(NUM_BEHAVIORS, (num_users, 6))


@pytest.mark.parametrize(("kind", "asked"), [(MBGMNModel, 0), (MBGMNModel, 2), (SMBRecModel, 2)])
def test_two_clusters_are_learned_and_hold_for_users_never_seen(kind, asked, make_model):
    model: GraphModel = make_model(kind, num_items=24, initializer_range=0.1)
    torch.manual_seed(2)
    items, behaviors = two_clusters(64)
    users = torch.arange(64)[:, None].expand_as(items)
    model.set_graph(users.flatten(), items.flatten(), behaviors.flatten())
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    for _ in range(40):
        loss = model(items, behaviors, labels=items).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    history = torch.tensor([[0, 6], [1, 7]])
    scores = model.eval().score_items(history, torch.tensor([[0, 1], [0, 1]]), asked_behavior=asked)
    is_own = torch.arange(24) % 2 == torch.arange(2)[:, None]
    right = (scores[is_own].reshape(2, -1, 1) > scores[~is_own].reshape(2, 1, -1)).float().mean()
    assert right > 0.9


@torch.no_grad()
@pytest.mark.parametrize("kind", GRAPH_MODELS)
def test_every_weight_and_the_graph_come_back_from_a_folder(kind, make_model, tmp_path):
    """Nothing that starts at a value of its own is started again."""
    model, batch = make_model(kind), draw_histories([6, 3])
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path).eval()
    for name, values in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], values), name
    assert (loaded.config.num_graph_users, loaded.config.num_edges) == (5, len(model.edges[0]))
    expected = model.score_items(**batch, asked_behavior=2)
    torch.testing.assert_close(loaded.score_items(**batch, asked_behavior=2), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 0}, "`num_hidden_layers` must be at least 1, got 0"),
        ({"num_edges": -1}, "`num_edges` must be at least 0, got -1"),
    ],
)
@pytest.mark.parametrize("kind", GRAPH_MODELS)
def test_wrong_fields_of_all_graph_models_are_refused(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind.config_class(**fields)
