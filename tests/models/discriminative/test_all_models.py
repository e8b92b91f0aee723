"""What every scoring model promises, whatever its architecture."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from genrec.models.discriminative import DiscriminativeConfig, GraphModel

from .conftest import MAX_ITEMS, NUM_BEHAVIORS, NUM_ITEMS, draw_histories, left_padded, with_labels

LENGTHS = [5, 1, 7, 3]


def test_scores_are_one_number_per_item_and_do_not_depend_on_the_padding(kind, make_model):
    model, batch = make_model(kind), draw_histories(LENGTHS)
    scores = model.score_items(**batch, asked_behavior=2)
    assert scores.shape == (len(LENGTHS), NUM_ITEMS)
    torch.testing.assert_close(model.score_items(**left_padded(batch), asked_behavior=2), scores, atol=1e-5, rtol=1e-4)
    for row, length in enumerate(LENGTHS):
        alone = {name: values[row : row + 1, :length] for name, values in batch.items()}
        torch.testing.assert_close(model.score_items(**alone, asked_behavior=2)[0], scores[row], atol=1e-5, rtol=1e-4)


def test_scores_depend_on_every_item_of_the_history(kind, make_model):
    model, batch = make_model(kind), draw_histories([6])
    scores = model.score_items(**batch, asked_behavior=0)
    for column in range(6):
        items = batch["items"].clone()
        items[0, column] = (items[0, column] + 1) % NUM_ITEMS
        changed = model.score_items(**{**batch, "items": items}, asked_behavior=0)
        assert not torch.allclose(changed, scores, atol=1e-4), column


def test_the_b_variant_reads_and_asks_behaviors_by_ids_of_their_own(kind, make_model):
    if not kind.supports_behavior_ids:
        with pytest.raises(ValueError, match="`behavior_ids`"):
            make_model(kind, behavior_ids=True)
        return
    model, batch = make_model(kind, behavior_ids=True), draw_histories(LENGTHS)
    assert len(model.item_embeddings.weight) >= 1 + NUM_BEHAVIORS * NUM_ITEMS
    scores = model.score_items(**batch, asked_behavior=1)
    other = {**batch, "behaviors": (batch["behaviors"] + 1) % NUM_BEHAVIORS}
    assert not torch.allclose(model.score_items(**batch, asked_behavior=2), scores, atol=1e-4)
    assert not torch.allclose(model.score_items(**other, asked_behavior=1), scores, atol=1e-4)


def test_the_b_variant_is_the_model_over_a_larger_catalog(kind, make_model):
    """Asking for behavior b is reading off the items `b * num_items ...` of a model that knows only items."""
    if not kind.supports_behavior_ids:
        pytest.skip("reads behaviors in its own way")
    by_behavior = make_model(kind, behavior_ids=True)
    plain = make_model(kind, num_items=NUM_ITEMS * NUM_BEHAVIORS)
    plain.load_state_dict({**by_behavior.state_dict(), "prior": plain.prior})
    batch = draw_histories(LENGTHS)
    numbered = torch.where(batch["items"] < 0, -1, batch["items"] + NUM_ITEMS * batch["behaviors"])
    expected = plain.score_items(**{**batch, "items": numbered}, asked_behavior=0)
    for asked in range(NUM_BEHAVIORS):
        block = expected[:, asked * NUM_ITEMS : (asked + 1) * NUM_ITEMS]
        torch.testing.assert_close(by_behavior.score_items(**batch, asked_behavior=asked), block)


def test_an_empty_history_gets_the_prior_and_changes_nothing_for_others(kind, make_model):
    model, batch = make_model(kind), draw_histories([4, 2])
    counts = torch.arange(NUM_BEHAVIORS * NUM_ITEMS).reshape(NUM_BEHAVIORS, NUM_ITEMS)
    model.set_prior(counts)
    expected = model.score_items(**batch, asked_behavior=1)
    with_empty = {name: torch.cat([values, torch.full_like(values[:1], -1)]) for name, values in batch.items()}
    scores = model.score_items(**with_empty, asked_behavior=1)
    torch.testing.assert_close(scores[:2], expected)
    shares = (counts[1] + 0.5) / (counts[1] + 0.5).sum()
    torch.testing.assert_close(scores[2], shares.log())
    nobody = {name: values[:, :0] for name, values in batch.items()}
    torch.testing.assert_close(model.score_items(**nobody, asked_behavior=1), shares.log().expand(2, -1))


def test_the_loss_falls_and_a_planted_pattern_is_learned(kind, make_model):
    """After item i comes item i + 1: learned from sequences, it must hold for a history never seen."""
    model = make_model(kind, dropout=0.0, initializer_range=0.05, mask_ratio=0.4).train()
    torch.manual_seed(1)
    starts = torch.randint(NUM_ITEMS, (64, 1))
    items = (starts + torch.arange(6)) % NUM_ITEMS
    batch = {
        "items": items,
        "behaviors": torch.full_like(items, 2),
        "sessions": torch.arange(6).expand_as(items),
        "times": torch.arange(6).expand_as(items) * 86_400,
        "labels": items,
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    if issubclass(kind, GraphModel):
        return  # it knows what goes together, not what comes next: see `test_graph.py`
    model.eval()
    asked = {name: values[:, :4] for name, values in batch.items() if name != "labels"}
    right = model.score_items(**asked, asked_behavior=2).argmax(dim=1) == (items[:, 3] + 1) % NUM_ITEMS
    assert right.float().mean() > 0.9


def test_gradients_reach_every_weight(kind, make_model):
    model = make_model(kind, mask_ratio=0.5).train()
    torch.manual_seed(0)
    model(**with_labels(draw_histories([8, 6, 7, 8] * 8))).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_history_longer_than_the_model_reads_is_refused(kind, make_model):
    model = make_model(kind)
    with pytest.raises(ValueError, match=f"A history may hold at most {MAX_ITEMS} items .* got 9"):
        model.score_items(**draw_histories([MAX_ITEMS + 1]), asked_behavior=0)
    with pytest.raises(ValueError, match=f"A sample, .* may hold at most {MAX_ITEMS + 1} items .* got 10"):
        model(**with_labels(draw_histories([MAX_ITEMS + 2])))
    assert torch.isfinite(model(**with_labels(draw_histories([MAX_ITEMS + 1]))).loss)


def test_a_saved_model_is_loaded_by_the_auto_classes(kind, make_model, tmp_path):
    model, batch = make_model(kind), draw_histories(LENGTHS)
    model.set_prior(torch.ones(NUM_BEHAVIORS, NUM_ITEMS))
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is kind
    assert type(AutoConfig.from_pretrained(tmp_path)) is kind.config_class
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, values in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], values), name
    expected = model.score_items(**batch, asked_behavior=0)
    # The weights are equal, but lie elsewhere in memory, where a product may add in another order.
    torch.testing.assert_close(loaded.eval().score_items(**batch, asked_behavior=0), expected, atol=1e-5, rtol=1e-5)


def test_a_preset_without_a_vocabulary_makes_no_model(kind):
    with pytest.raises(ValueError, match="needs `num_items` and `num_behaviors`"):
        kind(kind.config_class())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_items": 0}, "`num_items` must be at least 1, got 0"),
        ({"hidden_size": 0}, "`hidden_size` must be at least 1, got 0"),
        ({"dropout": 1.0}, "`dropout` must be a rate from 0 to below 1, got 1.0"),
        ({"max_history_item": 5}, "has no field `max_history_item`. Did you mean `max_history_items`?"),
    ],
)
def test_wrong_fields_are_refused(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind.config_class(**fields)


def test_fields_given_beside_a_preset_are_checked_too(kind, tmp_path):
    kind.config_class().save_pretrained(tmp_path)
    config = kind.config_class.from_pretrained(tmp_path, num_items=7, num_behaviors=2)
    assert isinstance(config, DiscriminativeConfig)
    assert config.require_vocabulary() == (7, 2)
    with pytest.raises(ValueError, match="`dropout` must be"):
        kind.config_class.from_pretrained(tmp_path, dropout=2)
    with pytest.raises(ValueError, match="Did you mean `dropout`"):
        kind.config_class.from_pretrained(tmp_path, dropot=0.1)
