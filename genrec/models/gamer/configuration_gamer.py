"""GAMER's configuration: Qwen3's, a vocabulary of behaviors and codes, and a switch for each variant."""

import dataclasses
import itertools
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from .checked_config import CheckedConfig

PAD = 0
FIRST_BEHAVIOR = 2  # token ids 0 and 1 pad and mask
NUM_PAIR_FEATURES = 8


@strict
class GamerConfig(CheckedConfig, Qwen3Config):
    """The shape of a GAMER model (Generative Augmentation and Multi-lEvel behavior modeling for Recommendation).

    The defaults are the released model's: 8 layers of width 256, 6 heads of 64 with 3 key-value heads. Qwen3's other
    fields are inherited. With `cross_level_layers=[]`, `behavior_injection_layers=[]`, `position_experts=False` and
    `session_wise=False` the model is a plain Qwen3 decoder.

    A preset leaves the vocabulary unset (`codebook_sizes` and `behavior_levels` empty, `vocab_size` `None`); an item
    tokenizer fills it in before a model is built.

    Args:
        codebook_sizes: Codes per level.
        behavior_levels: The level of each behavior, weakest behavior first; behaviors may share a level.
        vocab_size: Rows of the embedding table; computed from the two fields above when left out.
        cross_level_layers: Layers with cross-level behavior attention; `None` means the upper half, as released.
        behavior_injection_layers: Layers whose feed-forward also reads the item's behavior; `None` means the others.
        position_experts: Whether each place in an item has its own feed-forward weights.
        session_wise: Whether items of one session are hidden from each other and share rotary positions.
        softmax: `"full"` normalises over the whole vocabulary, `"level"` over the tokens that may come next.
        max_history_items: Items of history the model is trained on and asked with.
        dropout: Dropout rate after each module and inside the feed-forward.
        behavior_embedding_dim: Width of the embedding that behavior injection appends to a hidden state.
        behavior_loss_weight: Weight of a behavior token's loss, a code's being 1.
        copy_head: Whether a pointer over the user's earlier items is mixed in (see `mixture.py`).
        trend_head: Whether a pointer over the items that all users met lately is mixed in.
        neighbor_head: Whether a pointer over the neighbors of the user's items is mixed in.
        mixture: `"item"` mixes probabilities of whole items, `"level"` has a gate at each level.
        softmax_loss_weight: Weight of the softmax's own loss beside the mixture's.
        loss_unit: What counts once in the loss of a mixture: each `"item"`, each `"query"` (a session's items of one
            behavior together) or each `"user"`, whose queries share their weight, as in evaluation.
        pointer_dim: Width of the pointers' inner layer.
        item_embedding_rows: Rows of a table of embeddings of whole items, added to their last code; 0 has none. With
            as many rows as combinations of codes each item has its own (see `item_embedding.py`).
        time_context: Whether behavior tokens carry the hour and weekday of their session and the time since the last.
        trend_windows: The windows that recent events are counted in, seconds.

    Raises:
        ValueError: If a field has a value outside its range or contradicts another, or is misspelt.

    Example:
        >>> config = GamerConfig(num_hidden_layers=4, codebook_sizes=[16, 16], behavior_levels=[0, 1, 1])
        >>> config.vocab_size, config.tokens_per_item, config.level_offsets
        (37, 3, [5, 21])
        >>> config.cross_level_layers, config.behavior_injection_layers
        ([2, 3], [0, 1])
    """

    model_type = "gamer"
    default_theta = 1_000_000.0
    base_model_tp_plan: ClassVar[dict[str, Any]] = {}
    base_model_pp_plan: ClassVar[dict[str, Any]] = {}

    vocab_size: int | None = None  # type: ignore[assignment]
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 8
    num_attention_heads: int = 6
    num_key_value_heads: int | None = 3
    head_dim: int = 64
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0

    codebook_sizes: list[int] = dataclasses.field(default_factory=list)
    behavior_levels: list[int] = dataclasses.field(default_factory=list)
    cross_level_layers: list[int] | None = None
    behavior_injection_layers: list[int] | None = None
    position_experts: bool = True
    session_wise: bool = False
    softmax: str = "full"
    max_history_items: int = 100
    dropout: float | int = 0.2
    behavior_embedding_dim: int = 64
    behavior_loss_weight: float | int = 0.0
    copy_head: bool = False
    trend_head: bool = False
    neighbor_head: bool = False
    mixture: str = "item"
    softmax_loss_weight: float | int = 0.0
    loss_unit: str = "item"
    pointer_dim: int = 32
    item_embedding_rows: int = 0
    time_context: bool = False
    trend_windows: list[int] = dataclasses.field(default_factory=lambda: [21_600, 86_400, 259_200, 1_209_600])

    def __post_init__(self, **kwargs: Any) -> None:
        self._refuse_misspelt(kwargs)
        middle = self.num_hidden_layers // 2
        if self.cross_level_layers is None:
            self.cross_level_layers = list(range(middle, self.num_hidden_layers))
        if self.behavior_injection_layers is None:
            self.behavior_injection_layers = list(range(middle))
        super().__post_init__(**kwargs)
        self._check_shape()
        self._check_layers()
        self._check_rates()
        self._settle_vocabulary()

    @property
    def num_levels(self) -> int:
        """Codes per item (L)."""
        return len(self.codebook_sizes)

    @property
    def tokens_per_item(self) -> int:
        """A behavior token and L codes (P = L + 1)."""
        return self.num_levels + 1

    @property
    def num_behaviors(self) -> int:
        """How many behaviors the ladder has."""
        return len(self.behavior_levels)

    @property
    def first_code(self) -> int:
        """The lowest token id of a code."""
        return FIRST_BEHAVIOR + self.num_behaviors

    @property
    def level_offsets(self) -> list[int]:
        """The token id of code 0 at each level."""
        return list(itertools.accumulate(self.codebook_sizes[:-1], initial=self.first_code))

    @property
    def has_vocabulary(self) -> bool:
        """Whether the codes and behaviors are known, so that a model can be built."""
        return bool(self.codebook_sizes)

    @property
    def reads_behaviors(self) -> bool:
        """Whether the model needs to know the behavior or session of tokens, and so the whole sequence at each step."""
        return bool(self.cross_level_layers or self.behavior_injection_layers or self.session_wise)

    @property
    def has_mixture(self) -> bool:
        """Whether pointers over known items are mixed into the softmax over codes."""
        return self.copy_head or self.trend_head or self.neighbor_head

    @property
    def num_trend_features(self) -> int:
        """Features of a rising item: counts in each window, of all behaviors and of the asked one."""
        return 2 * len(self.trend_windows)

    @property
    def num_neighbor_features(self) -> int:
        """Features of a neighbor: of its pairs, and counts ever and in each window (`genrec.data.candidates`)."""
        return NUM_PAIR_FEATURES + len(self.trend_windows)

    def require_vocabulary(self) -> int:
        """Return `vocab_size`, computed now if the fields were set one by one.

        Raises:
            ValueError: If `codebook_sizes` and `behavior_levels` are still unset, as in a preset.
        """
        self._settle_vocabulary()
        if self.vocab_size is None:
            raise ValueError(
                "A model needs `codebook_sizes` and `behavior_levels`, but this configuration leaves them unset, as "
                "presets do. Fill them from a fitted item tokenizer: "
                "GamerConfig.from_pretrained(preset, **tokenizer.model_config_fields())."
            )
        return self.vocab_size

    def _check_shape(self) -> None:
        sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        for name in (*sizes, "head_dim", "max_history_items", "behavior_embedding_dim", "pointer_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            raise ValueError(
                f"`num_attention_heads` must be a multiple of `num_key_value_heads`, got {self.num_attention_heads} "
                f"and {self.num_key_value_heads}."
            )
        if self.head_dim % 2:
            raise ValueError(f"`head_dim` must be even for rotary positions, got {self.head_dim}.")
        if set(self.layer_types or ()) != {"full_attention"}:
            raise ValueError(
                "GAMER's attention always sees the whole history. Leave `layer_types` and `use_sliding_window` out, "
                f"got `layer_types`={self.layer_types}."
            )

    def _check_layers(self) -> None:
        for name in ("cross_level_layers", "behavior_injection_layers"):
            layers = getattr(self, name)
            if len(set(layers)) < len(layers) or not all(0 <= layer < self.num_hidden_layers for layer in layers):
                raise ValueError(
                    f"`{name}` must hold distinct layer numbers from 0 to {self.num_hidden_layers - 1} "
                    f"(`num_hidden_layers` - 1), got {layers}."
                )

    def _check_rates(self) -> None:
        if self.softmax not in ("full", "level"):
            raise ValueError(f'`softmax` must be "full" or "level", got {self.softmax!r}.')
        if self.mixture not in ("item", "level"):
            raise ValueError(f'`mixture` must be "item" or "level", got {self.mixture!r}.')
        if self.loss_unit not in ("item", "query", "user"):
            raise ValueError(f'`loss_unit` must be "item", "query" or "user", got {self.loss_unit!r}.')
        if not self.trend_windows or min(self.trend_windows) < 1:
            raise ValueError(f"`trend_windows` must hold at least one number of seconds, got {self.trend_windows}.")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be a rate from 0 to below 1, got {getattr(self, name)}.")
        for name in ("behavior_loss_weight", "softmax_loss_weight", "item_embedding_rows"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if self.behavior_loss_weight and self.has_mixture:
            raise ValueError(
                "`behavior_loss_weight` is the paper model's: with `copy_head`, `trend_head` or `neighbor_head` "
                f"behaviors bear no loss, got {self.behavior_loss_weight}. Leave it at 0."
            )

    def _settle_vocabulary(self) -> None:
        """Compute `vocab_size`, or check it against the codes and behaviors."""
        if bool(self.codebook_sizes) != bool(self.behavior_levels):
            raise ValueError(
                "`codebook_sizes` and `behavior_levels` are set together or not at all, got "
                f"{self.codebook_sizes} and {self.behavior_levels}."
            )
        if not self.has_vocabulary:
            return
        if min(self.codebook_sizes) < 1:
            raise ValueError(f"`codebook_sizes` must be at least 1 at each level, got {self.codebook_sizes}.")
        if min(self.behavior_levels) < 0:
            raise ValueError(f"`behavior_levels` count from 0, got {self.behavior_levels}.")
        rows = self.first_code + sum(self.codebook_sizes)
        if self.vocab_size not in (None, rows):
            raise ValueError(
                f"`vocab_size` is {self.vocab_size}, but {self.num_behaviors} behaviors and codebooks of "
                f"{self.codebook_sizes} make {rows} token ids. Leave `vocab_size` out to have it computed."
            )
        self.vocab_size = rows
