"""What the configurations of encoder-decoder models share: T5's, and a vocabulary of behaviors and codes."""

import dataclasses
import itertools
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.models.t5.configuration_t5 import T5Config

from genrec.models.gamer.checked_config import CheckedConfig

PAD = 0  # also what the decoder starts with, as in T5
END = 1  # after a history and after an item; the item tokenizers keep this token id free
FIRST_BEHAVIOR = 2


@strict
class EncoderDecoderConfig(CheckedConfig, T5Config):
    """T5's configuration with the vocabulary of an item tokenizer.

    A preset leaves the vocabulary unset (`codebook_sizes` and `behavior_levels` empty, `vocab_size` None); an item
    tokenizer fills it in before a model is built.

    Args:
        codebook_sizes: Codes per level.
        behavior_levels: The level of each behavior, weakest behavior first.
        vocab_size: Rows of the embedding table; computed from the two fields above when left out.
        max_history_items: Items of history that the encoder reads, the latest ones.

    Raises:
        ValueError: If a field has a value outside its range or contradicts another, or is misspelt.
    """

    vocab_size: int | None = None  # type: ignore[assignment]
    d_model: int = 128
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 4
    num_heads: int = 6
    decoder_start_token_id: int | None = PAD
    eos_token_id: int | list[int] | None = END

    codebook_sizes: list[int] = dataclasses.field(default_factory=list)
    behavior_levels: list[int] = dataclasses.field(default_factory=list)
    max_history_items: int = 50

    def __post_init__(self, **kwargs: Any) -> None:
        self._refuse_misspelt(kwargs)
        super().__post_init__(**kwargs)
        self._check()
        self._settle_vocabulary()

    @property
    def writes_behaviors(self) -> bool:
        """Whether a behavior token stands before each item's codes."""
        return True

    @property
    def num_levels(self) -> int:
        """Codes per item (L)."""
        return len(self.codebook_sizes)

    @property
    def num_behaviors(self) -> int:
        """How many behaviors the ladder has."""
        return len(self.behavior_levels)

    @property
    def level_offsets(self) -> list[int]:
        """The token id of code 0 at each level."""
        first_code = FIRST_BEHAVIOR + self.num_behaviors
        return list(itertools.accumulate(self.codebook_sizes[:-1], initial=first_code))

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
                f"{type(self).__name__}.from_pretrained(preset, **tokenizer.model_config_fields())."
            )
        return self.vocab_size

    def _check(self) -> None:
        for name in ("d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "max_history_items"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"`dropout_rate` must be a rate from 0 to below 1, got {self.dropout_rate}.")
        for name, value in (("pad_token_id", PAD), ("decoder_start_token_id", PAD), ("eos_token_id", END)):
            if getattr(self, name) != value:
                raise ValueError(f"`{name}` is {value} in every vocabulary of items, got {getattr(self, name)}.")

    def _settle_vocabulary(self) -> None:
        """Compute `vocab_size`, or check it against the codes and behaviors."""
        if bool(self.codebook_sizes) != bool(self.behavior_levels):
            raise ValueError(
                "`codebook_sizes` and `behavior_levels` are set together or not at all, got "
                f"{self.codebook_sizes} and {self.behavior_levels}."
            )
        if not self.codebook_sizes:
            return
        if min(self.codebook_sizes) < 1:
            raise ValueError(f"`codebook_sizes` must be at least 1 at each level, got {self.codebook_sizes}.")
        rows = FIRST_BEHAVIOR + self.num_behaviors + sum(self.codebook_sizes)
        if self.vocab_size not in (None, rows):
            raise ValueError(
                f"`vocab_size` is {self.vocab_size}, but {self.num_behaviors} behaviors and codebooks of "
                f"{self.codebook_sizes} make {rows} token ids. Leave `vocab_size` out to have it computed."
            )
        self.vocab_size = rows


@strict
class TigerConfig(EncoderDecoderConfig):
    """The shape of TIGER (Rajput et al., NeurIPS 2023), and with behavior tokens of TIGER-MB.

    The defaults are those of GAMER's released baseline: 4 + 4 layers of width 128, 6 heads of 64.

    Args:
        behavior_tokens: Whether a behavior token stands before each item's codes, in the history and in what is
            written (TIGER-MB). Without, the model knows of no behaviors and ranks alike for each.

    Raises:
        ValueError: If a field has a value outside its range or contradicts another, or is misspelt.

    Example:
        >>> config = TigerConfig(codebook_sizes=[16, 16], behavior_levels=[0, 1, 1], behavior_tokens=True)
        >>> config.vocab_size, config.level_offsets
        (37, [5, 21])
    """

    model_type = "tiger"

    behavior_tokens: bool = False

    @property
    def writes_behaviors(self) -> bool:
        """Whether a behavior token stands before each item's codes."""
        return self.behavior_tokens


@strict
class MBGenConfig(EncoderDecoderConfig):
    """The shape of MBGen (Liu et al., CIKM 2024): T5 with experts by place and behavior injection.

    The defaults are those of GAMER's released baseline: 4 + 4 layers of width 256, 6 heads of 64, inner width 512.

    Args:
        expert_layers: Decoder layers whose feed-forward has weights of its own for each place: the start, the behavior
            token, and each level; `None` means all.
        behavior_injection_layers: Layers, of encoder and decoder alike, whose feed-forward also reads the item's
            behavior; `None` means the first half.
        behavior_embedding_dim: Width of the behavior embedding that is appended to a hidden state.

    Raises:
        ValueError: If a field has a value outside its range or contradicts another, or is misspelt.

    Example:
        >>> config = MBGenConfig(codebook_sizes=[16, 16], behavior_levels=[0, 1, 1])
        >>> config.expert_layers, config.behavior_injection_layers, config.num_places
        ([0, 1, 2, 3], [0, 1], 4)
    """

    model_type = "mbgen"

    d_model: int = 256
    d_ff: int = 512
    expert_layers: list[int] | None = None
    behavior_injection_layers: list[int] | None = None
    behavior_embedding_dim: int = 64

    def __post_init__(self, **kwargs: Any) -> None:
        num_decoder_layers = self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers
        if self.expert_layers is None:
            self.expert_layers = list(range(num_decoder_layers))
        if self.behavior_injection_layers is None:
            self.behavior_injection_layers = list(range(self.num_layers // 2))
        super().__post_init__(**kwargs)

    @property
    def num_places(self) -> int:
        """Places of a decoder's token: the start, the behavior, and each level."""
        return 2 + self.num_levels

    def _check(self) -> None:
        super()._check()
        both = min(self.num_layers, self.num_decoder_layers or self.num_layers)
        limits = {"expert_layers": self.num_decoder_layers or self.num_layers, "behavior_injection_layers": both}
        for name, limit in limits.items():
            layers = getattr(self, name)
            if len(set(layers)) < len(layers) or not all(0 <= layer < limit for layer in layers):
                raise ValueError(f"`{name}` must hold distinct layer numbers from 0 to {limit - 1}, got {layers}.")
        if self.behavior_embedding_dim < 1:
            raise ValueError(f"`behavior_embedding_dim` must be at least 1, got {self.behavior_embedding_dim}.")
