"""Tiny encoder-decoder models and random histories for them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from genrec.models.encoder_decoder import (
    ItemCodeT5,
    MBGenConfig,
    MBGenForConditionalGeneration,
    TigerConfig,
    TigerForConditionalGeneration,
)

CODEBOOK_SIZES = [5, 4, 6]
LEVEL_OFFSETS = [5, 10, 14]
BEHAVIOR_LEVELS = [0, 1, 2]
TINY = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "initializer_factor": 2.0,  # large, so that a wrong mask or route shows in the logits
    "codebook_sizes": CODEBOOK_SIZES,
    "behavior_levels": BEHAVIOR_LEVELS,
}
MODELS: dict[str, Callable[..., ItemCodeT5]] = {
    "tiger": lambda **fields: TigerForConditionalGeneration(TigerConfig(**{**TINY, **fields})),
    "tiger-mb": lambda **fields: TigerForConditionalGeneration(
        TigerConfig(**{**TINY, "behavior_tokens": True} | fields)
    ),
    "mbgen": lambda **fields: MBGenForConditionalGeneration(MBGenConfig(**{**TINY, **fields})),
}


def tiny_model(name: str, seed: int = 0, **fields: Any) -> ItemCodeT5:
    """Return a random model in evaluation mode, always the same for the same arguments."""
    torch.manual_seed(seed)
    return MODELS[name](**fields).eval()


def random_items(num_rows: int, num_items: int, has_behaviors: bool, seed: int = 0) -> Tensor:
    """Return the tokens of whole items, `[rows, items * tokens per item]`."""
    draw = torch.Generator().manual_seed(seed)
    columns = [
        torch.randint(size, (num_rows, num_items), generator=draw) + offset
        for size, offset in zip([len(BEHAVIOR_LEVELS), *CODEBOOK_SIZES], [2, *LEVEL_OFFSETS])
    ]
    return torch.stack(columns if has_behaviors else columns[1:], dim=2).flatten(1)


def batch_of(name: str, num_rows: int = 3, num_items: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Return unpadded histories with their end tokens, and the labels of an item after each."""
    end = torch.ones(num_rows, 1, dtype=torch.long)
    has_behaviors = name != "tiger"
    history = random_items(num_rows, num_items, has_behaviors, seed)
    item = random_items(num_rows, 1, has_behaviors, seed + 1)
    return {"input_ids": torch.cat([history, end], dim=1), "labels": torch.cat([item, end], dim=1)}


@pytest.fixture(params=list(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param
