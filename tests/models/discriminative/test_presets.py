"""The presets of scoring models: no vocabulary, every field stated, the size that the card states."""

import dataclasses
import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel, PreTrainedConfig

import genrec  # noqa: F401  registers the models
from genrec.models.discriminative import MODELS

HUB_CONFIGS = Path(__file__).parent.parent.parent.parent / "hub_configs"
TYPES = {kind.config_class.model_type for kind in MODELS}
PRESETS = sorted(
    path.parent.name
    for path in HUB_CONFIGS.glob("*/config.json")
    if json.loads(path.read_text())["model_type"] in TYPES
)
OUTPUT_LAYERS = ("item_embeddings.weight", "item_variances.weight", "output_bias")  # grow with the catalog


def test_every_model_has_a_preset_and_a_b_variant_where_it_can():
    assert set(PRESETS) >= TYPES
    assert {f"{kind.config_class.model_type}-b" for kind in MODELS if kind.supports_behavior_ids} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_every_field_but_the_vocabulary(name):
    stored = json.loads((HUB_CONFIGS / name / "config.json").read_text())
    config = AutoConfig.from_pretrained(HUB_CONFIGS / name)
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {field.name for field in dataclasses.fields(config)} - inherited - {"num_items", "num_behaviors"}
    assert stored.keys() == own | {"architectures", "model_type"}
    assert stored.get("behavior_ids", False) == name.endswith("-b")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_size_and_the_class_that_its_card_states(name):
    config = AutoConfig.from_pretrained(HUB_CONFIGS / name, num_items=7, num_behaviors=3)
    model = AutoModel.from_config(config)
    assert type(model).__name__ == config.architectures[0]
    size = sum(values.numel() for key, values in model.named_parameters() if key not in OUTPUT_LAYERS)
    card = (HUB_CONFIGS / name / "README.md").read_text()
    assert f"{size:,} parameters besides those of the items" in card
    assert f"{type(model).__name__}(config)" in card
