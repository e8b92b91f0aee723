"""What the configurations of all scoring models share: the catalog, the behaviors and the size of the embeddings."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from genrec.models.gamer.checked_config import CheckedConfig

LOSSES = (SOFTMAX, SAMPLED) = ("softmax", "bce")


@strict
class DiscriminativeConfig(CheckedConfig, PreTrainedConfig):
    """The fields of every model that scores the whole catalog.

    A preset leaves the vocabulary unset (`num_items` and `num_behaviors` None); it follows from the data.

    Args:
        num_items: Items in the catalog.
        num_behaviors: Behaviors in the ladder.
        behavior_ids: Whether an item is another one under each behavior, with an embedding of its own: the `-B`
            variants. The id is then `behavior * num_items + item`, and a behavior is asked for by scoring its ids only.
        hidden_size: Width of the item embeddings.
        max_history_items: Items of history that the model reads, the latest ones.
        dropout: Dropout rate.
        initializer_range: Standard deviation of the initial weights.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.
    """

    num_items: int | None = None
    num_behaviors: int | None = None
    behavior_ids: bool = False
    hidden_size: int = 64
    max_history_items: int = 50
    dropout: float | int = 0.2
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self._refuse_misspelt(kwargs)
        super().__post_init__(**kwargs)
        self._check()

    @property
    def num_item_ids(self) -> int:
        """Ids that the model tells apart: items, or items under each behavior."""
        num_items, num_behaviors = self.require_vocabulary()
        return num_items * (num_behaviors if self.behavior_ids else 1)

    def require_vocabulary(self) -> tuple[int, int]:
        """Return `num_items` and `num_behaviors`.

        Raises:
            ValueError: If `num_items` or `num_behaviors` is still unset, as in a preset.
        """
        if self.num_items is None or self.num_behaviors is None:
            raise ValueError(
                "A model needs `num_items` and `num_behaviors`, but this configuration leaves them unset, as presets "
                f"do. Give both: {type(self).__name__}.from_pretrained(preset, num_items=..., num_behaviors=...)."
            )
        return self.num_items, self.num_behaviors

    def _check(self) -> None:
        for name in ("num_items", "num_behaviors", "hidden_size", "max_history_items"):
            self._require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1")
        self._require(0 <= self.dropout < 1, "dropout", "a rate from 0 to below 1")


@strict
class NextItemConfig(DiscriminativeConfig):
    """The further fields of models that predict each item of a history from those before it.

    Args:
        loss: `"softmax"`, the cross-entropy over all items, or `"bce"`, the binary one against a single item that the
            row does not hold, drawn anew each time.
        session_wise: Whether an item is predicted from the end of the session before, as at inference, instead of from
            the item just before it. It trains on the same predictions as one sample per interaction with the history
            of earlier sessions does, at the cost of one sample per user.
    """

    loss: str = SOFTMAX
    session_wise: bool = False

    def _check(self) -> None:
        super()._check()
        self._require(self.loss in LOSSES, "loss", f"one of {', '.join(LOSSES)}")


@strict
class TransformerConfig(DiscriminativeConfig):
    """The further fields of models built on the transformer encoder of `encoder.py`.

    Args:
        num_hidden_layers: Layers of the encoder.
        num_attention_heads: Heads of each; must divide `hidden_size`.
        intermediate_size: Inner width of the feed-forward.
        hidden_act: Its activation.
        attention_dropout: Dropout rate of the attention weights.
        layer_norm_eps: Added to variances.
        norm_first: Whether layers normalise their input (and the encoder its output) instead of their sum.
    """

    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int = 256
    hidden_act: str = "gelu"
    attention_dropout: float | int = 0.0
    layer_norm_eps: float = 1e-12
    norm_first: bool = False

    def _check(self) -> None:
        super()._check()
        for name in ("num_hidden_layers", "num_attention_heads", "intermediate_size"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        self._require(0 <= self.attention_dropout < 1, "attention_dropout", "a rate from 0 to below 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads`, got {self.hidden_size} and "
                f"{self.num_attention_heads}."
            )
