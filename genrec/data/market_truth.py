"""The chance that an item turns up in a user's next session of the synthetic market, in closed form.

Given the need and the brand of a session, its visits are independent and alike. If one visit shows item `i` with the
asked behavior with chance `p`, and the number of visits has the generating function `G`, the session shows it with
chance `1 - G(1 - p)`. An item only tells apart its own need from the others and its own brand from the others, so four
values of `p` per user and item are enough.
"""

import numpy as np

from genrec.data.market_process import Trace, World, climb_rates, revisit_weights, settle_rates
from genrec.data.market_world import START_SECONDS, VISIT_SHAPE, interest_shares, period_of

CELLS_AT_ONCE = 2_000_000


def next_item_probabilities(
    world: World, trace: Trace, users: np.ndarray, times: np.ndarray, behavior: int
) -> np.ndarray:
    """Return the chance that each item gets this behavior in the session that a user begins at a time.

    Args:
        world: The market.
        trace: What happened; only sessions that began before the asked time are read.
        users: `[queries]` int64.
        times: Seconds, `[queries]`.
        behavior: Ladder index.

    Returns:
        `[queries, items]` float64. A row sums to the expected number of different items with this behavior.
    """
    num_items = len(world.shelves.needs)
    chunk = max(1, CELLS_AT_ONCE // num_items)
    parts = [
        _probabilities(world, trace, users[first : first + chunk], times[first : first + chunk], behavior)
        for first in range(0, len(users), chunk)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, num_items))


def _probabilities(world: World, trace: Trace, users: np.ndarray, times: np.ndarray, behavior: int) -> np.ndarray:
    settings, shelves = world.settings, world.shelves
    next_sessions = sessions_before(world, users, times)
    has_past = next_sessions > world.clock.session_offsets[users]
    need_chances = _need_chances(world, trace, users, times, next_sessions, has_past)[:, shelves.needs]
    brand_chances = _brand_chances(world, trace, users, next_sessions, has_past)
    periods = period_of(settings, times)
    brandless = _chance_of_a_missing_brand(world, periods, brand_chances)[:, shelves.needs]
    brand_chances = brand_chances[:, shelves.brands]

    elsewhere, in_need, in_cell = _visit_chances(world, trace, users, next_sessions, has_past, periods, behavior)
    focus = settings.brand_focus
    same_brand = _turns_up(world, elsewhere + focus * in_cell + (1 - focus) * in_need)
    other_brand = _turns_up(world, elsewhere + (1 - focus) * in_need)
    no_such_brand = _turns_up(world, elsewhere + in_need)
    given_need = brand_chances * same_brand + brandless * no_such_brand + (1 - brand_chances - brandless) * other_brand
    return need_chances * given_need + (1 - need_chances) * _turns_up(world, elsewhere)


def sessions_before(world: World, users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the number that each user's next session has or would have: the first one not begun before `times`."""
    offsets, starts = world.clock.session_offsets, world.clock.session_starts - START_SECONDS
    scale = int(starts.max()) + 2
    keys = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) * scale + starts
    return np.searchsorted(keys, users * scale + np.clip(times - START_SECONDS, 0, scale - 1))


def _need_chances(
    world: World, trace: Trace, users: np.ndarray, times: np.ndarray, next_sessions: np.ndarray, has_past: np.ndarray
) -> np.ndarray:
    """Chance of each need in the next session, `[queries, needs]`."""
    settings, successors = world.settings, world.shelves.successors
    anew = interest_shares(settings, world.shelves, world.shoppers, users, times)
    previous = np.maximum(next_sessions - 1, 0)
    last = trace.session_needs[previous]
    settled = settle_rates(settings, trace.session_levels[previous])[:, None]
    follows = settings.follow_rate * successors[last] + (1 - settings.follow_rate) * anew
    stays = settings.stay_rate * np.eye(len(successors))[last] + (1 - settings.stay_rate) * anew
    return np.where(has_past[:, None], settled * follows + (1 - settled) * stays, anew)


def _brand_chances(
    world: World, trace: Trace, users: np.ndarray, next_sessions: np.ndarray, has_past: np.ndarray
) -> np.ndarray:
    """Chance of each brand in the next session, `[queries, brands]`."""
    anew = world.shoppers.brand_shares[users]
    last = np.eye(world.shelves.num_brands)[trace.session_brands[np.maximum(next_sessions - 1, 0)]]
    loyalty = world.settings.brand_loyalty
    return np.where(has_past[:, None], loyalty * last + (1 - loyalty) * anew, anew)


def _chance_of_a_missing_brand(world: World, periods: np.ndarray, brand_chances: np.ndarray) -> np.ndarray:
    """Chance that the session's brand has nothing on the shelf for a need: any brand will do. `[queries, needs]`."""
    cells = np.arange(world.settings.num_needs * world.shelves.num_brands)
    is_empty = world.shelves.totals(periods[:, None], cells, cells + 1) == 0
    return np.einsum("qnb,qb->qn", is_empty.reshape(len(periods), -1, world.shelves.num_brands), brand_chances)


def _visit_chances(
    world: World,
    trace: Trace,
    users: np.ndarray,
    next_sessions: np.ndarray,
    has_past: np.ndarray,
    periods: np.ndarray,
    behavior: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chances that one visit shows an item with the behavior, `[queries, items]` each.

    Returns:
        By way of an own earlier item or a bestseller; for the need if the need is the item's; the same for its cell.
    """
    settings, shelves = world.settings, world.shelves
    levels = settings.behaviors.levels
    level, ties = levels[behavior], levels.count(levels[behavior])
    every = np.arange(len(shelves.needs))[None, :]
    reach = climb_rates(world, users[:, None], every, False)[..., level] / ties
    reach_again = climb_rates(world, users[:, None], every, True)[..., level] / ties

    revisit_rate = np.where(has_past, settings.revisit_rate, 0.0)[:, None]
    visits, weights = revisit_weights(world, trace, users, next_sessions)
    again = np.zeros(reach.shape)
    np.add.at(again, (np.arange(len(users))[:, None], trace.visit_items[visits]), weights)

    in_market, in_need, in_cell = _shares(world, periods)
    need_reach = (1 - revisit_rate - settings.trend_rate) * reach
    elsewhere = revisit_rate * again * reach_again + settings.trend_rate * in_market * reach
    return elsewhere, need_reach * in_need, need_reach * in_cell


def _shares(world: World, periods: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each item's share of the weight of the market, its need and its cell, `[queries, items]` each."""
    shelves = world.shelves
    weights = shelves.weights[periods].astype(float)
    first = shelves.needs * shelves.num_brands
    cells = first + shelves.brands
    column = periods[:, None]
    market = weights / weights.sum(axis=1, keepdims=True)
    need = weights / shelves.totals(column, first, first + shelves.num_brands)
    cell = weights / np.maximum(shelves.totals(column, cells, cells + 1), 1)
    return market, need, cell


def _turns_up(world: World, visit_chances: np.ndarray) -> np.ndarray:
    """Turn the chance per visit into the chance per session: `1 - G(1 - p)` of a shifted negative binomial."""
    odds = (world.settings.visits_per_session - 1) / VISIT_SHAPE
    chances = np.minimum(visit_chances, 1 - 1e-12)
    return -np.expm1(np.log1p(-chances) - VISIT_SHAPE * np.log1p(odds * chances))
