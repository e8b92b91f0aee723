"""What every ranking baseline promises."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoConfig, AutoModel, PreTrainedConfig

import genrec  # noqa: F401  registers the models
from genrec.models.ranking import MODELS, RankingModel

HUB_CONFIGS = Path(__file__).parent.parent.parent.parent / "hub_configs"
TYPES = [kind.config_class.model_type for kind in MODELS]
NUM_ITEMS = 12

every_model = pytest.mark.parametrize("kind", MODELS)


def tiny(kind: type[RankingModel], **fields) -> RankingModel:
    torch.manual_seed(0)
    common = {"num_items": NUM_ITEMS, "hidden_size": 8, "max_history_items": 6, "dropout": 0.0}
    return kind(kind.config_class(**(common | {"initializer_range": 0.5} | fields))).eval()


def history() -> dict[str, torch.Tensor]:
    return {
        "items": torch.tensor([[3, 7, 3, 1], [5, 2, -1, -1]]),
        "behaviors": torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]),
        "candidates": torch.tensor([[7, 2, 3], [5, 11, -1]]),
    }


@every_model
def test_candidates_do_not_influence_each_other(kind):
    model, inputs = tiny(kind), history()
    together = model(**inputs).logits
    for place in range(3):
        alone = model(**inputs | {"candidates": inputs["candidates"][:, place : place + 1]}).logits[:, 0]
        torch.testing.assert_close(alone[:1], together[:1, place])
        if place < 2:
            torch.testing.assert_close(alone[1], together[1, place])


@every_model
@pytest.mark.parametrize("is_training", [True, False])
def test_padding_at_either_side_changes_nothing(kind, is_training):
    model, inputs = tiny(kind).train(is_training), history()
    labels = torch.tensor([[0, 1, 0], [1, 0, -100]])
    plain = model(**inputs, labels=labels)
    pads = torch.full((2, 2), -1)
    for sides in ([pads, inputs["items"]], [inputs["items"], pads]):
        zeros = torch.ones_like(pads)
        at_left = sides[0] is pads
        behaviors = torch.cat([zeros, inputs["behaviors"]] if at_left else [inputs["behaviors"], zeros], dim=1)
        wide = {
            "items": torch.cat(sides, dim=1),
            "behaviors": behaviors,
            "candidates": torch.cat([inputs["candidates"], pads], dim=1),
        }
        output = model(**wide, labels=torch.cat([labels, torch.full((2, 2), -100)], dim=1))
        real = inputs["candidates"] >= 0
        torch.testing.assert_close(output.logits[:, :3][real], plain.logits[real])
        torch.testing.assert_close(output.loss, plain.loss)


@every_model
def test_the_history_its_outcomes_and_the_candidate_are_all_read(kind):
    model, inputs = tiny(kind), history()
    plain = model(**inputs).logits
    for name, value in (("items", 9), ("behaviors", 1), ("candidates", 9)):
        changed = inputs[name].clone()
        changed[0, 0] = value
        assert not torch.allclose(model(**inputs | {name: changed}).logits[0, 0], plain[0, 0]), name


@every_model
def test_an_empty_history_is_answered_in_training_and_evaluation(kind):
    nothing = {"items": torch.full((2, 0), -1), "behaviors": torch.zeros(2, 0, dtype=torch.long)}
    for model in (tiny(kind), tiny(kind).train()):
        output = model(**nothing, candidates=torch.tensor([[1, 2], [3, -1]]), labels=torch.tensor([[0, 1], [1, -100]]))
        assert torch.isfinite(output.logits).all()
        assert torch.isfinite(output.loss)


@every_model
def test_the_loss_is_the_cross_entropy_of_labelled_candidates(kind):
    model, inputs = tiny(kind), history()
    output = model(**inputs, labels=torch.tensor([[0, 1, -100], [1, -100, -100]]))
    kept = torch.stack([output.logits[0, 0], output.logits[0, 1], output.logits[1, 0]])
    torch.testing.assert_close(output.loss, binary_cross_entropy_with_logits(kept, torch.tensor([0.0, 1.0, 1.0])))
    assert model(**inputs, labels=torch.full((2, 3), -100)).loss == 0
    assert model(**inputs).loss is None


@every_model
def test_a_planted_pattern_is_learned(kind):
    """A candidate converts if and only if the same item converted before: only target attention can tell."""
    model = tiny(kind, hidden_size=16, initializer_range=0.1).train()
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def batch(size: int = 128) -> dict[str, torch.Tensor]:
        items = torch.stack([torch.randperm(NUM_ITEMS)[:4] for _ in range(size)])
        behaviors = torch.randint(2, (size, 4))
        return {"items": items, "behaviors": behaviors, "candidates": items, "labels": behaviors}

    for _ in range(150):
        optimizer.zero_grad()
        model(**batch()).loss.backward()
        optimizer.step()
    test = batch()
    with torch.no_grad():
        logits = model.eval()(**test).logits
    assert ((logits > 0) == test["labels"].bool()).float().mean() > 0.9


@every_model
def test_it_survives_saving_and_the_auto_class(kind, tmp_path):
    model = tiny(kind)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is kind
    torch.testing.assert_close(loaded(**history()).logits, model(**history()).logits, rtol=0, atol=0)


@every_model
def test_bad_input_is_refused(kind):
    with pytest.raises(ValueError, match="needs `num_items`"):
        kind(kind.config_class())
    with pytest.raises(ValueError, match="`num_behaviors` must be at least 2, exposure and conversion, got 1"):
        kind.config_class(num_items=3, num_behaviors=1)
    with pytest.raises(ValueError, match="Did you mean `hidden_size`"):
        kind.config_class(hiden_size=3)
    with pytest.raises(ValueError, match=r"A history may have 3 items \(`max_history_items`\), got rows of 4"):
        tiny(kind, max_history_items=3)(**history())


def test_every_model_has_a_preset():
    for name in TYPES:
        assert json.loads((HUB_CONFIGS / name / "config.json").read_text())["model_type"] == name


@pytest.mark.parametrize("name", TYPES)
def test_a_preset_states_every_field_but_the_vocabulary(name):
    stored = json.loads((HUB_CONFIGS / name / "config.json").read_text())
    config = AutoConfig.from_pretrained(HUB_CONFIGS / name)
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {field.name for field in dataclasses.fields(config)} - inherited - {"num_items"}
    assert stored.keys() == own | {"architectures", "model_type"}


@pytest.mark.parametrize("name", [*TYPES, "gamer-ranking-tiny"])
def test_a_preset_has_the_size_and_the_class_that_its_card_states(name):
    is_gamer = name.startswith("gamer")
    codes = {"codebook_sizes": [8, 8, 8], "behavior_levels": [0, 1]}
    config = AutoConfig.from_pretrained(HUB_CONFIGS / name, **(codes if is_gamer else {"num_items": 7}))
    model = AutoModel.from_config(config)
    assert type(model).__name__ == config.architectures[0]
    of_items = ("item_embeddings.weight", "model.embed_tokens.weight")
    size = sum(values.numel() for key, values in model.named_parameters() if key not in of_items)
    card = (HUB_CONFIGS / name / "README.md").read_text()
    assert f"{size:,} parameters besides " in card
    assert f"{type(model).__name__}(config)" in card
