"""A checkpoint that loads without genrec: the folder carries this package's files as Hub remote code."""

from pathlib import Path
from typing import Any

from .backbone import GamerModel
from .configuration_gamer import GamerConfig
from .modeling_gamer import GamerForCausalLM

AUTO_CLASSES: dict[Any, str] = {
    GamerConfig: "AutoConfig",
    GamerModel: "AutoModel",
    GamerForCausalLM: "AutoModelForCausalLM",
}


def save_portable(model: GamerForCausalLM | GamerModel, folder: str | Path) -> None:
    """Save a model together with its code, so that any process with transformers can load it.

    Loading takes `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`.

    Args:
        model: The model to save.
        folder: Where to; created if it does not exist.
    """
    try:
        for auto_class, name in AUTO_CLASSES.items():
            auto_class._auto_class = name
        model.save_pretrained(folder)
    finally:  # later saves of this process stay without code
        for auto_class in AUTO_CLASSES:
            auto_class._auto_class = None
        model.config.__dict__.pop("auto_map", None)
