"""DIN's own parts, against arithmetic and a naive second implementation."""

import math

import pytest
import torch

from genrec.models.ranking import DINConfig, DINModel
from genrec.models.ranking.din import Dice


def tiny(**fields) -> DINModel:
    torch.manual_seed(0)
    return DINModel(DINConfig(num_items=9, hidden_size=4, initializer_range=0.5, **fields)).eval()


def test_dice_is_the_papers_formula():
    """Inputs 0 and 2 have mean 1 and variance 1: the switch stands at the sigmoid of -1 and of 1."""
    dice = Dice(1).train()
    torch.nn.init.constant_(dice.alpha, 0.25)
    share = 1 / (1 + math.exp(-1))
    outputs = dice(torch.tensor([[0.0], [2.0]]))
    assert outputs[:, 0].tolist() == pytest.approx([0.0, 2 * (share + (1 - share) * 0.25)], abs=1e-4)
    assert dice.running_mean.tolist() == pytest.approx([0.1])  # a tenth of the way from 0 to 1
    assert Dice(1).train()(torch.tensor([[3.0]])).item() == pytest.approx(3 / (1 + math.exp(-3)), abs=1e-4)


@pytest.mark.parametrize("activation", ["dice", "prelu"])
def test_the_user_is_the_unnormalised_weighted_sum(activation):
    """A loop over candidates and interactions, one pair at a time."""
    model = tiny(activation=activation)
    items, behaviors = torch.tensor([[3, 8, -1]]), torch.tensor([[1, 0, 0]])
    candidates = torch.tensor([[8, 0]])
    logits, weights = model(items, behaviors, candidates).logits, model.attention_weights(items, behaviors, candidates)
    for place, candidate in enumerate([8, 0]):
        asked = model.item_embeddings.weight[candidate + 1]
        user = torch.zeros(4)
        for column, (item, behavior) in enumerate([(3, 1), (8, 0)]):
            met = model.item_embeddings.weight[item + 1] + model.behavior_embeddings.weight[behavior]
            weight = model.attention(torch.cat([met, asked, met - asked, met * asked])[None])[0, 0]
            torch.testing.assert_close(weights[0, place, column], weight)
            user = user + weight * met
        torch.testing.assert_close(logits[0, place], model.head(torch.cat([user, asked])[None])[0, 0])
    assert (weights[0, :, 2] == 0).all()


def test_a_history_twice_as_long_gives_a_user_twice_as_strong():
    """Softmax would hide how much of the history is about the candidate (section 4.3)."""
    model = tiny()
    candidates = torch.tensor([[8]])
    once = model.attention_weights(torch.tensor([[3]]), torch.tensor([[1]]), candidates)
    twice = model.attention_weights(torch.tensor([[3, 3]]), torch.tensor([[1, 1]]), candidates)
    torch.testing.assert_close(twice.sum(), 2 * once.sum())


def test_the_order_of_the_history_does_not_count():
    model = tiny()
    items, behaviors, candidates = torch.tensor([[3, 8, 1]]), torch.tensor([[1, 0, 0]]), torch.tensor([[8]])
    torch.testing.assert_close(
        model(items, behaviors, candidates).logits, model(items.flip(1), behaviors.flip(1), candidates).logits
    )


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="`activation` must be one of dice, prelu, got 'relu'"):
        DINConfig(activation="relu")
    with pytest.raises(ValueError, match="`attention_sizes` must be widths of at least 1"):
        DINConfig(attention_sizes=[0])
