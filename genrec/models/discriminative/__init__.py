"""Scoring models: one file each, all with `score_items`, which gives every item of the catalog a score."""

from .base import DiscriminativeModel, DiscriminativeOutput, NextItemModel
from .bert4rec import BERT4RecConfig, BERT4RecModel
from .configuration import DiscriminativeConfig
from .gru4rec import GRU4RecConfig, GRU4RecModel
from .mbstr import MBSTRConfig, MBSTRModel
from .sasrec import SASRecConfig, SASRecModel

MODELS: tuple[type[DiscriminativeModel], ...] = (GRU4RecModel, SASRecModel, BERT4RecModel, MBSTRModel)
"""Every scoring model; each knows its configuration."""

__all__ = [
    "MODELS",
    "BERT4RecConfig",
    "BERT4RecModel",
    "DiscriminativeConfig",
    "DiscriminativeModel",
    "DiscriminativeOutput",
    "GRU4RecConfig",
    "GRU4RecModel",
    "MBSTRConfig",
    "MBSTRModel",
    "NextItemModel",
    "SASRecConfig",
    "SASRecModel",
]
