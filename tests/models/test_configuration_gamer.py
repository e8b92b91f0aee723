"""The vocabulary's arithmetic, the defaults, and every refusal of `GamerConfig`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError

from genrec.item_tokenizers.vocabulary import Vocabulary
from genrec.models.gamer import GamerConfig, GamerForCausalLM, GamerModel


def test_token_ids_are_those_of_the_item_tokenizers(config_of: Callable[..., GamerConfig]):
    vocabulary = Vocabulary(num_behaviors=4, codebook_sizes=(5, 4, 6))
    config = config_of()
    assert config.level_offsets == list(vocabulary.level_offsets) == [6, 11, 15]
    assert config.vocab_size == vocabulary.vocab_size == 21
    assert (config.num_levels, config.tokens_per_item, config.num_behaviors) == (3, 4, 4)


@pytest.mark.parametrize(
    ("num_layers", "injection", "cross"), [(2, [0], [1]), (3, [0], [1, 2]), (8, [0, 1, 2, 3], [4, 5, 6, 7])]
)
def test_layers_default_to_the_released_halves(num_layers: int, injection: list[int], cross: list[int]):
    config = GamerConfig(num_hidden_layers=num_layers)
    assert config.behavior_injection_layers == injection
    assert config.cross_level_layers == cross


def test_an_empty_list_of_layers_stays_empty(config_of: Callable[..., GamerConfig]):
    config = config_of(cross_level_layers=[], behavior_injection_layers=[])
    assert config.cross_level_layers == config.behavior_injection_layers == []
    assert not config.reads_behaviors
    assert config_of(cross_level_layers=[], behavior_injection_layers=[], session_wise=True).reads_behaviors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cross_level_layers": [2]}, r"`cross_level_layers` must hold distinct layer numbers from 0 to 1.*got \[2\]"),
        ({"behavior_injection_layers": [-1]}, r"`behavior_injection_layers` must hold distinct.*got \[-1\]"),
        ({"cross_level_layers": [1, 1]}, r"distinct layer numbers.*got \[1, 1\]"),
        ({"softmax": "half"}, r'`softmax` must be "full" or "level", got \'half\''),
        ({"num_key_value_heads": 3}, r"`num_attention_heads` must be a multiple.*got 4 and 3"),
        ({"head_dim": 7}, "`head_dim` must be even for rotary positions, got 7"),
        ({"hidden_size": 0}, "`hidden_size` must be at least 1, got 0"),
        ({"max_history_items": 0}, "`max_history_items` must be at least 1, got 0"),
        ({"dropout": 1.0}, "`dropout` must be a rate from 0 to below 1, got 1.0"),
        ({"attention_dropout": -0.1}, "`attention_dropout` must be a rate"),
        ({"behavior_loss_weight": -1.0}, "`behavior_loss_weight` must not be negative, got -1.0"),
        ({"codebook_sizes": [4, 0]}, r"`codebook_sizes` must be at least 1 at each level, got \[4, 0\]"),
        ({"behavior_levels": [0, -1]}, r"`behavior_levels` count from 0, got \[0, -1\]"),
        ({"behavior_levels": []}, "`codebook_sizes` and `behavior_levels` are set together"),
        ({"vocab_size": 99}, r"`vocab_size` is 99, but 4 behaviors and codebooks of \[5, 4, 6\] make 21 token ids"),
        ({"use_sliding_window": True, "max_window_layers": 0}, "attention always sees the whole history"),
        ({"cross_level_layer": [0]}, "no field `cross_level_layer`. Did you mean `cross_level_layers`"),
        ({"codebook_size": [4]}, "no field `codebook_size`. Did you mean `codebook_sizes`"),
    ],
)
def test_bad_fields_are_refused(config_of: Callable[..., GamerConfig], fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        config_of(**fields)


@pytest.mark.parametrize("fields", [{"codebook_sizes": "256"}, {"session_wise": "yes"}, {"hidden_size": 1.5}])
def test_wrong_types_are_refused(config_of: Callable[..., GamerConfig], fields: dict[str, Any]):
    with pytest.raises(StrictDataclassFieldValidationError, match=next(iter(fields))):
        config_of(**fields)


@pytest.mark.parametrize("model_class", [GamerModel, GamerForCausalLM])
def test_no_model_without_a_vocabulary(model_class: type):
    with pytest.raises(ValueError, match="needs `codebook_sizes` and `behavior_levels`.*model_config_fields"):
        model_class(GamerConfig(num_hidden_layers=2))


def test_fields_set_one_by_one_are_settled_when_a_model_is_built():
    config = GamerConfig(num_hidden_layers=2)
    config.codebook_sizes, config.behavior_levels = [4, 4], [0, 1]
    assert config.require_vocabulary() == config.vocab_size == 12


def test_a_preset_takes_its_vocabulary_from_keyword_arguments(tmp_path: Path):
    GamerConfig(num_hidden_layers=2, hidden_size=32).save_pretrained(tmp_path)
    config = GamerConfig.from_pretrained(tmp_path, codebook_sizes=[4, 4], behavior_levels=[0, 1])
    assert (config.vocab_size, config.hidden_size) == (12, 32)
    with pytest.raises(ValueError, match="`vocab_size` is 13"):
        GamerConfig.from_pretrained(tmp_path, codebook_sizes=[4, 4], behavior_levels=[0, 1], vocab_size=13)
    with pytest.raises(ValueError, match="Did you mean `codebook_sizes`"):
        GamerConfig.from_pretrained(tmp_path, codebooks_sizes=[4, 4])


def test_a_saved_configuration_comes_back_equal(config_of: Callable[..., GamerConfig], tmp_path: Path):
    config = config_of(session_wise=True, softmax="level", cross_level_layers=[0], behavior_loss_weight=0.5)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "gamer"
    assert GamerConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
