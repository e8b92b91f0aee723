"""Ranking baselines: models that say how likely a shown item is to convert, by attention from the item to the history.

They read catalog rows; `GamerForRanking`, which reads codes, is in `genrec.models.gamer`.
"""

from .base import RankingModel
from .candidate_transformer import CandidateTransformerConfig, CandidateTransformerModel
from .configuration import RankingConfig
from .din import DINConfig, DINModel

MODELS: tuple[type[RankingModel], ...] = (DINModel, CandidateTransformerModel)
"""Every ranking baseline; each knows its configuration."""

__all__ = [
    "MODELS",
    "CandidateTransformerConfig",
    "CandidateTransformerModel",
    "DINConfig",
    "DINModel",
    "RankingConfig",
    "RankingModel",
]
