"""What the configurations of all ranking baselines share: the catalog, the behaviors and the size of the embeddings."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from genrec.models.gamer.checked_config import CheckedConfig


@strict
class RankingConfig(CheckedConfig, PreTrainedConfig):
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

    def _check(self) -> None:
        for name in ("num_items", "hidden_size", "max_history_items"):
            self._require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1")
        self._require(self.num_behaviors >= 2, "num_behaviors", "at least 2, exposure and conversion")
        self._require(0 <= self.dropout < 1, "dropout", "a rate from 0 to below 1")
