"""Tiny random scoring models and histories for them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from genrec.models.discriminative import MODELS, DiscriminativeModel, GraphModel

NUM_ITEMS, NUM_BEHAVIORS, MAX_ITEMS = 12, 3, 8
TINY: dict[str, Any] = {
    "num_items": NUM_ITEMS,
    "num_behaviors": NUM_BEHAVIORS,
    "max_history_items": MAX_ITEMS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "dropout": 0.0,
    "initializer_range": 0.3,  # large, so that a wrong mask or id shows in the scores
}


def make_scoring_model(kind: type[DiscriminativeModel], **fields: Any) -> DiscriminativeModel:
    """Return a tiny random model in evaluation mode, always the same for the same fields."""
    torch.manual_seed(0)
    known = {name: value for name, value in {**TINY, **fields}.items() if hasattr(kind.config_class(), name)}
    model = kind(kind.config_class(**known)).eval()
    if isinstance(model, GraphModel):
        model.set_graph(*draw_events(model.num_items, model.num_behaviors))
    return model


def draw_events(num_items: int, num_behaviors: int, num_users: int = 5, count: int = 40) -> tuple[Tensor, ...]:
    """Return random users, items and behaviors, `[count]` each."""
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randint(size, (count,), generator=generator) for size in (num_users, num_items, num_behaviors))


def draw_histories(lengths: list[int], seed: int = 0, num_items: int = NUM_ITEMS) -> dict[str, Tensor]:
    """Return random histories, padded at the right, sessions of one to three items."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    is_real = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    behaviors = torch.randint(NUM_BEHAVIORS, shape, generator=generator)
    sessions = torch.randint(2, shape, generator=generator).cumsum(dim=1)
    return {
        "items": torch.where(is_real, torch.randint(num_items, shape, generator=generator), -1),
        "behaviors": behaviors.where(is_real, 0),
        "sessions": sessions.where(is_real, 0),
        "times": (sessions * 86_400).where(is_real, 0),
    }


def left_padded(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same histories with their pads at the left."""
    counts = (batch["items"] >= 0).sum(dim=1)
    length = batch["items"].shape[1]
    columns = (torch.arange(length) + counts[:, None]) % length
    return {name: values.gather(1, columns) for name, values in batch.items()}


def with_labels(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let every item bear loss."""
    return {**batch, "labels": batch["items"].where(batch["items"] >= 0, -100)}


@pytest.fixture(params=MODELS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[DiscriminativeModel]:
    """Each scoring model's class."""
    return request.param


@pytest.fixture
def make_model() -> Callable[..., DiscriminativeModel]:
    """A function that makes a tiny random model of a class."""
    return make_scoring_model
