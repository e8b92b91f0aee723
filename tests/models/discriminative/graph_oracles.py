"""The graphs of `draw_events` as dense matrices and as histories, for the tests of graph models."""

import math

import torch

from genrec.models.discriminative import GraphModel
from genrec.models.discriminative.graph import UserStates

from .conftest import NUM_BEHAVIORS, NUM_ITEMS, draw_events


def dense_graphs(num_items: int = NUM_ITEMS) -> torch.Tensor:
    """The graphs of `draw_events`, `[behaviors, users, items]`, link by link."""
    links = set(zip(*(part.tolist() for part in draw_events(num_items, NUM_BEHAVIORS))))
    users = sorted({user for user, _, _ in links})
    dense = torch.zeros(NUM_BEHAVIORS, len(users), num_items)
    for user, item, behavior in links:
        of_user = sum(1 for u, _, b in links if (u, b) == (user, behavior))
        of_item = sum(1 for _, i, b in links if (i, b) == (item, behavior))
        dense[behavior, users.index(user), item] = 1 / math.sqrt(of_user * of_item)
    return dense


def last_states(model: GraphModel, batch: dict[str, torch.Tensor]) -> UserStates:
    """The users' states after the whole history."""
    users = model.user_states(batch["items"], batch["behaviors"], model.graph_states())
    return users.at(torch.arange(len(batch["items"])), (batch["items"] >= 0).sum(dim=1) - 1)


def training_histories() -> dict[str, torch.Tensor]:
    """What each user of `draw_events` did, as rows."""
    events = torch.stack(draw_events(NUM_ITEMS, NUM_BEHAVIORS))
    rows = [events[1:, events[0] == user] for user in events[0].unique()]
    length = max(row.shape[1] for row in rows)
    padded = [torch.nn.functional.pad(row, (0, length - row.shape[1]), value=-1) for row in rows]
    return {"items": torch.stack([row[0] for row in padded]), "behaviors": torch.stack([row[1] for row in padded])}
