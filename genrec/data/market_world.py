"""What a synthetic market consists of before anybody acts: items on shelves, users with tastes, and the clock.

Nothing here depends on what users do: the clock (who has a session when, with how many visits) is drawn apart from what
the sessions hold, so that "given that a session begins now" tells nothing about its items.
"""

from dataclasses import dataclass

import numpy as np

from genrec.data.histories import SECONDS_PER_MINUTE, offsets_from_counts
from genrec.data.market_settings import SUBCATEGORIES, MarketSettings

START_SECONDS = 1_704_067_200  # 2024-01-01 00:00 UTC
SECONDS_PER_DAY = 24 * 60 * SECONDS_PER_MINUTE
WEIGHT_UNIT = 2**20  # item weights are integers, so that the probabilities of drawing them are exact
DRIFT_MEMORY = 0.8  # correlation of an item's log weight with that of the period before
NEED_SPREAD, BRAND_SPREAD = 0.5, 0.7  # how unequal needs and brands are for the market as a whole
CATEGORY_TASTE, NEED_TASTE, BRAND_TASTE = 0.8, 0.8, 0.8  # how much users differ from the market
SUCCESSOR_WEIGHTS = (0.6, 0.3, 0.1)
FACTOR_SPREAD = 0.4  # of items' appeal and users' keenness, which scale the chance to climb the ladder
SESSION_SHAPE, VISIT_SHAPE = 1.2, 0.6  # of the negative binomials: smaller is more unequal
GAP_SPREAD = 1.5  # of the log-normal time between a user's sessions
MIN_IDLE_SECONDS = 31 * SECONDS_PER_MINUTE
MAX_DWELL_SECONDS, MAX_CLIMB_SECONDS = 1200, 300  # together below the 30 minutes that would end a session


@dataclass(frozen=True, eq=False)
class Shelves:
    """The items. A *need* is a subcategory; a *cell* is a need and a brand; shelves stand in cell order.

    Args:
        needs: The need of each item, `[items]`.
        brands: The brand of each item, `[items]`.
        release_periods: The period in which each item appears, `[items]`, 0 for most.
        appeal: How much easier than average an item climbs the ladder, `[items]`, median 1.
        weights: Items' integer weights, 0 before release, `[periods, items]`.
        successors: Chance that a satisfied need calls up another, `[needs, needs]`, rows sum to 1.
        need_weights: Log weight of each need for the whole market, `[needs]`.
        brand_weights: The same of brands, `[brands]`.
        order: Catalog rows in shelf order, `[items]`.
        bounds: Cell `c` holds the shelf places `bounds[c]:bounds[c + 1]`, `[needs * brands + 1]`.
        cumulative: Weights summed over periods and shelf places, `[periods * items + 1]`.
    """

    needs: np.ndarray
    brands: np.ndarray
    release_periods: np.ndarray
    appeal: np.ndarray
    weights: np.ndarray
    successors: np.ndarray
    need_weights: np.ndarray
    brand_weights: np.ndarray
    order: np.ndarray
    bounds: np.ndarray
    cumulative: np.ndarray

    @property
    def num_brands(self) -> int:
        """Number of brands."""
        return len(self.brand_weights)

    def totals(self, periods: np.ndarray, first_cells: np.ndarray, end_cells: np.ndarray) -> np.ndarray:
        """Weight of the cells `first:end` in a period, elementwise, integers."""
        num_items = len(self.order)
        low = self.cumulative[periods * num_items + self.bounds[first_cells]]
        return self.cumulative[periods * num_items + self.bounds[end_cells]] - low

    def draw(
        self, rng: np.random.Generator, periods: np.ndarray, first_cells: np.ndarray, end_cells: np.ndarray
    ) -> np.ndarray:
        """Draw one catalog row by weight from the cells `first:end` of each draw, `[draws]`."""
        begin = periods * len(self.order)
        low = self.cumulative[begin + self.bounds[first_cells]]
        target = low + rng.integers(self.totals(periods, first_cells, end_cells))
        return self.order[np.searchsorted(self.cumulative, target, side="right") - 1 - begin]


def stock_shelves(settings: MarketSettings) -> Shelves:
    """Draw the items: needs, brands, Zipf weights that drift, release dates, appeal."""
    rng = np.random.default_rng([settings.seed, 1])
    num_items, num_needs, num_brands = settings.num_items, settings.num_needs, settings.num_brands
    need_weights = NEED_SPREAD * rng.standard_normal(num_needs)
    brand_weights = BRAND_SPREAD * rng.standard_normal(num_brands)
    rows = rng.permutation(num_items)
    needs = np.empty(num_items, dtype=np.int64)
    needs[rows] = np.arange(num_items) % num_needs
    brands = rng.choice(num_brands, size=num_items, p=_softmax(brand_weights))
    is_late = rng.random(num_items) < settings.late_share
    is_late[rows[:num_needs]] = False
    release_periods = np.where(is_late, rng.integers(0, settings.num_periods, num_items), 0)
    base = need_weights[needs] - settings.popularity_exponent * np.log(_ranks_within(needs, rng))
    weights = _drifting_weights(base, release_periods, settings, rng)
    order = np.argsort(needs * num_brands + brands, kind="stable")
    cells = (needs * num_brands + brands)[order]
    return Shelves(
        needs=needs,
        brands=brands,
        release_periods=release_periods,
        appeal=np.exp(FACTOR_SPREAD * rng.standard_normal(num_items)),
        weights=weights,
        successors=_successors(num_needs, rng),
        need_weights=need_weights,
        brand_weights=brand_weights,
        order=order,
        bounds=np.searchsorted(cells, np.arange(num_needs * num_brands + 1)),
        cumulative=offsets_from_counts(weights[:, order].ravel()),
    )


def _ranks_within(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rank the members of each group from 1, at random."""
    order = np.lexsort((rng.random(len(groups)), groups))
    starts = np.searchsorted(groups[order], groups[order])
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - starts + 1
    return ranks


def _drifting_weights(
    base: np.ndarray, release_periods: np.ndarray, settings: MarketSettings, rng: np.random.Generator
) -> np.ndarray:
    """Let every log weight wander around its base, and hold it at nothing before release, `[periods, items]` int64."""
    weights = np.zeros((settings.num_periods, len(base)), dtype=np.int64)
    wander = rng.standard_normal(len(base))
    for period in range(settings.num_periods):
        scaled = WEIGHT_UNIT * np.exp(np.clip(base + settings.popularity_drift * wander, -12, 12))
        weights[period] = np.where(release_periods <= period, np.maximum(scaled, 1), 0).astype(np.int64)
        wander = DRIFT_MEMORY * wander + np.sqrt(1 - DRIFT_MEMORY**2) * rng.standard_normal(len(base))
    return weights


def _successors(num_needs: int, rng: np.random.Generator) -> np.ndarray:
    """Give each need its next neighbour in the category as main successor and two others drawn at random."""
    successors = np.zeros((num_needs, num_needs))
    needs = np.arange(num_needs)
    following = needs - needs % SUBCATEGORIES + (needs + 1) % SUBCATEGORIES
    for weight, targets in zip(
        SUCCESSOR_WEIGHTS, (following, rng.permutation(num_needs), rng.permutation(num_needs)), strict=True
    ):
        successors[needs, targets] += weight
    return successors


@dataclass(frozen=True, eq=False)
class Shoppers:
    """The users' tastes.

    Args:
        early_interests: Log weights of needs when the log begins, `[users, needs]`.
        late_interests: Log weights towards which they drift, `[users, needs]`.
        brand_shares: Chance of each brand when a brand is chosen anew, `[users, brands]`.
        keenness: How much easier than average a user climbs the ladder, `[users]`, median 1.
    """

    early_interests: np.ndarray
    late_interests: np.ndarray
    brand_shares: np.ndarray
    keenness: np.ndarray


def draw_shoppers(settings: MarketSettings, shelves: Shelves) -> Shoppers:
    """Draw the users: two taste profiles to drift between, brand shares, keenness."""
    rng = np.random.default_rng([settings.seed, 2])

    def tastes() -> np.ndarray:
        categories = CATEGORY_TASTE * rng.standard_normal((settings.num_users, settings.categories))
        needs = NEED_TASTE * rng.standard_normal((settings.num_users, settings.num_needs))
        return (needs + np.repeat(categories, SUBCATEGORIES, axis=1)).astype(np.float32)

    brands = BRAND_TASTE * rng.standard_normal((settings.num_users, settings.num_brands))
    return Shoppers(
        early_interests=tastes(),
        late_interests=tastes(),
        brand_shares=_softmax(brands + shelves.brand_weights),
        keenness=np.exp(FACTOR_SPREAD * rng.standard_normal(settings.num_users)),
    )


def interest_shares(
    settings: MarketSettings, shelves: Shelves, shoppers: Shoppers, users: np.ndarray, seconds: np.ndarray
) -> np.ndarray:
    """Return the chance of each need when a need is chosen anew, `[queries, needs]`, for a user at a time."""
    elapsed = np.clip((seconds - START_SECONDS) / (settings.num_days * SECONDS_PER_DAY), 0, 1)
    angle = (settings.interest_drift * elapsed * np.pi / 2)[:, None]
    tastes = np.cos(angle) * shoppers.early_interests[users] + np.sin(angle) * shoppers.late_interests[users]
    return _softmax(tastes + shelves.need_weights)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def period_of(settings: MarketSettings, seconds: np.ndarray) -> np.ndarray:
    """Return the period in which each time falls; times beyond the log belong to its first or last period."""
    periods = (seconds - START_SECONDS) // (settings.drift_days * SECONDS_PER_DAY)
    return np.clip(periods, 0, settings.num_periods - 1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Clock:
    """When everything happens: sessions user by user in order of time, visits session by session.

    Args:
        session_offsets: User `u` has the sessions `session_offsets[u]:session_offsets[u + 1]`, `[users + 1]`.
        session_starts: Seconds, `[sessions]`: the time of the session's first event.
        visit_offsets: Session `s` has the visits `visit_offsets[s]:visit_offsets[s + 1]`, `[sessions + 1]`.
        level_times: Seconds at which a visit would reach each ladder level, `[visits, levels]`.
    """

    session_offsets: np.ndarray
    session_starts: np.ndarray
    visit_offsets: np.ndarray
    level_times: np.ndarray


def set_clock(settings: MarketSettings) -> Clock:
    """Draw session counts, session starts, visit counts and the times of every possible event."""
    rng = np.random.default_rng([settings.seed, 3])
    num_sessions = 1 + _negative_binomial(rng, SESSION_SHAPE, settings.sessions_per_user - 1, settings.num_users)
    num_visits = 1 + _negative_binomial(rng, VISIT_SHAPE, settings.visits_per_session - 1, int(num_sessions.sum()))
    users = np.repeat(np.arange(settings.num_users), num_sessions)
    level_delays, visit_seconds = _paces(rng, int(num_visits.sum()), settings.behaviors.levels[-1] + 1)
    visit_ends = offsets_from_counts(visit_seconds)[offsets_from_counts(num_visits)]
    starts = _session_starts(rng, settings, num_sessions, np.diff(visit_ends))

    in_time = starts < START_SECONDS + settings.num_days * SECONDS_PER_DAY
    in_time |= np.concatenate([[True], np.diff(users) > 0])  # a user's first session always counts
    kept = np.repeat(in_time, num_visits)
    begun = _running_sum_within(visit_seconds, num_visits) - visit_seconds
    level_times = (np.repeat(starts, num_visits) + begun)[:, None] + level_delays
    return Clock(
        session_offsets=offsets_from_counts(np.bincount(users[in_time], minlength=settings.num_users)),
        session_starts=starts[in_time],
        visit_offsets=offsets_from_counts(num_visits[in_time]),
        level_times=level_times[kept],
    )


def _negative_binomial(rng: np.random.Generator, shape: float, mean: float, size: int) -> np.ndarray:
    return rng.negative_binomial(shape, shape / (shape + mean), size=size)


def _paces(rng: np.random.Generator, num_visits: int, num_levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw how long a visit takes to reach each level, `[visits, levels]`, and how long it lasts, `[visits]`."""
    climbs = 1 + rng.integers(0, MAX_CLIMB_SECONDS // num_levels, size=(num_visits, num_levels))
    climbs[:, 0] = 0
    delays = np.cumsum(climbs, axis=1)
    dwell = np.clip(np.exp(np.log(60) + rng.standard_normal(num_visits)), 1, MAX_DWELL_SECONDS).astype(np.int64)
    return delays, delays[:, -1] + dwell


def _session_starts(
    rng: np.random.Generator, settings: MarketSettings, num_sessions: np.ndarray, durations: np.ndarray
) -> np.ndarray:
    """Spread each user's sessions from the day of joining over a drawn part of what is left of the log, in seconds."""
    span = settings.num_days * SECONDS_PER_DAY
    joined = rng.random(settings.num_users) * span / 2
    active = (span - joined) * rng.uniform(0.4, 1.0, settings.num_users)
    waits = np.exp(GAP_SPREAD * rng.standard_normal(len(durations)))
    share = waits / np.repeat(np.add.reduceat(waits, offsets_from_counts(num_sessions)[:-1]), num_sessions)
    previous = np.concatenate([[0], durations[:-1]])
    gaps = np.maximum((share * np.repeat(active, num_sessions)).astype(np.int64), previous + MIN_IDLE_SECONDS)
    gaps[offsets_from_counts(num_sessions)[:-1]] = START_SECONDS + joined.astype(np.int64)
    return _running_sum_within(gaps, num_sessions)


def _running_sum_within(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum integers up to and including each one, starting anew at each group of `counts` values."""
    sums = np.cumsum(values)
    before = np.concatenate([[0], sums])[offsets_from_counts(counts)[:-1]]
    return sums - np.repeat(before, counts)
