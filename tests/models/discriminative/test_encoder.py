"""The encoder against PyTorch's own, weights copied."""

import pytest
import torch
from torch import nn

from genrec.models.discriminative import SASRecConfig
from genrec.models.discriminative.encoder import TransformerEncoder

WIDTH, LENGTH = 16, 7


def torch_layer(layer, config):
    """Return PyTorch's layer with the weights of ours."""
    theirs = nn.TransformerEncoderLayer(
        WIDTH,
        config.num_attention_heads,
        config.intermediate_size,
        activation=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
        batch_first=True,
        norm_first=config.norm_first,
    )
    pairs = {
        "self_attn.in_proj_weight": layer.in_proj.weight,
        "self_attn.in_proj_bias": layer.in_proj.bias,
        "self_attn.out_proj.weight": layer.out_proj.weight,
        "self_attn.out_proj.bias": layer.out_proj.bias,
        "linear1.weight": layer.up_proj.weight,
        "linear1.bias": layer.up_proj.bias,
        "linear2.weight": layer.down_proj.weight,
        "linear2.bias": layer.down_proj.bias,
        "norm1.weight": layer.attention_norm.weight,
        "norm1.bias": layer.attention_norm.bias,
        "norm2.weight": layer.feed_forward_norm.weight,
        "norm2.bias": layer.feed_forward_norm.bias,
    }
    theirs.load_state_dict(pairs)
    return theirs.eval()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("hidden_act", ["gelu", "relu"])
def test_it_is_pytorchs_transformer_encoder(norm_first, is_causal, hidden_act):
    torch.manual_seed(0)
    config = SASRecConfig(
        hidden_size=WIDTH, intermediate_size=24, norm_first=norm_first, hidden_act=hidden_act, layer_norm_eps=1e-6
    )
    encoder = TransformerEncoder(config, LENGTH, is_causal).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    embeddings = torch.randn(3, LENGTH, WIDTH)
    is_real = torch.arange(LENGTH) < torch.tensor([[LENGTH], [4], [1]])
    states = embeddings + encoder.position_embeddings.weight
    states = states if norm_first else encoder.norm(states)
    hidden = nn.Transformer.generate_square_subsequent_mask(LENGTH) != 0 if is_causal else None
    for layer in encoder.layers:
        states = torch_layer(layer, config)(states, src_mask=hidden, src_key_padding_mask=~is_real)
    expected = encoder.norm(states) if norm_first else states
    torch.testing.assert_close(encoder(embeddings, is_real)[is_real], expected[is_real], atol=1e-5, rtol=1e-4)


def test_the_residual_around_the_feed_forward_is_there():
    """With a feed-forward of zeros, a layer's output is its attention's, normalised again."""
    config = SASRecConfig(hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=1)
    encoder = TransformerEncoder(config, LENGTH, is_causal=True).eval()
    layer = encoder.layers[0]
    for parameter in layer.down_proj.parameters():
        nn.init.zeros_(parameter)
    states = torch.randn(2, LENGTH, WIDTH)
    mask = torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    after_attention = layer.attention_norm(states + layer._attention(states, mask))
    torch.testing.assert_close(layer(states, mask), layer.feed_forward_norm(after_attention))
    assert layer(states, mask).abs().mean() > 0.5


def test_dropout_acts_in_training_only():
    config = SASRecConfig(hidden_size=WIDTH, dropout=0.5, attention_dropout=0.5)
    encoder = TransformerEncoder(config, LENGTH, is_causal=True)
    embeddings, is_real = torch.randn(2, LENGTH, WIDTH), torch.ones(2, LENGTH, dtype=torch.bool)
    assert not torch.equal(encoder(embeddings, is_real), encoder(embeddings, is_real))
    encoder.eval()
    assert torch.equal(encoder(embeddings, is_real), encoder(embeddings, is_real))
