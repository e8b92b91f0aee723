"""The presets of encoder-decoder models: no vocabulary, the size and the class that their cards state."""

import dataclasses
import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers.models.t5.configuration_t5 import T5Config

import genrec  # noqa: F401  registers the models

HUB_CONFIGS = Path(__file__).parent.parent.parent.parent / "hub_configs"
PRESETS = ["mbgen", "mbgen-tiny", "tiger", "tiger-mb", "tiger-mb-tiny", "tiger-tiny"]
VOCABULARY = {"codebook_sizes", "behavior_levels", "vocab_size"}


def test_every_preset_is_checked_here():
    types = {path.parent.name: json.loads(path.read_text())["model_type"] for path in HUB_CONFIGS.glob("*/config.json")}
    assert sorted(name for name, model_type in types.items() if model_type in ("tiger", "mbgen")) == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_every_field_of_its_own_but_the_vocabulary(name):
    stored = json.loads((HUB_CONFIGS / name / "config.json").read_text())
    config = AutoConfig.from_pretrained(HUB_CONFIGS / name)
    own = {field.name for field in dataclasses.fields(config)} - {field.name for field in dataclasses.fields(T5Config)}
    assert stored.keys() >= own - VOCABULARY
    assert stored.keys().isdisjoint(VOCABULARY)
    assert stored.get("behavior_tokens", True) == (not name.startswith("tiger") or "mb" in name)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_size_and_the_class_that_its_card_states(name):
    config = AutoConfig.from_pretrained(HUB_CONFIGS / name, codebook_sizes=[8, 8, 8], behavior_levels=[0, 1, 2])
    model = AutoModelForSeq2SeqLM.from_config(config)
    assert type(model).__name__ == config.architectures[0]
    size = sum(values.numel() for key, values in model.named_parameters() if key != "shared.weight")
    card = (HUB_CONFIGS / name / "README.md").read_text()
    assert f"{size:,} parameters besides the embedding table" in card
    assert f"{type(model).__name__}(config)" in card
