"""MBHT: its attention scales and its fusion against loops, its layout, and what is hidden in training."""

import math

import pytest
import torch

from genrec.models.discriminative import MBHTConfig, MBHTModel
from genrec.models.discriminative.cloze import Masked
from genrec.models.discriminative.mbht import pooled

from .conftest import NUM_BEHAVIORS, NUM_ITEMS, draw_histories, with_labels

WIDTH, HEADS, PLACES = 16, 2, 20
IS_REAL = torch.arange(PLACES) >= torch.tensor([[13], [2], [19]])  # rows of 7, 18 and 1 items


def naive_heads(queries, keys, values):
    """Attention of each query to all keys, by loops over heads and queries."""
    size = WIDTH // HEADS
    output = torch.zeros_like(queries)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(queries)):
            weights = (keys[:, part] @ queries[i, part] / math.sqrt(size)).softmax(dim=0)
            output[i, part] = weights @ values[:, part]
    return output


def test_low_rank_attention_sees_projections_of_real_places_only(make_model):
    attention = make_model(MBHTModel).layers[0].global_attention
    states = torch.randn(3, PLACES, WIDTH)
    got = attention(states, IS_REAL)
    for row in range(3):
        real = IS_REAL[row]
        queries, keys, values = attention.in_proj(states[row][real]).chunk(3, dim=-1)
        expected = naive_heads(
            queries, attention.key_map.weight[:, real] @ keys, attention.value_map.weight[:, real] @ values
        )
        expected = attention.norm(states[row][real] + attention.out_proj(expected))
        torch.testing.assert_close(got[row][real], expected, atol=1e-5, rtol=1e-4)
    assert not got[~IS_REAL].any()


@pytest.mark.parametrize(("number", "size"), [(0, 4), (1, 20)])
def test_window_attention_is_that_of_the_means_of_neighbours(make_model, number, size):
    attention = make_model(MBHTModel).layers[0].window_attentions[number]
    states = torch.randn(3, PLACES, WIDTH)
    got = attention(*pooled(states, IS_REAL, size))
    for row in range(3):
        slices = [range(start, start + size) for start in range(0, PLACES, size)]
        held = [[place for place in window if IS_REAL[row, place]] for window in slices]
        filled = [number for number, places in enumerate(held) if places]
        means = torch.stack([states[row, held[number]].mean(dim=0) for number in filled])
        attended = attention.out_proj(naive_heads(*attention.in_proj(means).chunk(3, dim=-1)))
        expected = attention.norm(means + attended)
        torch.testing.assert_close(got[row, filled], expected, atol=1e-5, rtol=1e-4)
        assert not got[row, [number for number in range(len(held)) if number not in filled]].any()


def test_a_layer_merges_all_scales_and_keeps_both_residuals(make_model):
    layer = make_model(MBHTModel).layers[0]
    states = torch.randn(3, PLACES, WIDTH)
    scales = [layer.global_attention(states, IS_REAL)]
    for size, attention in zip((4, 20), layer.window_attentions):
        scales.append(attention(*pooled(states, IS_REAL, size)))
    stacked = torch.cat(scales, dim=1)
    assert stacked.shape[1] == 20 + 5 + 1
    merged = torch.einsum("pq,nqw->npw", layer.merge.weight, stacked) + layer.merge.bias[:, None]
    attended = layer.attention_norm(states + merged)
    transformed = layer.down_proj(torch.nn.functional.gelu(layer.up_proj(attended)))
    expected = layer.feed_forward_norm(attended + transformed)
    torch.testing.assert_close(layer(states, IS_REAL), expected, atol=1e-5, rtol=1e-4)


def test_the_fusion_weighs_each_views_score(make_model):
    fusion = make_model(MBHTModel).fusion
    views = torch.randn(2, 1, 3, WIDTH)
    for place in range(3):
        scores = [fusion.scores(view[0, place]).item() for view in views]
        share = 1 / (1 + math.exp(scores[1] - scores[0]))
        expected = share * views[0, 0, place] + (1 - share) * views[1, 0, place]
        torch.testing.assert_close(fusion(*views)[0, place], expected)


def test_states_come_back_to_their_places_wherever_the_pads_are(make_model):
    model, batch = make_model(MBHTModel), draw_histories([4])
    hidden = torch.tensor([[False, True, False, False]])
    expected = model.encode(Masked(batch["items"], batch["behaviors"], hidden))[0]
    items, behaviors = torch.full((1, 7), -1), torch.zeros(1, 7, dtype=torch.long)
    is_hidden, places = torch.zeros(1, 7, dtype=torch.bool), [1, 2, 4, 6]
    items[0, places], behaviors[0, places], is_hidden[0, places] = batch["items"], batch["behaviors"], hidden
    got = model.encode(Masked(items, behaviors, is_hidden))[0, places]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_the_places_are_those_of_the_longest_row_in_whole_windows():
    assert MBHTConfig().num_places == 60
    assert MBHTConfig(max_history_items=60).num_places == 80
    assert MBHTConfig(max_history_items=10, window_sizes=[4, 6]).num_places == 12
    assert MBHTConfig(max_history_items=10, window_sizes=[]).num_places == 11


def test_nothing_of_a_hidden_item_is_seen(make_model):
    model, batch = make_model(MBHTModel), draw_histories([5])
    is_hidden = torch.tensor([[False, True, False, False, True]])
    states = model.encode(Masked(batch["items"], batch["behaviors"], is_hidden))
    other = torch.where(is_hidden, (batch["items"] + 1) % NUM_ITEMS, batch["items"])
    assert torch.equal(model.encode(Masked(other, batch["behaviors"], is_hidden)), states)
    everything = torch.ones_like(is_hidden)
    assert torch.isfinite(model.encode(Masked(batch["items"], batch["behaviors"], everything))).all()


def test_the_last_item_is_always_hidden_in_training_and_others_by_the_rate(make_model):
    model = make_model(MBHTModel, mask_ratio=0.3).train()
    torch.manual_seed(0)
    batch = with_labels(draw_histories([5, 3]))
    drawn = torch.stack([model._draw(batch["items"], batch["labels"]) for _ in range(2000)])
    assert drawn[:, 0, 4].all()
    assert drawn[:, 1, 2].all()
    assert not drawn[:, 1, 3:].any()
    assert (drawn[:, 0, :4].float().mean(dim=0) - 0.3).abs().max() < 0.05
    nothing = torch.full_like(batch["labels"], -100)
    assert not model._draw(batch["items"], nothing).any()


def test_scores_depend_on_the_asked_behavior_and_on_those_of_the_history(make_model):
    model, batch = make_model(MBHTModel), draw_histories([5])
    scores = model.score_items(**batch, asked_behavior=0)
    assert not torch.allclose(model.score_items(**batch, asked_behavior=1), scores, atol=1e-4)
    for column in range(5):
        behaviors = batch["behaviors"].clone()
        behaviors[0, column] = (behaviors[0, column] + 1) % NUM_BEHAVIORS
        changed = model.score_items(**{**batch, "behaviors": behaviors}, asked_behavior=0)
        assert not torch.allclose(changed, scores, atol=1e-4), column


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm_first": True}, "`norm_first` must be false"),
        ({"behavior_ids": True}, "`behavior_ids` must be false"),
        ({"num_projected": 0}, "`num_projected` must be at least 1, got 0"),
        ({"num_similar_items": 0}, "`num_similar_items` must be at least 1"),
        ({"window_sizes": [4, 0]}, "`window_sizes` must be sizes of at least 1"),
        ({"graph_dropout": 1.0}, "`graph_dropout` must be a rate"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MBHTConfig(**fields)
