"""The two-by-two transformer's own parts."""

import pytest
import torch
from torch import nn

from genrec.models.ranking import CandidateTransformerConfig, CandidateTransformerModel


def tiny(**fields) -> CandidateTransformerModel:
    torch.manual_seed(0)
    config = CandidateTransformerConfig(num_items=9, hidden_size=8, initializer_range=0.5, dropout=0.0, **fields)
    return CandidateTransformerModel(config).eval()


def test_it_has_two_encoder_and_two_decoder_layers():
    kinds = [type(module) for module in tiny().modules()]
    assert kinds.count(nn.TransformerEncoderLayer) == kinds.count(nn.TransformerDecoderLayer) == 2


def test_the_order_of_the_history_counts():
    model = tiny()
    items, behaviors, candidates = torch.tensor([[3, 8, 1]]), torch.tensor([[1, 0, 0]]), torch.tensor([[8]])
    forward, backward = (model(items.flip(d), behaviors.flip(d), candidates).logits for d in ([], [1]))
    assert not torch.allclose(forward, backward, atol=1e-4)


def test_positions_count_from_the_latest_interaction():
    """Row 1 of the positions is the latest interaction's, however long the history is."""
    model = tiny()
    short, long = torch.tensor([[3]]), torch.tensor([[5, 3]])
    candidates = torch.tensor([[8]])

    def gradient(items: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        model(items, torch.zeros_like(items), candidates).logits.sum().backward()
        return model.position_embeddings.weight.grad.abs().sum(dim=1) > 0

    assert gradient(short).nonzero().flatten().tolist() == [0, 1]
    assert gradient(long).nonzero().flatten().tolist() == [0, 1, 2]


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="`hidden_size` must be a multiple of `num_attention_heads`, got 9 and 2"):
        CandidateTransformerConfig(hidden_size=9)
    with pytest.raises(ValueError, match="`num_decoder_layers` must be at least 1, got 0"):
        CandidateTransformerConfig(num_decoder_layers=0)
