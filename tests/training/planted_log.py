"""A log whose next item follows from the last one, for tests that training learns it."""

from collections.abc import Sequence

import numpy as np

from genrec.data.histories import Histories, Queries, as_histories

NUM_ITEMS = 16
DAY = 86_400


def planted_log(num_users: int, seed: int, lengths: Sequence[int]) -> Histories:
    """After item `x` comes `(5 * x + 3) % 16`, one day later; `lengths` is the range that they are drawn from."""
    draw = np.random.default_rng(seed)
    log = []
    for _ in range(num_users):
        item, history = int(draw.integers(NUM_ITEMS)), []
        for day in range(int(draw.integers(*lengths))):
            history.append((item, "view" if draw.random() < 0.6 else "buy", day * DAY))
            item = (5 * item + 3) % NUM_ITEMS
        log.append(history)
    return as_histories(log, np.arange(NUM_ITEMS), "view,buy")


def last_asked(histories: Histories) -> Queries:
    """Return the histories without their last interaction, which is the target."""
    is_last = np.zeros(len(histories.items), dtype=bool)
    is_last[histories.offsets[1:] - 1] = True
    return Queries(histories.keep(~is_last), histories.keep(is_last))
