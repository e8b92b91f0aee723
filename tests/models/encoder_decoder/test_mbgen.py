"""MBGen: TIGER-MB with its extras off, experts by hand, the behavior that each token's feed-forward reads."""

import pytest
import torch

from genrec.models.encoder_decoder import MBGenConfig, MBGenForConditionalGeneration
from genrec.models.encoder_decoder.mbgen import RoutedFeedForward
from genrec.models.encoder_decoder.token_places import item_behaviors, token_places

from .conftest import TINY, batch_of, tiny_model

OFF = {"expert_layers": [], "behavior_injection_layers": []}


def test_with_experts_and_injection_off_it_is_tiger_mb():
    plain, tiger = tiny_model("mbgen", **OFF), tiny_model("tiger-mb", seed=4)
    plain.load_state_dict(tiger.state_dict())
    batch = batch_of("mbgen")
    torch.testing.assert_close(plain(**batch).logits, tiger(**batch).logits)


def test_with_equal_experts_it_is_tiger_mb():
    routed, tiger = tiny_model("mbgen", behavior_injection_layers=[]), tiny_model("tiger-mb", seed=4)
    weights = tiger.state_dict()
    for layer in range(2):
        dense = f"decoder.block.{layer}.layer.2.DenseReluDense"
        for part in ("wi", "wo"):
            weight = weights.pop(f"{dense}.{part}.weight")
            weights |= {f"decoder.block.{layer}.layer.2.experts.{place}.{part}.weight": weight for place in range(5)}
    routed.load_state_dict(weights)
    batch = batch_of("mbgen")
    torch.testing.assert_close(routed(**batch).logits, tiger(**batch).logits)


def test_places_and_behaviors_of_a_history():
    config = tiny_model("mbgen").config
    history = torch.tensor([[2, 6, 10, 15, 4, 5, 13, 19, 1, 0]])
    assert token_places(config, history).tolist() == [[1, 2, 3, 4, 1, 2, 3, 4, 0, 0]]
    assert item_behaviors(config, history).tolist() == [[0, 1, 1, 1, 0, 3, 3, 3, 0, 0]]
    assert item_behaviors(config, torch.tensor([[0, 6, 10, 3, 5]])).tolist() == [[0, 0, 0, 0, 2]]  # no behavior before


def test_experts_by_hand():
    """Each token goes through its own place's weights, with its behavior's embedding behind the hidden state."""
    torch.manual_seed(0)
    config = MBGenConfig(**TINY, behavior_embedding_dim=3)
    layer = RoutedFeedForward(config, num_experts=5, reads_behaviors=True).eval()
    with torch.no_grad():
        layer.behavior_embeddings.weight[0] = 0
    states, places = torch.randn(2, 6, 16), torch.tensor([[0, 1, 2, 3, 4, 0], [4, 4, 1, 0, 2, 2]])
    behaviors = torch.randint(4, (2, 6))
    out = layer(states, places, behaviors)
    for row in range(2):
        for column in range(6):
            state, expert = states[row, column], layer.experts[places[row, column]]
            normed = state / (state.square().mean() + 1e-6).sqrt() * layer.layer_norm.weight
            wide = torch.cat([normed, layer.behavior_embeddings.weight[behaviors[row, column]]])
            expected = state + expert.wo.weight @ (expert.wi.weight @ wide).clamp(min=0)
            torch.testing.assert_close(out[row, column], expected, atol=1e-5, rtol=1e-5)


def test_each_place_of_the_decoder_uses_and_trains_its_own_expert():
    model, batch = tiny_model("mbgen"), batch_of("mbgen")
    model(**batch).loss.backward()
    experts = model.decoder.block[-1].layer[-1].experts
    assert len(experts) == 5  # start, behavior, three levels
    # The label after the last code is the end, so all five places predict something.
    assert all(expert.wi.weight.grad.abs().sum() > 0 for expert in experts)
    model.zero_grad()
    labels = batch["labels"].clone()
    labels[:, 1:] = -100
    written = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    model(input_ids=batch["input_ids"], decoder_input_ids=written, labels=labels).loss.backward()
    grads = [expert.wi.weight.grad for expert in experts]
    assert grads[0].abs().sum() > 0
    assert all(grad is None or grad.abs().sum() == 0 for grad in grads[1:])  # the start sees nothing after it


def test_the_encoder_is_dense_and_only_its_first_layers_read_behaviors():
    model = tiny_model("mbgen", num_layers=4)
    injecting = [hasattr(block.layer[-1], "behavior_embeddings") for block in model.encoder.block]
    assert injecting == [True, True, False, False]
    assert all(len(block.layer[-1].experts) == 1 for block in model.encoder.block[:2])
    assert [block.layer[-1].behavior_embeddings is not None for block in model.decoder.block] == injecting


def test_behavior_and_end_tokens_read_the_zero_embedding_that_no_training_changes():
    model, batch = tiny_model("mbgen"), batch_of("mbgen")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**batch).loss.backward()
    optimizer.step()
    for stack in (model.encoder, model.decoder):
        table = stack.block[0].layer[-1].behavior_embeddings.weight
        assert table.shape == (4, 64)
        assert table[0].abs().sum() == 0
        assert table[1:].abs().sum() > 0


def test_at_the_papers_size_it_has_the_releases_parameters():
    """12,524,416 besides the embedding table, for four codes and the three behaviors of ShortVideoAD."""
    config = MBGenConfig(codebook_sizes=[8] * 4, behavior_levels=[0, 1, 2])
    model = MBGenForConditionalGeneration(config)
    assert sum(p.numel() for key, p in model.named_parameters() if key != "shared.weight") == 12_524_416


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"expert_layers": [2]}, "`expert_layers` must hold distinct layer numbers from 0 to 1"),
        ({"behavior_injection_layers": [0, 0]}, "`behavior_injection_layers` must hold distinct"),
        ({"behavior_embedding_dim": 0}, "`behavior_embedding_dim` must be at least 1"),
    ],
)
def test_a_wrong_config_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MBGenConfig(**{**TINY, **fields})
