"""GRU4Rec against the recurrence written out, step by step."""

import pytest
import torch

from genrec.models.discriminative import GRU4RecConfig, GRU4RecModel

from .conftest import NUM_ITEMS, draw_histories, with_labels


def recurrence(model, items):
    """The states after each item, by the equations of Cho et al. 2014 as PyTorch arranges them, without biases."""
    width = model.config.recurrent_size
    state, states = torch.zeros(width), []
    input_weights, state_weights = model.recurrent.weight_ih_l0, model.recurrent.weight_hh_l0
    for item in items:
        from_input = (input_weights @ model.item_embeddings.weight[item + 1]).split(width)
        from_state = (state_weights @ state).split(width)
        reset, update = (torch.sigmoid(from_input[gate] + from_state[gate]) for gate in range(2))
        candidate = torch.tanh(from_input[2] + reset * from_state[2])
        state = (1 - update) * candidate + update * state
        states.append(model.head.weight @ state + model.head.bias)
    return torch.stack(states)


def test_states_and_scores_are_those_of_the_recurrence(make_model):
    model, batch = make_model(GRU4RecModel, recurrent_size=10), draw_histories([5])
    states = recurrence(model, batch["items"][0])
    torch.testing.assert_close(model(batch["items"], batch["behaviors"]).states[0], states)
    scores = model.score_items(**batch, asked_behavior=0)[0]
    torch.testing.assert_close(scores, model.item_embeddings.weight[1 : 1 + NUM_ITEMS] @ states[-1])


def test_the_future_changes_no_state(make_model):
    model, batch = make_model(GRU4RecModel), draw_histories([6])
    states = model(batch["items"], batch["behaviors"]).states
    items = batch["items"].clone()
    items[0, 4:] = (items[0, 4:] + 5) % NUM_ITEMS
    changed = model(items, batch["behaviors"]).states
    assert torch.equal(changed[:, :4], states[:, :4])
    assert not torch.allclose(changed[:, 4], states[:, 4], atol=1e-4)


def test_it_trains_session_wise_and_with_one_negative_too(make_model):
    for fields in ({"session_wise": True}, {"loss": "bce"}, {"num_hidden_layers": 2}):
        loss = make_model(GRU4RecModel, **fields).train()(**with_labels(draw_histories([6, 4]))).loss
        assert torch.isfinite(loss)
        assert loss > 0


def test_initial_weights_are_xaviers_and_padding_stays_zero(make_model):
    model = make_model(GRU4RecModel, hidden_size=64, num_items=500)
    assert not model.item_embeddings.weight[0].any()
    expected = (2 / (501 + 64)) ** 0.5
    assert model.item_embeddings.weight[1:].std().item() == pytest.approx(expected, rel=0.05)
    bound = (6 / (3 * 128 + 64)) ** 0.5
    assert bound * 0.95 < model.recurrent.weight_ih_l0.abs().max() <= bound


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="`recurrent_size` must be at least 1, got 0"):
        GRU4RecConfig(recurrent_size=0)
    with pytest.raises(ValueError, match="`loss` must be one of softmax, bce, got 'top1'"):
        GRU4RecConfig(loss="top1")
