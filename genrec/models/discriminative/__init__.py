"""Scoring models: one file each, all with `score_items`, which gives every item of the catalog a score."""

from .base import DiscriminativeModel, DiscriminativeOutput, NextItemModel
from .bert4rec import BERT4RecConfig, BERT4RecModel
from .configuration import DiscriminativeConfig
from .graph import GraphConfig, GraphModel
from .gru4rec import GRU4RecConfig, GRU4RecModel
from .mbgmn import MBGMNConfig, MBGMNModel
from .mbht import MBHTConfig, MBHTModel
from .mbstr import MBSTRConfig, MBSTRModel
from .pbat import PBATConfig, PBATModel
from .sasrec import SASRecConfig, SASRecModel
from .smbrec import SMBRecConfig, SMBRecModel

MODELS: tuple[type[DiscriminativeModel], ...] = (
    GRU4RecModel,
    SASRecModel,
    BERT4RecModel,
    MBSTRModel,
    PBATModel,
    MBHTModel,
    MBGMNModel,
    SMBRecModel,
)
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
    "GraphConfig",
    "GraphModel",
    "MBGMNConfig",
    "MBGMNModel",
    "MBHTConfig",
    "MBHTModel",
    "MBSTRConfig",
    "MBSTRModel",
    "NextItemModel",
    "PBATConfig",
    "PBATModel",
    "SASRecConfig",
    "SASRecModel",
    "SMBRecConfig",
    "SMBRecModel",
]
