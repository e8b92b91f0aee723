"""The presets: no vocabulary, the documented sizes, and generation settings that decide everything themselves."""

import json
from pathlib import Path

import pytest
from transformers import GenerationConfig

from genrec.models.gamer import GamerConfig, GamerForCausalLM

HUB_CONFIGS = Path(__file__).parent.parent.parent / "hub_configs"
# Parameters besides the embedding table, for three codes and three behaviors.
SIZES = {
    "gamer-tiny": 304_352,
    "gamer-small": 2_167_040,
    # 20,860,672 in the release, whose expert for padding takes 4 * 458,752 + 4 * 393,216
    "gamer-base": 20_860_672 - 4 * 458_752 - 4 * 393_216,
    "gamer-paper": 21_543_168,
    "qwen3-baseline": 5_510_400,
    "gamer-plus-tiny": 316_612,
    "gamer-plus-small": 2_197_348,
    "gamer-plus": 17_543_780,
}


def test_there_is_a_size_for_every_preset():
    types = {path.parent.name: json.loads(path.read_text())["model_type"] for path in HUB_CONFIGS.glob("*/config.json")}
    assert {name for name, model_type in types.items() if model_type == "gamer"} == SIZES.keys()


@pytest.mark.parametrize("preset", SIZES)
def test_presets_have_no_vocabulary_and_the_size_their_card_states(preset: str):
    fields = json.loads((HUB_CONFIGS / preset / "config.json").read_text())
    assert fields.keys().isdisjoint({"codebook_sizes", "behavior_levels", "vocab_size"})
    vocabulary = {"codebook_sizes": [8, 8, 8], "behavior_levels": [0, 1, 2]}
    config = GamerConfig.from_pretrained(HUB_CONFIGS / preset, **vocabulary)
    model = GamerForCausalLM._from_config(config)
    size = sum(p.numel() for name, p in model.named_parameters() if name != "model.embed_tokens.weight")
    assert size == SIZES[preset]
    assert f"{size:,} parameters" in (HUB_CONFIGS / preset / "README.md").read_text()


@pytest.mark.parametrize("preset", SIZES)
def test_generation_settings_are_those_a_model_starts_with(preset: str):
    config = GamerConfig.from_pretrained(HUB_CONFIGS / preset)
    config.codebook_sizes, config.behavior_levels = [4, 4], [0, 1]
    stored = GenerationConfig.from_pretrained(HUB_CONFIGS / preset)
    model = GamerForCausalLM(GamerConfig(num_hidden_layers=2, codebook_sizes=[4, 4], behavior_levels=[0, 1]))
    assert model.generation_config.to_diff_dict() == stored.to_diff_dict() | {"max_new_tokens": 2}
    assert (stored.num_beams, stored.length_penalty, stored.do_sample, stored.early_stopping) == (20, 0.0, False, True)


@pytest.mark.parametrize("preset", SIZES)
def test_no_setting_that_touches_lengths_or_scores_is_left_to_be_inherited(preset: str):
    stored = json.loads((HUB_CONFIGS / preset / "generation_config.json").read_text())
    neutral = {"min_length": 0, "temperature": 1.0, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0}
    neutral |= {"eta_cutoff": 0.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "renormalize_logits": False}
    assert stored | neutral == stored
