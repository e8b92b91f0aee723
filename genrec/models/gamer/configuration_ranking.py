"""The configuration of `GamerForRanking`: GAMER's, with the behavior after the codes and in a vocabulary of its own."""

from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_gamer import PAD, GamerConfig

FIXED = {  # fields of `GamerConfig` that are about writing the next item, or would let a label be seen
    "session_wise": True,
    "softmax": "full",
    "copy_head": False,
    "trend_head": False,
    "neighbor_head": False,
    "time_context": False,
    "loss_unit": "item",
    "behavior_loss_weight": 0.0,
    "softmax_loss_weight": 0.0,
    "item_embedding_rows": 0,
}


@strict
class GamerRankingConfig(GamerConfig):
    """The shape of a `GamerForRanking`; GAMER (Wang et al., arXiv 2511.03155), appendix D.

    An interaction is `[c1, ..., cL, mask, behavior]` (see `modeling_ranking.py`), and codes and behaviors have token
    ids of their own: codes count from 1 behind padding, behaviors from 2 behind padding and mask.

    Args:
        code_loss_weight: Weight of the codes' loss, that of the behaviors being 1.
        session_wise: Always true: how a session's interactions end is not known while it lasts.

    Raises:
        ValueError: If a field has a value outside its range, would be ignored, or is misspelt.

    Example:
        >>> config = GamerRankingConfig(num_hidden_layers=2, codebook_sizes=[4, 8], behavior_levels=[0, 1])
        >>> config.vocab_size, config.level_offsets, config.tokens_per_item
        (13, [1, 5], 4)
    """

    model_type = "gamer-ranking"

    session_wise: bool = True
    code_loss_weight: float | int = 1.0

    @property
    def first_code(self) -> int:
        """The lowest token id of a code: behaviors are in another vocabulary."""
        return PAD + 1

    @property
    def tokens_per_item(self) -> int:
        """L codes, the mask that asks for the behavior, and the behavior (P = L + 2)."""
        return self.num_levels + 2

    @property
    def conversions(self) -> list[bool]:
        """Whether each behavior is a conversion, which those of the highest level are."""
        return [level == max(self.behavior_levels) for level in self.behavior_levels]

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name, value in FIXED.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"`{name}` must stay {value!r} for ranking, got {getattr(self, name)!r}. Leave it out."
                )
        if self.code_loss_weight < 0:
            raise ValueError(f"`code_loss_weight` must not be negative, got {self.code_loss_weight}.")
        if self.behavior_levels and max(self.behavior_levels) == 0:
            raise ValueError(
                f"`behavior_levels` must have two levels, exposure and conversion, got {self.behavior_levels}."
            )
