"""Encoder-decoder models over item codes: TIGER, TIGER-MB and MBGen."""

from .base import ItemCodeT5
from .configuration import EncoderDecoderConfig, MBGenConfig, TigerConfig
from .mbgen import MBGenForConditionalGeneration
from .tiger import TigerForConditionalGeneration

MODELS: tuple[type[ItemCodeT5], ...] = (TigerForConditionalGeneration, MBGenForConditionalGeneration)
"""Every encoder-decoder model; each knows its configuration."""

__all__ = [
    "MODELS",
    "EncoderDecoderConfig",
    "ItemCodeT5",
    "MBGenConfig",
    "MBGenForConditionalGeneration",
    "TigerConfig",
    "TigerForConditionalGeneration",
]
