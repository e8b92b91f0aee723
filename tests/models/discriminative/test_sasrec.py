"""SASRec: nothing of the future reaches a state, and both losses see the right targets."""

import pytest
import torch
from torch.nn import functional

from genrec.models.discriminative import SASRecConfig, SASRecModel

from .conftest import NUM_BEHAVIORS, NUM_ITEMS, draw_histories, left_padded, with_labels


@pytest.fixture
def model(make_model):
    return make_model(SASRecModel)


def test_the_future_changes_no_state(model):
    batch = draw_histories([8])
    states = model(batch["items"], batch["behaviors"]).states
    for column in range(1, 8):
        items = batch["items"].clone()
        items[0, column:] = (items[0, column:] + 5) % NUM_ITEMS
        changed = model(items, batch["behaviors"]).states
        assert torch.equal(changed[:, :column], states[:, :column])
        assert not torch.allclose(changed[:, column], states[:, column], atol=1e-4)


def next_item_loss(model, batch, pairs):
    """The mean cross-entropy of (row, column asked from, column of the target), one at a time."""
    losses = []
    for row, asked, target in pairs:
        history = {name: batch[name][row : row + 1, : asked + 1] for name in ("items", "behaviors")}
        scores = model.score_items(**history, asked_behavior=0)
        losses.append(functional.cross_entropy(scores, batch["items"][row, target : target + 1]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("is_padded_left", [False, True])
def test_the_loss_predicts_each_item_from_those_before_it(model, is_padded_left):
    batch = draw_histories([5, 3, 1])
    pairs = [(0, column - 1, column) for column in range(1, 5)] + [(1, column - 1, column) for column in range(1, 3)]
    given = with_labels(left_padded(batch) if is_padded_left else batch)
    torch.testing.assert_close(model(**given).loss, next_item_loss(model, batch, pairs))


def test_only_labels_bear_loss(model):
    batch = draw_histories([5, 3])
    labels = torch.full_like(batch["items"], -100)
    labels[0, 4], labels[1, 2] = batch["items"][0, 4], batch["items"][1, 2]
    expected = next_item_loss(model, batch, [(0, 3, 4), (1, 1, 2)])
    torch.testing.assert_close(model(**batch, labels=labels).loss, expected)


def test_session_wise_it_predicts_each_item_from_the_end_of_the_session_before(make_model):
    model, batch = make_model(SASRecModel, session_wise=True), draw_histories([6])
    batch["sessions"] = torch.tensor([[1, 1, 2, 2, 2, 7]])
    pairs = [(0, 1, 2), (0, 1, 3), (0, 1, 4), (0, 4, 5)]
    torch.testing.assert_close(model(**with_labels(batch)).loss, next_item_loss(model, batch, pairs))
    with pytest.raises(ValueError, match="needs the `sessions` of its samples"):
        model(**with_labels({**batch, "sessions": None}))


def test_session_wise_training_is_one_sample_per_interaction_with_the_history_of_earlier_sessions(make_model):
    model, batch = make_model(SASRecModel, session_wise=True), draw_histories([7, 4])
    samples = []
    for row in range(2):
        for column in range(int((batch["items"][row] >= 0).sum())):
            number = batch["sessions"][row, column]
            is_earlier = (batch["items"][row] >= 0) & (batch["sessions"][row] < number)
            if is_earlier.any():
                kept = [*is_earlier.nonzero().flatten().tolist(), column]
                sample = {name: values[row : row + 1, kept] for name, values in batch.items()}
                labels = torch.full_like(sample["items"], -100)
                labels[0, -1] = sample["items"][0, -1]
                samples.append(model(**sample, labels=labels).loss)
    torch.testing.assert_close(model(**with_labels(batch)).loss, torch.stack(samples).mean())


def test_the_papers_loss_sets_each_item_against_one_that_the_row_does_not_hold(make_model, monkeypatch):
    model, batch = make_model(SASRecModel, loss="bce"), draw_histories([4, 2])
    drawn = []

    def record(items, rows, num_items):
        drawn.append((items.tolist(), rows.tolist(), num_items))
        return torch.zeros(len(rows), dtype=torch.long)

    monkeypatch.setattr("genrec.models.discriminative.base.draw_negatives", record)
    loss = model(**with_labels(batch)).loss
    assert drawn == [(batch["items"].tolist(), [0, 0, 0, 1], NUM_ITEMS)]
    states = model(batch["items"], batch["behaviors"]).states
    weights = model.item_embeddings.weight[1:]
    expected = []
    for row, column in [(0, 1), (0, 2), (0, 3), (1, 1)]:
        state = states[row, column - 1]
        right, wrong = state @ weights[batch["items"][row, column]], state @ weights[0]
        expected.append(-torch.log(torch.sigmoid(right)) - torch.log(1 - torch.sigmoid(wrong)))
    torch.testing.assert_close(loss, torch.stack(expected).mean())


@pytest.mark.parametrize("fields", [{"behavior_ids": True}, {"loss": "bce"}, {"norm_first": True}])
def test_each_variant_learns(make_model, fields):
    model = make_model(SASRecModel, **{"initializer_range": 0.05, **fields}).train()
    batch = with_labels(draw_histories([8] * 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_labels_of_the_b_variant_are_the_items_under_their_behavior(make_model):
    model, batch = make_model(SASRecModel, behavior_ids=True), draw_histories([3])
    state = model(batch["items"], batch["behaviors"]).states[0]
    logits = state[:2] @ model.item_embeddings.weight[1 : 1 + NUM_ITEMS * NUM_BEHAVIORS].T
    targets = (batch["items"] + NUM_ITEMS * batch["behaviors"])[0, 1:]
    torch.testing.assert_close(model(**with_labels(batch)).loss, functional.cross_entropy(logits, targets))


def test_a_batch_of_single_items_has_no_loss(model):
    assert float(model(**with_labels(draw_histories([1, 1]))).loss.detach()) == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "hinge"}, "`loss` must be one of softmax, bce, got 'hinge'"),
        ({"num_attention_heads": 3}, "must be a multiple of `num_attention_heads`, got 128 and 3"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` must be at least 1"),
        ({"attention_dropout": -0.1}, "`attention_dropout` must be a rate"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SASRecConfig(**fields)
