"""PBAT against its equations, one pair of places at a time, and what personalisation must and must not see."""

import math

import pytest
import torch
from torch.nn import functional

from genrec.models.discriminative import PBATConfig, PBATModel
from genrec.models.discriminative.cloze import Masked, with_hidden_next
from genrec.models.discriminative.gaussians import Gaussian, positive, wasserstein

from .conftest import NUM_BEHAVIORS, NUM_ITEMS, draw_histories

WIDTH, HEADS, LENGTH = 16, 2, 5


def draw(*shape: int) -> Gaussian:
    return Gaussian(torch.randn(shape), 0.2 + torch.rand(shape))


def naive_attention(attention, states, behaviors, behavior_states, relations, positions):
    """Attention of one row without pads, by loops over heads and pairs of places."""
    size = WIDTH // HEADS
    means = attention.mean_in(states.mean) + attention.behavior_mean_in(behavior_states.mean)
    raw = attention.variance_in(states.variance) + attention.behavior_variance_in(behavior_states.variance)
    variances = functional.elu(raw) + 1
    relation_means = attention.relation_maps(relations.mean)
    position_means = attention.position_maps(positions.mean)
    mean, variance = torch.zeros(LENGTH, WIDTH), torch.zeros(LENGTH, WIDTH)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)

        def fused(place, own, pair, part=part):
            """The product of three Gaussians; `own` is 0 for a query, 1 for a key."""
            shifted = slice(own * WIDTH + part.start, own * WIDTH + part.stop)
            means_of = [means[place][shifted], relation_means[pair][shifted], position_means[place][shifted]]
            variances_of = [variances[place][shifted], relations.variance[pair][part], positions.variance[place][part]]
            precision = sum(1 / one for one in variances_of)
            return Gaussian(sum(m / v for m, v in zip(means_of, variances_of)) / precision, 1 / precision)

        for i in range(LENGTH):
            pairs = [(int(behaviors[i]), int(behaviors[j])) for j in range(LENGTH)]
            distances = [wasserstein(fused(i, 0, pairs[j]), fused(j, 1, pairs[j])) for j in range(LENGTH)]
            weights = (-torch.stack(distances) / math.sqrt(size)).softmax(dim=0)
            values = slice(2 * WIDTH + part.start, 2 * WIDTH + part.stop)
            for j in range(LENGTH):
                mean[i, part] += weights[j] * means[j, values]
                variance[i, part] += weights[j] ** 2 * variances[j, values]
    return attention.mean_out(mean), attention.variance_out(variance)


def test_attention_is_that_of_the_equations(make_model):
    attention = make_model(PBATModel).layers[0].attention
    behaviors = torch.tensor([[2, 0, 1, 2, 0]])
    states, behavior_states, positions = (draw(1, LENGTH, WIDTH) for _ in range(3))
    relations = draw(1, NUM_BEHAVIORS, NUM_BEHAVIORS, WIDTH)
    seen = torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool)
    got = attention(states, behaviors, behavior_states, relations, positions, seen)
    rows = [Gaussian(*(values[0] for values in part)) for part in (states, behavior_states, relations, positions)]
    expected = naive_attention(attention, rows[0], behaviors[0], *rows[1:])
    for one, other in zip(got, expected):
        torch.testing.assert_close(one[0], other, atol=1e-5, rtol=1e-4)


def test_patterns_are_products_and_scale_relations_by_minus_their_distance(make_model):
    module = make_model(PBATModel).patterns
    users, behaviors = draw(2, WIDTH), draw(NUM_BEHAVIORS, WIDTH)
    patterns, relations = module(users, behaviors)
    mapped = module.behavior_map(behaviors.mean)
    for user in range(2):
        c1, m1 = users.variance[user], users.mean[user]
        own = []
        for b in range(NUM_BEHAVIORS):
            c2, m2 = behaviors.variance[b], mapped[b]
            own.append(Gaussian((c1 * m2 + c2 * m1) / (c1 + c2), 2 * c1 * c2 / (c1 + c2)))
            torch.testing.assert_close(patterns.mean[user, b], own[b].mean)
            torch.testing.assert_close(patterns.variance[user, b], own[b].variance)
        for a in range(NUM_BEHAVIORS):
            for b in range(NUM_BEHAVIORS):
                strength = -wasserstein(own[a], own[b]) / WIDTH
                mean, raw_variance = module.relations.raw(torch.tensor(a * NUM_BEHAVIORS + b))
                torch.testing.assert_close(relations.mean[user, a, b], strength * mean)
                torch.testing.assert_close(relations.variance[user, a, b], positive(strength * raw_variance))


def test_scores_are_minus_the_distance_to_each_item(make_model):
    """The nearest item scores highest; the release gives the distance itself, and so prefers the farthest."""
    model, batch = make_model(PBATModel), draw_histories([5, 3])
    masked = with_hidden_next(batch["items"], batch["behaviors"], 1, None, None)
    mean, deviation = model.encode(masked)[:, -1].chunk(2, dim=-1)
    scores = model.score_items(**batch, asked_behavior=1)
    for item in range(NUM_ITEMS):
        of_item = Gaussian(
            model.item_embeddings.weight[1 + item], functional.elu(model.item_variances.weight[1 + item]) + 1
        )
        expected = -wasserstein(Gaussian(mean, deviation.square()), of_item)
        torch.testing.assert_close(scores[:, item], expected, atol=1e-4, rtol=1e-4)
    assert (scores < 0).all()


def test_in_evaluation_mode_the_loss_is_the_cross_entropy_of_the_labelled_items_alone(make_model):
    """Pads and items without labels count nothing; the release averages over padded slots too."""
    model, batch = make_model(PBATModel), draw_histories([5, 3])
    labels = torch.full_like(batch["items"], -100)
    expected = []
    for row, last in [(0, 4), (1, 2)]:
        labels[row, last] = batch["items"][row, last]
        history = {name: values[row : row + 1, :last] for name, values in batch.items()}
        scores = model.score_items(**history, asked_behavior=int(batch["behaviors"][row, last]))
        expected.append(functional.cross_entropy(scores, batch["items"][row, last : last + 1]))
    torch.testing.assert_close(model(**batch, labels=labels).loss, torch.stack(expected).mean(), atol=1e-4, rtol=1e-4)


def test_nothing_of_a_hidden_item_is_seen_by_the_user_or_elsewhere(make_model):
    model, batch = make_model(PBATModel), draw_histories([5])
    is_hidden = torch.tensor([[False, True, False, False, True]])
    states = model.encode(Masked(batch["items"], batch["behaviors"], is_hidden))
    other = torch.where(is_hidden, (batch["items"] + 1) % NUM_ITEMS, batch["items"])
    assert torch.equal(model.encode(Masked(other, batch["behaviors"], is_hidden)), states)


def test_a_row_of_hidden_items_only_has_finite_states(make_model):
    model = make_model(PBATModel)
    masked = Masked(torch.tensor([[3, 4]]), torch.tensor([[0, 2]]), torch.ones(1, 2, dtype=torch.bool))
    assert torch.isfinite(model.encode(masked)).all()


def test_two_users_have_different_behaviors(make_model):
    model = make_model(PBATModel)
    seen = []
    model.patterns.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.score_items(**draw_histories([4, 4]), asked_behavior=0)
    patterns, relations = seen[0]
    assert not torch.allclose(patterns.mean[0], patterns.mean[1], atol=1e-4)
    assert not torch.allclose(relations.mean[0], relations.mean[1], atol=1e-4)


def test_a_user_is_who_they_were_whatever_is_asked(make_model):
    """A hidden place is no part of the user: patterns do not depend on the behavior asked for."""
    model, batch, seen = make_model(PBATModel), draw_histories([4, 2]), []
    model.patterns.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    for asked in (0, 1):
        model.score_items(**batch, asked_behavior=asked)
    assert torch.equal(seen[0].mean, seen[1].mean)
    assert torch.equal(seen[0].variance, seen[1].variance)


def test_scores_depend_on_the_asked_behavior_and_on_those_of_the_history(make_model):
    model, batch = make_model(PBATModel), draw_histories([5])
    scores = model.score_items(**batch, asked_behavior=0)
    assert not torch.allclose(model.score_items(**batch, asked_behavior=1), scores, atol=1e-4)
    for column in range(5):
        behaviors = batch["behaviors"].clone()
        behaviors[0, column] = (behaviors[0, column] + 1) % NUM_BEHAVIORS
        changed = model.score_items(**{**batch, "behaviors": behaviors}, asked_behavior=0)
        assert not torch.allclose(changed, scores, atol=1e-4), column


def test_without_positions_the_order_does_not_matter(make_model):
    model, batch = make_model(PBATModel), draw_histories([6])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = {name: values[:, order] for name, values in batch.items()}
    scores = model.score_items(**batch, asked_behavior=1)
    assert not torch.allclose(model.score_items(**shuffled, asked_behavior=1), scores, atol=1e-4)
    with torch.no_grad():
        model.positions.means.weight.zero_()
        model.positions.raw_variances.weight.zero_()
    scores = model.score_items(**batch, asked_behavior=1)
    torch.testing.assert_close(model.score_items(**shuffled, asked_behavior=1), scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm_first": True}, "`norm_first` must be false"),
        ({"behavior_ids": True}, "`behavior_ids` must be false"),
        ({"hidden_act": "gelu"}, "`hidden_act` must be 'elu'"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PBATConfig(**fields)
