"""Every module's own initialisation takes effect: transformers leaves some out where a class is not its own."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

import genrec  # noqa: F401  registers the models
from genrec.models.discriminative import MODELS as SCORING
from genrec.models.encoder_decoder import MODELS as ENCODER_DECODERS
from genrec.models.gamer import GamerForCausalLM, GamerForRanking
from genrec.models.ranking import MODELS as RANKING

PRESETS = Path(__file__).parent.parent.parent / "hub_configs"
CODES = {"codebook_sizes": [16, 16], "behavior_levels": [0, 1, 2]}
ITEMS = {"num_items": 40, "num_behaviors": 3}
CLASSES = (*SCORING, *ENCODER_DECODERS, *RANKING, GamerForCausalLM, GamerForRanking)
MODELS = {model.config_class.model_type: model for model in CLASSES}
NAMES = (
    *("sasrec", "gru4rec", "bert4rec", "mb-str", "pbat", "mbht", "mb-gmn", "s-mbrec", "din", "candidate-transformer"),
    *("tiger-mb-tiny", "mbgen-tiny", "gamer-tiny", "gamer-plus-tiny", "gamer-ranking-tiny"),
)
MANY = 256  # numbers whose standard deviation is known within a quarter


def made(name: str) -> PreTrainedModel:
    config_class = type(AutoConfig.from_pretrained(PRESETS / name))
    vocabulary = CODES if hasattr(config_class(), "codebook_sizes") else ITEMS
    torch.manual_seed(0)
    return MODELS[config_class.model_type](config_class.from_pretrained(PRESETS / name, **vocabulary))


def initialise_again(module: nn.Module, owner: PreTrainedModel) -> None:
    """Initialise every module, innermost first, whatever is flagged as done."""
    owner = module if isinstance(module, PreTrainedModel) else owner
    for child in module.children():
        initialise_again(child, owner)
    for weights in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        weights._is_hf_initialized = False
    owner._init_weights(module)


@pytest.mark.parametrize("name", NAMES)
def test_weights_have_the_spread_that_the_model_asks_for(name):
    found, wanted = made(name), made(name)
    initialise_again(wanted, wanted)
    for (path, left), right in zip(found.named_parameters(), wanted.parameters(), strict=True):
        spreads = [float(weights.detach().std(correction=0)) for weights in (left, right)]
        assert (spreads[0] == 0) == (spreads[1] == 0), path
        if left.numel() >= MANY:
            assert spreads[0] == pytest.approx(spreads[1], rel=0.25), path
