"""What the configurations of all ranking baselines share: the catalog, the behaviors and the size of the embeddings."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class RankingConfig(PreTrainedConfig):
    """The fields of every ranking baseline.

    A preset leaves `num_items` unset; it follows from the data.

    Args:
        num_items: Items in the catalog.
        num_behaviors: How an interaction may end: 2 are exposure and conversion. The last one is the conversion.
        hidden_size: Width of the item embeddings.
        max_history_items: Interactions of the history that the model reads, the latest ones.
        dropout: Dropout rate.
        initializer_range: Standard deviation of the initial embeddings; linear maps start at 1/sqrt(fan-in).

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.
    """

    num_items: int | None = None
    num_behaviors: int = 2
    hidden_size: int = 32
    max_history_items: int = 50
    dropout: float | int = 0.1
    initializer_range: float | int = 0.05

    def __post_init__(self, **kwargs: Any) -> None:
        self._refuse_misspelt(kwargs)
        super().__post_init__(**kwargs)
        self._check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return a configuration of a dictionary's values, with keyword arguments in place of some of them.

        transformers sets keyword arguments after the checks; here they are part of what is checked.

        Args:
            config_dict: Field name -> value, as in `config.json`.
            **kwargs: Fields to replace, and transformers' own options.
        """
        cls._refuse_misspelt(kwargs)
        names = {field.name for field in dataclasses.fields(cls)} - {"dtype"}  # whose "auto" transformers resolves
        replaced = {name: kwargs.pop(name) for name in names & kwargs.keys()}
        return super().from_dict({**config_dict, **replaced}, **kwargs)

    def require_items(self) -> int:
        """Return `num_items`.

        Raises:
            ValueError: If it is still unset, as in a preset.
        """
        if self.num_items is None:
            raise ValueError(
                "A model needs `num_items`, but this configuration leaves it unset, as presets do. Give it: "
                f"{type(self).__name__}.from_pretrained(preset, num_items=...)."
            )
        return self.num_items

    @classmethod
    def _refuse_misspelt(cls, given: Iterable[str]) -> None:
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
            if nearest and nearest[0] != name and not name.startswith("_") and not hasattr(cls, name):
                raise ValueError(f"{cls.__name__} has no field `{name}`. Did you mean `{nearest[0]}`?")

    def _check(self) -> None:
        for name in ("num_items", "hidden_size", "max_history_items"):
            self._require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1")
        self._require(self.num_behaviors >= 2, "num_behaviors", "at least 2, exposure and conversion")
        self._require(0 <= self.dropout < 1, "dropout", "a rate from 0 to below 1")

    def _require(self, is_met: bool, name: str, rule: str) -> None:
        if not is_met:
            raise ValueError(f"`{name}` must be {rule}, got {getattr(self, name)!r}.")
