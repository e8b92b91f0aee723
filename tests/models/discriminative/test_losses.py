"""The losses by hand, in chunks as in one piece, and negatives that are fair."""

import math

import pytest
import torch
from torch.nn import functional

from genrec.models.discriminative import losses
from genrec.models.discriminative.losses import draw_negatives, sampled_loss, softmax_loss


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    states, weights = torch.randn(7, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    return states, weights, torch.tensor([0, 4, 2, 2, 1, 3, 0])


def test_softmax_loss_is_the_mean_cross_entropy_whether_in_chunks_or_not(drawn, monkeypatch):
    states, weights, targets = drawn
    bias = torch.randn(5)
    expected = functional.cross_entropy(states @ weights.T + bias, targets)
    whole = softmax_loss(states, weights, targets, bias)
    whole_gradients = torch.autograd.grad(whole, [states, weights])
    monkeypatch.setattr(losses, "LOGITS_PER_CHUNK", 11)  # two rows at a time
    chunked = softmax_loss(states, weights, targets, bias)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(chunked, expected)
    torch.testing.assert_close(torch.autograd.grad(chunked, [states, weights]), whole_gradients)


def test_sampled_loss_by_hand():
    states, weights = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = sampled_loss(states, weights, targets=torch.tensor([0, 1]), negatives=torch.tensor([1, 0]))
    expected = [math.log(1 + math.exp(-right)) + math.log(1 + math.exp(wrong)) for right, wrong in [(1, 0), (2, 0)]]
    assert float(loss) == pytest.approx(sum(expected) / 2)


def test_without_targets_the_losses_are_zero_and_have_gradients(drawn):
    states, weights, targets = drawn
    for loss in (
        softmax_loss(states[:0], weights, targets[:0]),
        sampled_loss(states[:0], weights, targets[:0], targets[:0]),
    ):
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
