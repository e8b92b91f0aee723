"""Whether the order of a catalog tells which items go together, before codes are made of item numbers."""

from typing import NamedTuple

import numpy as np

from genrec.data.histories import Histories

WITHIN = 50
TELLING = 5.0  # times chance
FEW_STEPS = 100


class Numbering(NamedTuple):
    """How near each other in the catalog the items stand that users meet one after the other.

    Args:
        share: The share of steps from one item to another that end within `WITHIN` places.
        chance: The same for items drawn at random.
        steps: How many steps there are.
    """

    share: float
    chance: float
    steps: int

    @property
    def tells(self) -> bool:
        """Whether the catalog's order says much more than chance would."""
        return self.steps >= FEW_STEPS and self.share > TELLING * self.chance


def numbering_of(histories: Histories) -> Numbering:
    """Return how much a catalog's order tells of a log.

    Data sets are often numbered along the log, user by user. An item then stands beside those that its first user met
    in sessions to come, and whatever reads the number knows the test set.

    Args:
        histories: Users' items, of the training part.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> users = [[(item, "view", item) for item in range(first, first + 40)] for first in range(0, 4000, 40)]
        >>> numbering_of(as_histories(users, list(range(4000)), "view")).tells
        True
    """
    items, rows = histories.items, histories.rows
    is_step = (rows[1:] == rows[:-1]) & (items[1:] != items[:-1])
    distances = np.abs(np.diff(items))[is_step]
    chance = min(1.0, 2 * WITHIN / max(1, len(histories.item_ids) - 1))
    return Numbering(float((distances <= WITHIN).mean()) if len(distances) else 0.0, chance, len(distances))
