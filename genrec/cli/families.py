"""The two families of models that a recipe may name: those that write item codes, and those that score items.

A preset's `model_type` says which configuration class it is of, and that which family. The families differ in what a
recipe may hold, in how a model is made and trained, and in nothing after: evaluation sees recommenders.
"""

from typing import Any

from genrec.files import read_json
from genrec.presets import preset_path

FIELDS_OF_THE_TOKENIZER = ("codebook_sizes", "behavior_levels", "vocab_size")
FIELDS_OF_THE_DATA = ("num_items", "num_behaviors")


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


def derived_fields(preset: str) -> tuple[str, ...]:
    """Return the fields of a preset's configuration that follow from the item tokenizer or the data."""
    return FIELDS_OF_THE_DATA if scores_items(preset) else FIELDS_OF_THE_TOKENIZER


def training_arguments_class(preset: str) -> Any:
    """Return the class of the arguments that a preset's models are trained with."""
    if scores_items(preset):
        from genrec.training.item_arguments import ItemTrainingArguments

        return ItemTrainingArguments
    from genrec.training import GenRecTrainingArguments

    return GenRecTrainingArguments


def ignored_training_fields(preset: str) -> tuple[str, ...]:
    """Return the fields of those arguments that these models would ignore."""
    if not scores_items(preset):
        return ()
    from genrec.training.item_arguments import ignored_fields

    return ignored_fields()
