"""`DataConfig`: all that decides how a log becomes a prepared dataset; a recipe's `data:` section, field by field."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from genrec.data.behaviors import BehaviorLadder
from genrec.data.catalog import ITEM_COLUMN
from genrec.data.histories import DEFAULT_GAP_MINUTES
from genrec.data.times import MICROSECONDS, MICROSECONDS_PER_UNIT, SECONDS_PER_DAY, parse_time, zone_info

MIN_EVALUATION_SESSIONS = 3
CHOICES = {
    "other_behaviors": ("error", "drop"),
    "time_unit": tuple(MICROSECONDS_PER_UNIT),
    "id_type": ("auto", "string"),
    "sessions": ("gap", "day", "column"),
    "short_users": ("train", "drop"),
    "catalog_items": ("all", "log"),
}
COUNTED = ("users", "items", "sessions", "interactions")


@dataclass(frozen=True)
class DataConfig:
    """How to read a log, make sessions, filter and split it.

    Args:
        interactions: Path, paths or glob pattern of the log, or a folder in the released GAMER layout; None if the
            log is handed over as `InteractionLog`. Kept as text, as a recipe and the manifest have it.
        items: Path of the catalog, or None: the catalog is then the log's items, nothing known about them.
        behaviors: The behavior ladder, weakest first, `"view,cart,buy"`; ties as `"view,favorite=collect,buy"`. None
            takes the ladder of the given log, or the released layout's own.
        user_column: The log's name of the user id.
        item_column: The log's name of the item id.
        behavior_column: The log's name of the behavior.
        time_column: The log's name of the time.
        session_column: The log's name of the session; needed by, and only by, `sessions: column`.
        catalog_item_column: The catalog's name of the item id.
        behavior_names: What the source calls behaviors -> what the ladder calls them.
        other_behaviors: Behaviors that the ladder lacks: `"error"` refuses the log, `"drop"` leaves them out.
        time_unit: What numbers in the time column count since 1970: `"s"`, `"ms"`, `"us"` or `"ns"`.
        time_zone: IANA zone of date-times that name none.
        id_type: `"auto"` keeps the ids' type, `"string"` makes all ids text.
        delimiter: What separates the values of CSV files; None finds out.
        sessions: A new session starts after an idle gap (`"gap"`), with a new calendar day (`"day"`), or where the
            value of `session_column` changes (`"column"`).
        gap_minutes: The idle gap; a pause of exactly this long still belongs to the session. Only for, and with
            `"gap"` by default 30.
        day_time_zone: IANA zone whose midnight starts a day. Only for, and with `"day"` by default `time_zone`.
        start_time: Leave out what happened before: seconds since 1970 or an ISO date-time in `time_zone`. (A `date` or
            `datetime`, which YAML makes of an unquoted one, becomes ISO text.)
        end_time: Leave out what happened at or after this moment.
        num_days: Instead of `end_time`: keep so many days of 24 hours from `start_time` on.
        user_share: Share of the users to keep, drawn by a hash of user id and `seed`, in (0, 1].
        min_interactions: Leave out users with fewer interactions.
        k_core: Leave out users and items with fewer interactions than this, again and again until all have them.
        min_sessions: Users with fewer sessions are short: they are no evaluation users. At least 3, because an
            evaluation user needs a session each for training, validation and test.
        short_users: Short users go to the training part only (`"train"`) or are left out (`"drop"`).
        catalog_items: Keep all items of a given catalog (`"all"`), or only those of the filtered log (`"log"`).
        temporal_validation_share: Share of sessions, by their start, in the validation period of the temporal split.
        temporal_test_share: Share of sessions, the latest, in its test period.
        seed: Seed of `user_share`.
        expected_counts: What the prepared log should count (`users`, `items`, `sessions`, `interactions`), from a
            paper; differences are reported in the manifest.
        strict_counts: Refuse the log if `expected_counts` are not met.

    Raises:
        ValueError: If a value is none of its choices or out of range, or a setting would have no effect.

    Example:
        >>> DataConfig(behaviors="view,cart,buy").gap_minutes
        30.0
        >>> DataConfig(sessions="day", gap_minutes=15.0)
        Traceback (most recent call last):
        ...
        ValueError: `gap_minutes` is 15.0 but `sessions` is 'day': it would have no effect. Leave it out.
    """

    interactions: str | list[str] | None = None
    items: str | None = None
    behaviors: str | None = None
    user_column: str = "user_id"
    item_column: str = "item_id"
    behavior_column: str = "behavior"
    time_column: str = "timestamp"
    session_column: str | None = None
    catalog_item_column: str = ITEM_COLUMN
    behavior_names: dict[str, str] = field(default_factory=dict)
    other_behaviors: str = "error"
    time_unit: str = "s"
    time_zone: str = "UTC"
    id_type: str = "auto"
    delimiter: str | None = None
    sessions: str = "gap"
    gap_minutes: float | None = None
    day_time_zone: str | None = None
    start_time: str | float | None = None
    end_time: str | float | None = None
    num_days: float | None = None
    user_share: float = 1.0
    min_interactions: int = 1
    k_core: int = 1
    min_sessions: int = MIN_EVALUATION_SESSIONS
    short_users: str = "train"
    catalog_items: str = "all"
    temporal_validation_share: float = 0.1
    temporal_test_share: float = 0.1
    seed: int = 0
    expected_counts: dict[str, int] = field(default_factory=dict)
    strict_counts: bool = False

    def __post_init__(self) -> None:
        for name in ("interactions", "items"):
            object.__setattr__(self, name, _paths_as_text(name, getattr(self, name)))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        if self.behaviors is not None:
            BehaviorLadder.parse(self.behaviors)
        for name in ("start_time", "end_time"):
            if isinstance(getattr(self, name), date):
                object.__setattr__(self, name, getattr(self, name).isoformat())
        self._check_sessions()
        self._check_filters()
        self._check_shares()
        unknown = sorted(set(self.expected_counts) - set(COUNTED))
        if unknown:
            raise ValueError(
                f"`expected_counts` has the unknown count {unknown[0]!r}; it may have: {', '.join(COUNTED)}."
            )
        if self.strict_counts and not self.expected_counts:
            raise ValueError("`strict_counts` is true but there are no `expected_counts`: it would have no effect.")

    def _check_sessions(self) -> None:
        zone_info(self.time_zone)
        if (self.session_column is not None) != (self.sessions == "column"):
            raise ValueError(
                f"`session_column` is {self.session_column!r} but `sessions` is {self.sessions!r}. Give a session "
                "column with, and only with, `sessions: column`."
            )
        for name, rule in (("gap_minutes", "gap"), ("day_time_zone", "day")):
            if getattr(self, name) is not None and self.sessions != rule:
                raise ValueError(
                    f"`{name}` is {getattr(self, name)!r} but `sessions` is {self.sessions!r}: it would have no "
                    "effect. Leave it out."
                )
        if self.sessions == "gap":
            gap = DEFAULT_GAP_MINUTES if self.gap_minutes is None else self.gap_minutes
            object.__setattr__(self, "gap_minutes", float(gap))
        if self.sessions == "day":
            object.__setattr__(self, "day_time_zone", self.day_time_zone or self.time_zone)
            zone_info(str(self.day_time_zone))
        if self.gap_minutes is not None and self.gap_minutes <= 0:
            raise ValueError(f"`gap_minutes` must be above 0, got {self.gap_minutes}.")

    def _check_filters(self) -> None:
        self._check_num_days()
        start, end = self.time_window
        if start is not None and end is not None and start >= end:
            raise ValueError(f"`start_time` {self.start_time!r} must lie before `end_time` {self.end_time!r}.")
        for name in ("min_interactions", "k_core"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1 (1 keeps all), got {getattr(self, name)}.")
        if self.min_sessions < MIN_EVALUATION_SESSIONS:
            raise ValueError(
                f"`min_sessions` must be at least {MIN_EVALUATION_SESSIONS}, got {self.min_sessions}: an evaluation "
                "user needs a session each for training, validation and test. Users with fewer still train under "
                "`short_users: train`."
            )

    def _check_num_days(self) -> None:
        if self.num_days is None:
            return
        if self.start_time is None:
            raise ValueError(
                f"`num_days` is {self.num_days:g}, but `start_time` is missing: which days? Give the first, for "
                "example start_time='2014-11-01'."
            )
        if self.end_time is not None:
            raise ValueError(
                f"`num_days` is {self.num_days:g} and `end_time` {self.end_time!r}: one of them would have no effect. "
                "Leave it out."
            )
        if self.num_days <= 0:
            raise ValueError(f"`num_days` must be above 0, got {self.num_days:g}.")

    def _check_shares(self) -> None:
        if not 0 < self.user_share <= 1:
            raise ValueError(f"`user_share` must be above 0 and at most 1 (1 keeps all), got {self.user_share}.")
        validation, test = self.temporal_validation_share, self.temporal_test_share
        if validation <= 0 or test <= 0 or validation + test >= 1:
            raise ValueError(
                "`temporal_validation_share` and `temporal_test_share` must be above 0 and together below 1, got "
                f"{validation} and {test}."
            )

    @property
    def time_window(self) -> tuple[int | None, int | None]:
        """First moment kept and first moment left out again, microseconds since 1970, None where open."""
        bounds = (self.start_time, self.end_time)
        start, end = (None if bound is None else parse_time(bound, self.time_zone) for bound in bounds)
        if start is not None and self.num_days is not None:
            end = start + round(self.num_days * SECONDS_PER_DAY * MICROSECONDS)
        return start, end

    @property
    def columns(self) -> dict[str, str]:
        """The column names as `InteractionLog.read` takes them."""
        names = {
            "user_id": self.user_column,
            "item_id": self.item_column,
            "behavior": self.behavior_column,
            "timestamp": self.time_column,
        }
        return names if self.session_column is None else {**names, "session": self.session_column}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataConfig":
        """Build a config from a mapping such as a recipe's `data:` section.

        Raises:
            ValueError: If a key is unknown, naming the nearest one.
        """
        import difflib

        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                close = difflib.get_close_matches(key, names, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else f"The keys are: {', '.join(names)}."
                raise ValueError(f"The data settings have the unknown key {key!r}. {hint}")
        return cls(**values)


def _paths_as_text(name: str, source: Any) -> str | list[str] | None:
    """Return a path or several as text, which JSON can hold."""
    if source is None:
        return None
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if name == "interactions" and isinstance(source, (list, tuple)):
        return [os.fspath(path) for path in source]
    raise ValueError(
        f"`{name}` must be the path of a file, got {type(source).__module__}.{type(source).__qualname__}. Hand a table "
        "in memory to `InteractionLog.read` or `Catalog.read`, and the result to `prepare`."
    )
