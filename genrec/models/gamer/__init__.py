"""GAMER: a Qwen3-derived decoder with cross-level behavior attention and position-and-behavior experts."""

from .backbone import GamerModel
from .configuration_gamer import GamerConfig
from .configuration_ranking import GamerRankingConfig
from .modeling_gamer import GamerForCausalLM
from .modeling_ranking import GamerForRanking

__all__ = ["GamerConfig", "GamerForCausalLM", "GamerForRanking", "GamerModel", "GamerRankingConfig"]
