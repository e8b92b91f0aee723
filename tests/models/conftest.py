"""A tiny GAMER and random histories for it, shared by the tests of this folder."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from genrec.models.gamer import GamerConfig, GamerForCausalLM

CODEBOOK_SIZES = [5, 4, 6]
BEHAVIOR_LEVELS = [0, 1, 1, 2]
TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "codebook_sizes": CODEBOOK_SIZES,
    "behavior_levels": BEHAVIOR_LEVELS,
    "behavior_embedding_dim": 4,
    "dropout": 0.0,
    "initializer_range": 0.3,  # large, so that a wrong mask or route shows in the logits
}


class Histories(NamedTuple):
    """Token ids and sessions of whole items `[batch, items * 4]`."""

    input_ids: Tensor
    session_ids: Tensor


@pytest.fixture
def config_of() -> Callable[..., GamerConfig]:
    """A function that makes a tiny configuration, with some fields replaced."""
    return lambda **fields: GamerConfig(**{**TINY, **fields})


@pytest.fixture
def model_of(config_of: Callable[..., GamerConfig]) -> Callable[..., GamerForCausalLM]:
    """A function that makes a tiny random model in evaluation mode, always the same for the same fields."""

    def make(**fields: Any) -> GamerForCausalLM:
        torch.manual_seed(0)
        return GamerForCausalLM(config_of(**fields)).eval()

    return make


@pytest.fixture
def histories_of() -> Callable[..., Histories]:
    """A function that draws random histories of whole items, with sessions of one to three items or so."""

    def make(num_users: int, num_items: int, seed: int = 0) -> Histories:
        generator = torch.Generator().manual_seed(seed)
        behaviors = torch.randint(4, (num_users, num_items, 1), generator=generator) + 2
        codes = [
            torch.randint(size, (num_users, num_items, 1), generator=generator) + offset
            for size, offset in zip(CODEBOOK_SIZES, (6, 11, 15))
        ]
        starts = torch.randint(2, (num_users, num_items), generator=generator)
        sessions = 1 + starts.cumsum(dim=1)
        return Histories(torch.cat([behaviors, *codes], dim=2).flatten(1), sessions.repeat_interleave(4, dim=1))

    return make
