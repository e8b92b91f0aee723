"""Logs of six items, written down or drawn, and what a rule makes of one history."""

import numpy as np

from genrec.data.histories import as_histories

ITEMS = ["a", "b", "c", "d", "e", "f"]
LADDER = "view,cart,buy"
BEHAVIORS = ("view", "cart", "buy")
DAY = 24 * 60 * 60


def log(*histories, items=ITEMS):
    return as_histories(list(histories), items, LADDER)


def random_log(num_users, seed, low=0, has_times=True):
    rng = np.random.default_rng(seed)
    histories = []
    for _ in range(num_users):
        times = np.sort(rng.integers(100 * DAY, size=rng.integers(low, 9))).tolist()
        events = [(ITEMS[rng.integers(6)], BEHAVIORS[rng.integers(3)], time) for time in times]
        histories.append(events if has_times else [event[:2] for event in events])
    return log(*histories)


def scores_of(rule, history, behavior=None):
    """Return the score of each item of the catalog, by id."""
    (listed,) = rule.recommend([history], k=len(ITEMS), behavior=behavior)
    return dict(zip(listed.item_ids, listed.scores, strict=True))
