"""MB-STR against its equations, one pair of places at a time, and its buckets against transformers' T5."""

import math

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from genrec.models.discriminative import MBSTRConfig, MBSTRModel
from genrec.models.discriminative.mbstr import relative_buckets

from .conftest import NUM_BEHAVIORS, NUM_ITEMS, draw_histories


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 40), (32, 128), (8, 20), (4, 5)])
def test_buckets_are_those_of_t5(num_buckets, max_distance):
    positions = torch.arange(150)[None]
    distances = positions[:, None, :] - positions[:, :, None]
    expected = T5Attention._relative_position_bucket(
        distances, bidirectional=True, num_buckets=num_buckets, max_distance=max_distance
    )
    assert torch.equal(relative_buckets(positions, num_buckets, max_distance), expected)


def naive_attention(attention, states, behaviors, buckets):
    """The attention of one row without pads, by loops over heads and pairs of places."""
    length, width = states.shape
    heads = attention.num_heads
    size = width // heads
    pair_weights = {}
    for name in ("score", "value"):
        mixing, basis = getattr(attention, f"{name}_mixing").softmax(dim=-1), getattr(attention, f"{name}_basis")
        pair_weights[name] = lambda a, b, h, m=mixing, w=basis: sum(m[a, b, s] * w[s, h] for s in range(len(w)))
    projected = torch.stack([states[i] @ attention.projections[behaviors[i]] for i in range(length)])
    queries, keys, values = (part.reshape(length, heads, size) for part in projected.split(width, dim=1))
    output = torch.zeros(length, heads, size)
    for h in range(heads):
        for i in range(length):
            a = behaviors[i]
            scores = torch.stack(
                [
                    queries[i, h] @ pair_weights["score"](a, behaviors[j], h) @ keys[j, h] / math.sqrt(size)
                    + attention.position_bias[
                        (a * attention.num_behaviors + behaviors[j]) * attention.num_buckets + buckets[i, j], h
                    ]
                    for j in range(length)
                ]
            )
            for j, weight in enumerate(scores.softmax(dim=0)):
                output[i, h] += weight * (values[j, h] @ pair_weights["value"](a, behaviors[j], h))
    return output.reshape(length, width)


def test_attention_is_that_of_the_equations(make_model):
    model, batch = make_model(MBSTRModel), draw_histories([5])
    attention = model.layers[0].attention
    states, behaviors = torch.randn(1, 5, 16), batch["behaviors"]
    assert len(behaviors.unique()) > 1
    buckets = relative_buckets(torch.arange(5)[None], 32, 40)
    everything = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    torch.testing.assert_close(
        attention(states, behaviors, buckets, everything)[0],
        naive_attention(attention, states[0], behaviors[0], buckets[0]),
        atol=1e-5,
        rtol=1e-4,
    )


def test_each_behavior_has_a_feed_forward_of_its_own(make_model):
    layer = make_model(MBSTRModel).layers[0]
    states, behaviors = torch.randn(1, 4, 16), torch.tensor([[2, 0, 1, 2]])
    buckets, seen = torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    attended = layer.attention_norm(states + layer.attention(states, behaviors, buckets, seen))[0]
    expected = [
        layer.feed_forward_norm(attended[i] + layer.experts[behavior](attended[i]))
        for i, behavior in enumerate(behaviors[0].tolist())
    ]
    torch.testing.assert_close(layer(states, behaviors, buckets, seen)[0], torch.stack(expected))


def test_the_output_mixes_shared_experts_and_the_behaviors_own(make_model):
    head = make_model(MBSTRModel).head
    states, behaviors = torch.randn(4, 16), torch.tensor([1, 0, 2, 1])
    expected = []
    for state, behavior in zip(states, behaviors):
        experts = [*head.experts[:3], head.experts[3 + behavior]]
        shares = (state @ head.gates[behavior]).softmax(dim=0)
        mixture = sum(share * (state @ expert) for share, expert in zip(shares, experts))
        expected.append(state + head.norm(mixture))
    torch.testing.assert_close(head(states, behaviors), torch.stack(expected))


def test_scores_depend_on_the_asked_behavior_and_on_those_of_the_history(make_model):
    model, batch = make_model(MBSTRModel), draw_histories([5])
    scores = model.score_items(**batch, asked_behavior=0)
    assert not torch.allclose(model.score_items(**batch, asked_behavior=1), scores, atol=1e-4)
    for column in range(5):
        behaviors = batch["behaviors"].clone()
        behaviors[0, column] = (behaviors[0, column] + 1) % NUM_BEHAVIORS
        changed = model.score_items(**{**batch, "behaviors": behaviors}, asked_behavior=0)
        assert not torch.allclose(changed, scores, atol=1e-4), column


def test_with_equal_weights_for_all_behaviors_behaviors_do_not_matter(make_model):
    """A permutation that should hold: renaming behaviors changes nothing if their weights are the same."""
    model, batch = make_model(MBSTRModel), draw_histories([6, 3])
    with torch.no_grad():
        for layer in model.layers:
            attention = layer.attention
            attention.projections[:] = attention.projections[:1].clone()
            for name in ("score_mixing", "value_mixing"):
                getattr(attention, name).zero_()
            bias = attention.position_bias.unflatten(0, (NUM_BEHAVIORS**2, -1))
            bias[:] = bias[:1].clone()
            for expert in layer.experts[1:]:
                expert.load_state_dict(layer.experts[0].state_dict())
        model.head.gates[:] = model.head.gates[:1].clone()
        model.head.experts[3:] = model.head.experts[3:4].clone()
    renamed = {**batch, "behaviors": (batch["behaviors"] + 1) % NUM_BEHAVIORS}
    scores = model.score_items(**batch, asked_behavior=0)
    torch.testing.assert_close(model.score_items(**renamed, asked_behavior=1), scores)


def test_positions_count_only_relatively(make_model):
    """Without the bias of relative positions, the order of a history does not matter."""
    model, batch = make_model(MBSTRModel), draw_histories([6])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = {name: values[:, order] for name, values in batch.items()}
    scores = model.score_items(**batch, asked_behavior=1)
    assert not torch.allclose(model.score_items(**shuffled, asked_behavior=1), scores, atol=1e-4)
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.position_bias.zero_()
    scores = model.score_items(**batch, asked_behavior=1)
    assert scores.shape == (1, NUM_ITEMS)
    torch.testing.assert_close(model.score_items(**shuffled, asked_behavior=1), scores, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm_first": True}, "`norm_first` must be false"),
        ({"behavior_ids": True}, "`behavior_ids` must be false"),
        ({"num_buckets": 7}, "`num_buckets` must be even and at least 4, got 7"),
        ({"max_distance": 8}, "`max_distance` must be above a quarter of `num_buckets`, got 8"),
        ({"num_shared_experts": -1}, "`num_shared_experts` must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MBSTRConfig(**fields)
