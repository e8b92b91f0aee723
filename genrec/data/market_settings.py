"""The settings of the synthetic market, and the rules they must keep. `docs/market.md` gives the formulas."""

from collections.abc import Sequence
from dataclasses import dataclass

from genrec.data.behaviors import BehaviorLadder

SUBCATEGORIES = 3
ITEMS_PER_CATEGORY = 75
MAX_CATEGORIES = 20
FIRST_STEP_RATE, LATER_STEP_RATE = 0.15, 0.5
SHARES = (
    "revisit_rate",
    "trend_rate",
    "stay_rate",
    "follow_rate",
    "brand_focus",
    "brand_loyalty",
    "interest_drift",
    "late_share",
)


@dataclass(frozen=True)
class MarketSettings:
    """What a synthetic market is made from. Equal settings give the same log, byte for byte.

    Args:
        num_users: Users, each with at least one session.
        num_items: Catalog size; at least one item per need, three needs (subcategories) per category.
        seed: Decides everything random.
        ladder: The behaviors, weakest first; ties as in `view,like=save,buy`. A visit always shows a behavior of the
            lowest level and climbs from there.
        num_categories: Top categories; None takes one per 75 items, at most 20.
        num_brands: Brands, each of which may appear in every category.
        num_days: Length of the log in days.
        sessions_per_user: Mean number of sessions (geometric-like, at least 1).
        visits_per_session: Mean number of item visits in a session (negative binomial, at least 1).
        step_rates: Chance to climb from each ladder level to the next, one number per level above the lowest; None is
            0.15 for the first step and 0.5 for every further one.
        revisit_rate: Chance that a visit returns to one of the user's own earlier items.
        trend_rate: Chance that a visit goes to the market's bestsellers, whatever the user needs.
        stay_rate: Chance that a need left open by the last session is still the need of the next one.
        follow_rate: Chance that a satisfied need calls up one of its successor needs.
        brand_focus: Chance that a visit for a need keeps to the session's brand.
        brand_loyalty: Chance that the next session keeps the last session's brand.
        popularity_exponent: Zipf exponent of item weights inside a need.
        popularity_drift: Standard deviation of the slow random walk of an item's log weight.
        drift_days: How long item weights stay as they are before they move on; also the grid of release days.
        interest_drift: 0 keeps a user's interests as they were, 1 replaces them wholly by the end of the log.
        late_share: Share of items released after the log has begun (cold items).

    Raises:
        ValueError: If a setting is out of its range.
    """

    num_users: int = 2500
    num_items: int = 1000
    seed: int = 0
    ladder: str | Sequence[str] | BehaviorLadder = "view,cart,buy"
    num_categories: int | None = None
    num_brands: int = 6
    num_days: int = 90
    sessions_per_user: float = 11.0
    visits_per_session: float = 2.2
    step_rates: Sequence[float] | None = None
    revisit_rate: float = 0.06
    trend_rate: float = 0.05
    stay_rate: float = 0.6
    follow_rate: float = 0.7
    brand_focus: float = 0.6
    brand_loyalty: float = 0.5
    popularity_exponent: float = 0.6
    popularity_drift: float = 1.3
    drift_days: int = 7
    interest_drift: float = 0.5
    late_share: float = 0.25

    def __post_init__(self) -> None:
        BehaviorLadder.parse(self.ladder)
        for name in ("num_users", "num_items", "num_brands", "num_days", "drift_days"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("sessions_per_user", "visits_per_session"):
            _check(name, getattr(self, name), getattr(self, name) > 1, "above 1")
        for name in ("popularity_exponent", "popularity_drift"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in SHARES:
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "between 0 and 1")
        _check(
            "num_categories", self.num_categories, self.num_categories is None or self.num_categories >= 1, "at least 1"
        )
        _check("revisit_rate", self.revisit_rate, self.revisit_rate + self.trend_rate <= 1, "at most 1 - `trend_rate`")
        self._check_steps()
        if self.num_items < self.num_needs:
            raise ValueError(
                f"`num_items` must be at least {SUBCATEGORIES} per category so that every need has an item, got "
                f"{self.num_items} items for {self.categories} categories. Raise `num_items` or lower `num_categories`."
            )

    def _check_steps(self) -> None:
        steps = self.steps
        if len(steps) != self.behaviors.levels[-1]:
            raise ValueError(
                f"`step_rates` needs one rate per ladder level above the lowest, {self.behaviors.levels[-1]} for "
                f"{self.behaviors}, got {len(steps)}. Leave it out for the defaults."
            )
        for rate in steps:
            _check("step_rates", rate, 0 < rate <= 1, "above 0 and at most 1")

    @property
    def behaviors(self) -> BehaviorLadder:
        """The parsed ladder."""
        return BehaviorLadder.parse(self.ladder)

    @property
    def steps(self) -> tuple[float, ...]:
        """Chance to climb to each ladder level above the lowest, `[levels - 1]`."""
        if self.step_rates is not None:
            return tuple(self.step_rates)
        return tuple([FIRST_STEP_RATE] + [LATER_STEP_RATE] * (self.behaviors.levels[-1] - 1))[
            : self.behaviors.levels[-1]
        ]

    @property
    def categories(self) -> int:
        """Number of top categories, after the default is filled in."""
        return self.num_categories or min(MAX_CATEGORIES, max(1, self.num_items // ITEMS_PER_CATEGORY))

    @property
    def num_needs(self) -> int:
        """Number of needs: the subcategories of all categories."""
        return self.categories * SUBCATEGORIES

    @property
    def num_periods(self) -> int:
        """Number of stretches of `drift_days` in which item weights stand still."""
        return -(-self.num_days // self.drift_days)


def _check(name: str, value: float | None, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` must be {rule}, got {value}.")
