"""GAMER: a Qwen3-derived decoder with cross-level behavior attention and position-and-behavior experts."""

from .configuration_gamer import GamerConfig
from .modeling_gamer import GamerForCausalLM, GamerModel

__all__ = ["GamerConfig", "GamerForCausalLM", "GamerModel"]
