"""The families of models that a recipe may name: decoders and encoder-decoders, which write item codes, and scorers.

A preset's `model_type` says which configuration class it is of, and that which family. The families differ in what a
recipe may hold, in how a model is made and trained, and in nothing after: evaluation sees recommenders.
"""

from typing import Any

from genrec.files import read_json
from genrec.presets import preset_path

FIELDS_OF_THE_TOKENIZER = ("codebook_sizes", "behavior_levels", "vocab_size")
FIELDS_OF_THE_DATA = ("num_items", "num_behaviors")
FIELDS_OF_THE_GRAPH = ("num_graph_users", "num_edges")


def config_class(preset: str) -> Any:
    """Return the configuration class of a preset."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from genrec.models import auto

    auto.register()
    return CONFIG_MAPPING[read_json(preset_path("hub_configs", preset) / "config.json")["model_type"]]


def scores_items(preset: str) -> bool:
    """Say whether a preset's models score items, so that they read no item codes.

    >>> scores_items("sasrec"), scores_items("gamer-tiny")
    (True, False)
    """
    from genrec.models.discriminative import DiscriminativeConfig

    return issubclass(config_class(preset), DiscriminativeConfig)


def is_encoder_decoder(preset: str) -> bool:
    """Say whether a preset's models write item codes with a decoder of its own, behind an encoder of the history.

    >>> is_encoder_decoder("tiger-mb"), is_encoder_decoder("gamer-tiny")
    (True, False)
    """
    from genrec.models.encoder_decoder import EncoderDecoderConfig

    return issubclass(config_class(preset), EncoderDecoderConfig)


def recommends(preset: str) -> bool:
    """Say whether a preset's models recommend from a catalog; those that rank given candidates run in no recipe.

    >>> recommends("gamer-tiny"), recommends("din")
    (True, False)
    """
    from genrec.models.gamer import GamerConfig

    return scores_items(preset) or is_encoder_decoder(preset) or config_class(preset) is GamerConfig


def derived_fields(preset: str) -> tuple[str, ...]:
    """Return the fields of a preset's configuration that follow from the item tokenizer or the data."""
    from genrec.models.discriminative import GraphConfig

    if issubclass(config_class(preset), GraphConfig):
        return (*FIELDS_OF_THE_DATA, *FIELDS_OF_THE_GRAPH)
    return FIELDS_OF_THE_DATA if scores_items(preset) else FIELDS_OF_THE_TOKENIZER


def training_arguments_class(preset: str) -> Any:
    """Return the class of the arguments that a preset's models are trained with."""
    if scores_items(preset):
        from genrec.training.item_arguments import ItemTrainingArguments

        return ItemTrainingArguments
    from genrec.training import GenRecTrainingArguments

    return GenRecTrainingArguments


def sample_settings(preset: str) -> dict[str, Any]:
    """Return the keys of a recipe's training section that say which samples are made, and what each takes.

    They are those that the preset's training arguments do not have.
    """
    own: dict[str, Any] = {"augmentation_copies": int}
    return own if scores_items(preset) or is_encoder_decoder(preset) else {**own, "samples": str}


def ignored_training_fields(preset: str) -> tuple[str, ...]:
    """Return the fields of those arguments that these models would ignore."""
    if scores_items(preset):
        from genrec.training.item_arguments import ignored_fields

        return ignored_fields()
    if is_encoder_decoder(preset):
        from genrec.training.encoder_decoder_trainer import IGNORED_FIELDS

        return IGNORED_FIELDS
    return ()
