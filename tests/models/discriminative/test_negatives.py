"""The loss against one negative by hand, and negatives that are fair."""

import math

import pytest
import torch

from genrec.models.discriminative.negatives import draw_negatives, sampled_loss


def test_sampled_loss_by_hand():
    states, weights = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = sampled_loss(states, weights, targets=torch.tensor([0, 1]), negatives=torch.tensor([1, 0]))
    expected = [math.log(1 + math.exp(-right)) + math.log(1 + math.exp(wrong)) for right, wrong in [(1, 0), (2, 0)]]
    assert float(loss) == pytest.approx(sum(expected) / 2)


def test_without_targets_the_loss_is_zero_and_has_gradients():
    states, nothing = torch.randn(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.long)
    loss = sampled_loss(states, torch.randn(5, 4), nothing, nothing)
    assert float(loss.detach()) == 0
    loss.backward()


def test_negatives_are_spread_evenly_over_what_the_row_does_not_hold():
    items = torch.tensor([[2, 2, 5, -1], [0, 1, 2, 3], [-1, -1, -1, -1]])
    num_draws = 4000
    torch.manual_seed(0)
    for row, free in enumerate([[0, 1, 3, 4], [4, 5], [0, 1, 2, 3, 4, 5]]):
        negatives = draw_negatives(items, torch.full((num_draws,), row), num_items=6)
        counts = torch.bincount(negatives, minlength=6)
        assert counts.nonzero().flatten().tolist() == free
        assert (counts[free] - num_draws / len(free)).abs().max() < 5 * math.sqrt(num_draws / len(free))


def test_a_row_that_holds_everything_gets_some_item():
    negatives = draw_negatives(torch.tensor([[0, 1, 2]]), torch.zeros(50, dtype=torch.long), num_items=3)
    assert set(negatives.tolist()) <= {0, 1, 2}
