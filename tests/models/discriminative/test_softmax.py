"""The softmax loss is torch's cross-entropy, in chunks as in one piece, with the same gradients."""

import pytest
import torch
from torch.nn import functional

from genrec.models.discriminative import softmax
from genrec.models.discriminative.softmax import softmax_loss


@pytest.fixture
def drawn():
    """States, items and targets; chunks hold two rows, so that the last of seven is smaller."""
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "requires_grad": True}
    return torch.randn(7, 4, **options), torch.randn(5, 4, **options), torch.tensor([0, 4, 2, 2, 1, 3, 0])


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(softmax, "LOGITS_ON_CPU", 11)
    monkeypatch.setattr(softmax, "MIN_ROWS", 1)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 300.0])  # powers of e that no float holds
def test_loss_and_gradients_are_those_of_torch(drawn, small_chunks, has_bias, scale):
    states, weights, targets = drawn
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True) if has_bias else None
    inputs = [states, weights, *([bias] if has_bias else [])]
    ours = 3 * softmax_loss(scale * states, weights, targets, bias)
    expected = 3 * functional.cross_entropy(functional.linear(scale * states, weights, bias), targets)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(torch.autograd.grad(ours, inputs), torch.autograd.grad(expected, inputs))


def test_chunks_make_no_difference(drawn, monkeypatch):
    states, weights, targets = drawn
    whole = torch.autograd.grad(softmax_loss(states, weights, targets), [states, weights])
    monkeypatch.setattr(softmax, "LOGITS_ON_CPU", 1)
    monkeypatch.setattr(softmax, "MIN_ROWS", 3)
    torch.testing.assert_close(torch.autograd.grad(softmax_loss(states, weights, targets), [states, weights]), whole)


def test_half_precision_is_summed_in_full(drawn):
    states, weights, targets = (each.detach().bfloat16() if each.is_floating_point() else each for each in drawn)
    states.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = softmax_loss(states, weights, targets)
    torch.testing.assert_close(loss, functional.cross_entropy(states.float() @ weights.float().T, targets))
    loss.backward()
    assert states.grad.dtype == torch.bfloat16


def test_only_what_is_asked_for_gets_a_gradient(drawn):
    states, weights, targets = drawn
    softmax_loss(states.detach(), weights, targets).backward()
    assert states.grad is None
    assert weights.grad is not None


def test_without_targets_the_loss_is_zero_and_has_gradients(drawn):
    states, weights, targets = drawn
    loss = softmax_loss(states[:0], weights, targets[:0])
    assert float(loss.detach()) == 0
    loss.backward()
