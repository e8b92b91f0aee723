"""The Cloze task: which items are hidden, what is asked at the end, and BERT4Rec's loss one item at a time."""

import pytest
import torch
from torch.nn import functional

from genrec.models.discriminative import BERT4RecConfig, BERT4RecModel
from genrec.models.discriminative.cloze import draw_hidden, with_hidden_next

from .conftest import NUM_ITEMS, draw_histories, with_labels

IS_REAL = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
LAST = torch.tensor([2, 4, 4, 0])


def test_where_only_the_last_item_is_hidden_it_is_the_last_real_one():
    """The released baselines hide the place behind it, so that shorter rows teach nothing."""
    hidden = draw_hidden(IS_REAL, mask_ratio=0.9, last_item_ratio=1.0)
    assert (hidden.sum(dim=1) == 1).all()
    assert hidden.int().argmax(dim=1).tolist() == LAST.tolist()


def test_otherwise_each_item_is_hidden_with_its_probability_and_at_least_one_is():
    torch.manual_seed(0)
    hidden = draw_hidden(IS_REAL.repeat(2000, 1), mask_ratio=0.3, last_item_ratio=0.0).unflatten(0, (2000, 4))
    assert not (hidden & ~IS_REAL).any()
    assert hidden.any(dim=2).all()
    shares = hidden.float().mean(dim=0)
    none_drawn = 0.7 ** IS_REAL.sum(dim=1)
    expected = torch.where(IS_REAL, 0.3, 0.0)
    expected[torch.arange(4), LAST] += none_drawn
    assert (shares - expected).abs().max() < 0.04


def test_an_empty_row_hides_nothing():
    assert not draw_hidden(torch.zeros(1, 3, dtype=torch.bool), 0.5, 0.5).any()


def test_the_asked_item_comes_last_in_a_session_of_its_own():
    batch = draw_histories([3, 1])
    masked = with_hidden_next(batch["items"], batch["behaviors"], 2, batch["sessions"], batch["times"])
    assert masked.is_hidden.tolist() == [[False, False, False, True]] * 2
    assert masked.behaviors[:, -1].tolist() == [2, 2]
    assert masked.sessions[:, -1].tolist() == [batch["sessions"][0, 2] + 1, batch["sessions"][1, 0] + 1]
    assert masked.times[:, -1].tolist() == [batch["times"][0, 2], batch["times"][1, 0]]
    assert with_hidden_next(batch["items"], batch["behaviors"], 2, None, None).sessions is None


def test_in_evaluation_mode_the_loss_is_that_of_guessing_the_labelled_item(make_model):
    model, batch = make_model(BERT4RecModel), draw_histories([5, 3])
    torch.nn.init.normal_(model.output_bias)
    labels = torch.full_like(batch["items"], -100)
    labels[0, 4], labels[1, 2] = batch["items"][0, 4], batch["items"][1, 2]
    expected = []
    for row, last in [(0, 4), (1, 2)]:
        history = {name: values[row : row + 1, :last] for name, values in batch.items()}
        scores = model.score_items(**history, asked_behavior=0)
        expected.append(functional.cross_entropy(scores, batch["items"][row, last : last + 1]))
    torch.testing.assert_close(model(**batch, labels=labels).loss, torch.stack(expected).mean())


def test_a_hidden_item_is_not_seen_and_all_others_are(make_model):
    model, batch = make_model(BERT4RecModel), draw_histories([6])
    labels = torch.full_like(batch["items"], -100)
    labels[0, 3] = 0
    states = model(**batch, labels=labels).states[0, 3]
    for column in range(6):
        items = batch["items"].clone()
        items[0, column] = (items[0, column] + 1) % NUM_ITEMS
        changed = model(**{**batch, "items": items}, labels=labels).states[0, 3]
        assert torch.equal(changed, states) == (column == 3)


def test_in_training_hidden_places_are_drawn_anew_in_rows_with_labels(make_model):
    model, batch = make_model(BERT4RecModel, last_item_ratio=0.0).train(), draw_histories([8, 8])
    losses = {float(model(**with_labels(batch)).loss.detach()) for _ in range(5)}
    assert len(losses) == 5
    nothing = model(**batch, labels=torch.full_like(batch["items"], -100)).loss
    assert float(nothing.detach()) == 0


def test_without_labels_nothing_is_hidden(make_model):
    model, batch = make_model(BERT4RecModel), draw_histories([4])
    assert model(batch["items"], batch["behaviors"]).loss is None
    assert model(batch["items"], batch["behaviors"]).states.shape == (1, 4, 16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask_ratio": 0.0}, "`mask_ratio` must be a rate above 0 and below 1, got 0.0"),
        ({"last_item_ratio": 1.1}, "`last_item_ratio` must be a rate from 0 to 1, got 1.1"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        BERT4RecConfig(**fields)
