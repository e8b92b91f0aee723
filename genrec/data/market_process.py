"""How the users of a synthetic market act: session after session, each depending on the ones before.

All users take their n-th session in the same step, so the whole log costs as many numpy steps as its longest user has
sessions.
"""

from dataclasses import dataclass

import numpy as np

from genrec.data.market_settings import MarketSettings
from genrec.data.market_world import Clock, Shelves, Shoppers, interest_shares, period_of

REVISIT_REACH = 32  # visits back
REVISIT_DECAY = 0.9  # per visit
REVISIT_BOOST = 2.0  # on the chance to climb the ladder when an item is visited again
DONE_WEIGHT = 0.5  # of a visit that reached the top, against 1 + level for the others
MAX_STEP_RATE = 0.95
OPEN_RESOLVES = 0.3  # chance that a session which climbed nowhere still settles its need


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened, and the latent state behind it.

    Args:
        session_needs: `[sessions]`.
        session_brands: `[sessions]`.
        session_levels: The highest ladder level of the session, `[sessions]`.
        visit_items: Catalog rows, `[visits]`.
        visit_levels: The ladder level that the visit reached, `[visits]`.
    """

    session_needs: np.ndarray
    session_brands: np.ndarray
    session_levels: np.ndarray
    visit_items: np.ndarray
    visit_levels: np.ndarray


@dataclass(frozen=True, eq=False)
class World:
    """A market before and apart from what its users do."""

    settings: MarketSettings
    shelves: Shelves
    shoppers: Shoppers
    clock: Clock


def simulate(world: World) -> Trace:
    """Let every user go through all sessions."""
    rng = np.random.default_rng([world.settings.seed, 4])
    num_sessions, num_visits = len(world.clock.session_starts), len(world.clock.level_times)
    trace = Trace(*(np.zeros(size, dtype=np.int64) for size in (num_sessions,) * 3 + (num_visits,) * 2))
    counts = np.diff(world.clock.session_offsets)
    busiest_first = np.argsort(-counts, kind="stable")
    for number in range(int(counts.max())):
        users = busiest_first[: np.searchsorted(-counts[busiest_first], -number)]
        _take_session(rng, world, trace, users, world.clock.session_offsets[users] + number, number > 0)
    return trace


def _take_session(
    rng: np.random.Generator, world: World, trace: Trace, users: np.ndarray, sessions: np.ndarray, has_past: bool
) -> None:
    """Write one session of each of these users, `[users]`, into the trace."""
    previous = sessions - 1 if has_past else None
    trace.session_needs[sessions] = _draw_needs(rng, world, trace, users, sessions, previous)
    trace.session_brands[sessions] = _draw_brands(rng, world, trace, users, previous)
    begins, counts = world.clock.visit_offsets[sessions], np.diff(world.clock.visit_offsets)[sessions]
    owner = np.repeat(np.arange(len(users)), counts)
    visits = np.arange(len(owner)) + np.repeat(begins - (np.cumsum(counts) - counts), counts)
    items, is_revisit = _draw_items(rng, world, trace, users[owner], sessions[owner], has_past)
    reach = climb_rates(world, users[owner], items, is_revisit)
    levels = (rng.random(len(visits))[:, None] < reach[:, 1:]).sum(axis=1)
    trace.visit_items[visits], trace.visit_levels[visits] = items, levels
    np.maximum.at(trace.session_levels, sessions[owner], levels)


def _draw_needs(
    rng: np.random.Generator,
    world: World,
    trace: Trace,
    users: np.ndarray,
    sessions: np.ndarray,
    previous: np.ndarray | None,
) -> np.ndarray:
    """A settled need calls up a successor, an open one stays, or interest decides anew, `[users]`."""
    settings, shelves = world.settings, world.shelves
    needs = np.full(len(users), -1)
    if previous is not None:
        last = trace.session_needs[previous]
        is_settled = rng.random(len(users)) < settle_rates(settings, trace.session_levels[previous])
        goes_on = rng.random(len(users)) < np.where(is_settled, settings.follow_rate, settings.stay_rate)
        needs = np.where(goes_on, np.where(is_settled, _draw_rows(rng, shelves.successors[last]), last), needs)
    anew = np.flatnonzero(needs < 0)
    starts = world.clock.session_starts[sessions[anew]]
    needs[anew] = _draw_rows(rng, interest_shares(settings, shelves, world.shoppers, users[anew], starts))
    return needs


def _draw_brands(
    rng: np.random.Generator, world: World, trace: Trace, users: np.ndarray, previous: np.ndarray | None
) -> np.ndarray:
    """Keep the last session's brand or choose anew, `[users]`."""
    anew = _draw_rows(rng, world.shoppers.brand_shares[users])
    if previous is None:
        return anew
    is_loyal = rng.random(len(users)) < world.settings.brand_loyalty
    return np.where(is_loyal, trace.session_brands[previous], anew)


def _draw_items(
    rng: np.random.Generator, world: World, trace: Trace, users: np.ndarray, sessions: np.ndarray, has_past: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Choose each visit's item: an own earlier one, a bestseller, or one for the need. All `[visits]`."""
    settings, shelves = world.settings, world.shelves
    source = rng.random(len(users))
    is_revisit = (source < settings.revisit_rate) & has_past
    is_trend = source >= 1 - settings.trend_rate
    keeps_brand = rng.random(len(users)) < settings.brand_focus
    periods = period_of(settings, world.clock.session_starts[sessions])

    need_cells = trace.session_needs[sessions] * shelves.num_brands
    cells = need_cells + trace.session_brands[sessions]
    keeps_brand &= shelves.totals(periods, cells, cells + 1) > 0
    first = np.where(is_trend, 0, np.where(keeps_brand, cells, need_cells))
    wide_end = np.where(is_trend, len(shelves.bounds) - 1, need_cells + shelves.num_brands)
    items = shelves.draw(rng, periods, first, np.where(keeps_brand & ~is_trend, cells + 1, wide_end))
    again = np.flatnonzero(is_revisit)
    visits, weights = revisit_weights(world, trace, users[again], sessions[again])
    items[again] = trace.visit_items[visits[np.arange(len(again)), _draw_rows(rng, weights)]]
    return items, is_revisit


def revisit_weights(
    world: World, trace: Trace, users: np.ndarray, sessions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which visits before a session may be repeated and with what chance.

    Args:
        world: The market.
        trace: What happened; read before the sessions only.
        users: `[queries]`.
        sessions: The session in which the repetition would happen, `[queries]`.

    Returns:
        Visits, newest first, and their chances, both `[queries, reach]`; a row sums to 1, or to 0 without any past.
    """
    top = world.settings.behaviors.levels[-1]
    ends = world.clock.visit_offsets[sessions][:, None]
    begins = world.clock.visit_offsets[world.clock.session_offsets[users]][:, None]
    visits = ends - 1 - np.arange(REVISIT_REACH)
    exists = visits >= begins
    visits = np.where(exists, visits, 0)
    levels = trace.visit_levels[visits]
    weights = np.where(levels == top, DONE_WEIGHT, 1.0 + levels) * REVISIT_DECAY ** np.arange(REVISIT_REACH) * exists
    return visits, weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(float).tiny)


def settle_rates(settings: MarketSettings, levels: np.ndarray) -> np.ndarray:
    """Return the chance that a session which climbed to this level settled its need, elementwise."""
    top = settings.behaviors.levels[-1]
    height = levels / top if top else np.ones(len(levels))
    return OPEN_RESOLVES + (1 - OPEN_RESOLVES) * height


def climb_rates(world: World, users: np.ndarray, items: np.ndarray, is_revisit: np.ndarray | bool) -> np.ndarray:
    """Return the chance that a visit reaches each ladder level, `[..., levels]`, for arrays broadcast to `[...]`."""
    boost = np.where(is_revisit, REVISIT_BOOST, 1.0)
    factor = world.shoppers.keenness[users] * world.shelves.appeal[items] * boost
    steps = np.minimum(factor[..., None] * np.array(world.settings.steps), MAX_STEP_RATE)
    return np.concatenate([np.ones((*factor.shape, 1)), np.cumprod(steps, axis=-1)], axis=-1)


def _draw_rows(rng: np.random.Generator, shares: np.ndarray) -> np.ndarray:
    """Draw one column from each row of `[draws, options]`, whose rows sum to 1."""
    cumulative = np.cumsum(shares, axis=1)
    targets = rng.random(len(shares)) * cumulative[:, -1]
    return np.minimum((cumulative <= targets[:, None]).sum(axis=1), shares.shape[1] - 1)
