"""Histories: what many users did, in flat integer arrays. The one in-memory form that every layer shares.

A user's interactions stand next to each other, oldest first; `offsets` says where each user begins. Items are catalog
rows and behaviors are ladder indices, so models, rules and metrics never touch an id.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np

from genrec.data.behaviors import BehaviorLadder
from genrec.data.event_columns import (
    EventColumns,
    as_id_array,
    columns_of_lists,
    columns_of_table,
    is_table,
    whole_seconds,
)

SECONDS_PER_MINUTE = 60
DEFAULT_GAP_MINUTES = 30.0


@dataclass(frozen=True, eq=False)
class Histories:
    """Interactions of many users.

    Args:
        items: Catalog rows, `[events]` int64.
        behaviors: Ladder indices, `[events]` int64.
        sessions: Session numbers, `[events]` int64, never falling within a user. Only their order counts.
        times: Seconds since 1970 (UTC), `[events]` int64, never falling within a user; all 0 when the log has none.
        offsets: Row `i` owns the events `offsets[i]:offsets[i + 1]`, `[users + 1]` int64.
        users: The users' ids, `[users]`.
        item_ids: The catalog's ids in row order, `[items in catalog]`: what `items` refers to.
        ladder: What `behaviors` refers to.
        query_times: The moment at which each row is asked about, `[users]` int64 seconds, or None if unknown.
        num_unknown: How many interactions were skipped on reading because the catalog lacks their item.
        num_later: How many interactions were left out because they are not before the query (see `asked_at`).
        session_times: When the session of each event began, `[events]` int64 seconds, or None: then the first event
            here tells. Needed where a session's first event may have been cut off or dropped.

    Example:
        >>> two = as_histories([[("a", "view"), ("b", "buy")], []], item_ids=["a", "b"], ladder="view,buy")
        >>> len(two), two[0].items.tolist(), two.lengths.tolist()
        (2, [0, 1], [2, 0])
    """

    items: np.ndarray
    behaviors: np.ndarray
    sessions: np.ndarray
    times: np.ndarray
    offsets: np.ndarray
    users: np.ndarray
    item_ids: np.ndarray
    ladder: BehaviorLadder
    query_times: np.ndarray | None = None
    num_unknown: int = 0
    num_later: int = 0
    session_times: np.ndarray | None = None

    def __post_init__(self) -> None:
        columns: tuple[np.ndarray, ...] = (self.items, self.behaviors, self.sessions, self.times)
        columns = columns if self.session_times is None else (*columns, self.session_times)
        events = {int(self.offsets[-1]), *map(len, columns)}
        assert len(events) == 1, f"the event arrays and the last offset must agree, got {events}"
        assert len(self.offsets) == len(self.users) + 1, (len(self.offsets), len(self.users))

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, row: int) -> "History":
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return History(self.items[part], self.behaviors[part], self.sessions[part], self.times[part])

    def __iter__(self) -> Iterator["History"]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """Interactions per user, `[users]`."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> np.ndarray:
        """The row (user) that each event belongs to, `[events]`."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def has_times(self) -> bool:
        """Whether any event has a time."""
        return bool(self.times.any())

    @property
    def session_starts(self) -> np.ndarray:
        """When the session of each event began: the moment at which it is asked about in training, `[events]`."""
        if self.session_times is not None:
            return self.session_times
        rows, places = self.rows, np.arange(len(self.items))
        begins = np.ones(len(places), dtype=bool)
        begins[1:] = (rows[1:] != rows[:-1]) | (self.sessions[1:] != self.sessions[:-1])
        return self.times[np.maximum.accumulate(np.where(begins, places, 0))]

    def with_session_times(self) -> "Histories":
        """Note when each session began, so that it stays known when events are cut off or dropped."""
        return replace(self, session_times=self.session_starts)

    def select(self, rows: np.ndarray) -> "Histories":
        """Keep these rows (integers or a boolean mask over users), in this order; a row may repeat."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, dtype=np.int64)
        return self._ranges(rows, self.offsets[:-1][rows], self.offsets[1:][rows])

    def last(self, num_items: int) -> "Histories":
        """Keep each user's last `num_items` interactions."""
        rows = np.arange(len(self))
        return self._ranges(rows, np.maximum(self.offsets[:-1], self.offsets[1:] - num_items), self.offsets[1:])

    def windows(self, num_items: int) -> "Histories":
        """Cut each user's interactions into rows of `num_items`, back from the last; what is left over comes first.

        Example:
            >>> one = as_histories([[("a", "view"), ("b", "view"), ("a", "buy")]], ["a", "b"], "view,buy")
            >>> [row.items.tolist() for row in one.windows(2)]
            [[0], [1, 0]]
        """
        counts = np.maximum(-(-self.lengths // num_items), 1)
        rows = np.repeat(np.arange(len(self)), counts)
        windows_after = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(len(rows))
        ends = self.offsets[1:][rows] - windows_after * num_items
        return self._ranges(rows, np.maximum(self.offsets[:-1][rows], ends - num_items), ends)

    def keep(self, events: np.ndarray) -> "Histories":
        """Keep the events where the mask `[events]` is true; a user left with none keeps an empty row."""
        counts = np.bincount(self.rows[events], minlength=len(self))
        return self._events(np.flatnonzero(events), np.arange(len(self)), counts)

    def _ranges(self, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> "Histories":
        counts = ends - starts
        before = np.cumsum(counts) - counts
        events = np.arange(counts.sum()) + np.repeat(starts - before, counts)
        return self._events(events, rows, counts)

    def _events(self, events: np.ndarray, rows: np.ndarray, counts: np.ndarray) -> "Histories":
        return replace(
            self,
            items=self.items[events],
            behaviors=self.behaviors[events],
            sessions=self.sessions[events],
            times=self.times[events],
            offsets=offsets_from_counts(counts),
            users=self.users[rows],
            query_times=None if self.query_times is None else self.query_times[rows],
            session_times=None if self.session_times is None else self.session_times[events],
        )


@dataclass(frozen=True, eq=False)
class History:
    """One user's interactions, oldest first: the arrays of `Histories`, `[events of this user]` each."""

    items: np.ndarray
    behaviors: np.ndarray
    sessions: np.ndarray
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, eq=False)
class Queries:
    """What evaluation asks: given `histories[i]`, which items will `targets[i]` hold?

    Args:
        histories: What each user did before the asked session, with `query_times` set.
        targets: The interactions of the asked session, row by row for the same users.
    """

    histories: Histories
    targets: Histories

    def __post_init__(self) -> None:
        assert len(self.histories) == len(self.targets)

    def __len__(self) -> int:
        return len(self.histories)

    def select(self, rows: np.ndarray) -> "Queries":
        """Keep these queries (integers or a boolean mask)."""
        return Queries(self.histories.select(rows), self.targets.select(rows))


def offsets_from_counts(counts: np.ndarray) -> np.ndarray:
    """Return `[0, c0, c0 + c1, ...]`, `[users + 1]` int64."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def sessions_by_gap(rows: np.ndarray, times: np.ndarray, gap_minutes: float) -> np.ndarray:
    """Number each user's sessions from 0: a new one starts when more than `gap_minutes` passed since the last event.

    Args:
        rows: The user of each event, `[events]`, equal users adjacent.
        times: Seconds, `[events]`, never falling within a user.
        gap_minutes: The idle gap; exactly this long still belongs to the session.

    >>> sessions_by_gap(np.array([0, 0, 0, 1]), np.array([0, 1800, 3601, 0]), gap_minutes=30).tolist()
    [0, 0, 1, 0]
    """
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    new_user = np.concatenate([[True], rows[1:] != rows[:-1]])
    idle = np.concatenate([[False], np.diff(times) > gap_minutes * SECONDS_PER_MINUTE])
    starts = np.cumsum(idle | new_user)
    return starts - starts[new_user][np.cumsum(new_user) - 1]


@dataclass(frozen=True)
class ItemIndex:
    """Catalog rows of item ids. Ids keep the type of the log: `7` and `"7"` are different items."""

    item_ids: np.ndarray
    _rows: dict[Any, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", {item_id: row for row, item_id in enumerate(self.item_ids.tolist())})

    def rows(self, item_ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Return catalog rows, `[ids]` int64, -1 for an id that the catalog lacks."""
        ids = item_ids.tolist() if isinstance(item_ids, np.ndarray) else item_ids
        return np.fromiter((self._rows.get(item_id, -1) for item_id in ids), dtype=np.int64, count=len(ids))


def as_histories(
    histories: Any,
    item_ids: Sequence[Any] | np.ndarray | ItemIndex,
    ladder: str | Sequence[str] | BehaviorLadder,
    *,
    unknown_items: str = "skip",
    gap_minutes: float = DEFAULT_GAP_MINUTES,
) -> Histories:
    """Turn what a user of the library calls histories into `Histories` over a catalog.

    Args:
        histories: A list with one history per user, each a list of `(item, behavior)` or `(item, behavior, time)`,
            oldest first; or a table (anything with `.to_pydict()` or `.to_dict("list")`, or a mapping of columns) with
            the columns `item_id`, `behavior` and, if it has them, `user_id`, `timestamp` (seconds) and `session`
            (whole numbers, never falling within a user); or `Histories`, whose rows are mapped to this catalog by id.
        item_ids: The catalog's ids in row order, or an index over them.
        ladder: The behavior ladder.
        unknown_items: `"skip"` leaves out interactions whose item the catalog lacks and counts them in
            `num_unknown`; `"error"` refuses them.
        gap_minutes: Idle gap that starts a new session where times are given. Without times, every interaction is its
            own session.

    Raises:
        ValueError: If an element is no such tuple, columns differ in length, a behavior is unknown, a time is no moment
            or a session no whole number, times or sessions fall, or an item is unknown under `unknown_items="error"`.
    """
    if unknown_items not in ("skip", "error"):
        raise ValueError(f"`unknown_items` must be 'skip' or 'error', got {unknown_items!r}.")
    index = item_ids if isinstance(item_ids, ItemIndex) else ItemIndex(as_id_array(item_ids))
    ladder = BehaviorLadder.parse(ladder)
    if isinstance(histories, Histories):
        return _map_histories(histories, index, ladder, unknown_items)
    columns = columns_of_table(histories) if is_table(histories) else columns_of_lists(histories)
    return _from_columns(columns, index, ladder, unknown_items, gap_minutes)


def asked_at(histories: Histories, at: Any = None) -> Histories:
    """Return histories as they were known at a moment: with `query_times`, and only events strictly before them.

    Events at or after the query, which a skewed clock or a request about the past brings, are left out and counted in
    `num_later`. Histories whose events have no times lose none.

    Args:
        histories: What users did.
        at: The moment, or one per user: seconds since 1970, a `datetime`, or ISO text (UTC where it names no zone).
            None means the histories' own `query_times`; without any, they come back as they are.

    Raises:
        ValueError: If `at` is no moment, or its number is not that of the users.

    Example:
        >>> one = as_histories([[("a", "view", 0), ("b", "view", 90)]], ["a", "b"], "view")
        >>> known = asked_at(one, "1970-01-01T00:01:30")
        >>> known.items.tolist(), known.query_times.tolist(), known.num_later
        ([0], [90], 1)
    """
    if at is not None:
        histories = replace(histories, query_times=_query_times(at, len(histories)))
    if histories.query_times is None or not histories.has_times:
        return histories
    is_before = histories.times < histories.query_times[histories.rows]
    if is_before.all():
        return histories
    return replace(histories.keep(is_before), num_later=histories.num_later + int((~is_before).sum()))


def _query_times(at: Any, num_users: int) -> np.ndarray:
    if isinstance(at, (str, datetime)) or np.ndim(at) == 0:
        return np.full(num_users, whole_seconds(at, "`at`"), dtype=np.int64)
    if len(at) != num_users:
        raise ValueError(f"`at` must be one moment or one per history, got {len(at)} for {num_users} histories.")
    return np.array([whole_seconds(moment, "`at`") for moment in at], dtype=np.int64)


def _from_columns(
    columns: EventColumns, index: ItemIndex, ladder: BehaviorLadder, unknown_items: str, gap_minutes: float
) -> Histories:
    rows = np.repeat(np.arange(len(columns.users)), columns.counts)
    position = {name: number for number, name in enumerate(ladder.names)}
    for name in set(columns.behaviors) - set(position):
        ladder.index(name)  # raises, naming the behavior and the ladder
    times = columns.times if columns.times is not None else np.zeros(len(rows), dtype=np.int64)
    _check_order(rows, times, "time", "Sort it by time.")
    if columns.sessions is not None:
        sessions = columns.sessions
        _check_order(rows, sessions, "session", "Number its sessions in the order of time.")
    elif columns.times is not None:
        sessions = sessions_by_gap(rows, times, gap_minutes)
    else:
        sessions = np.arange(len(rows)) - np.repeat(offsets_from_counts(columns.counts)[:-1], columns.counts)
    items = index.rows(columns.items)
    whole = Histories(
        items=items,
        behaviors=np.array([position[name] for name in columns.behaviors], dtype=np.int64),
        sessions=sessions,
        times=times,
        offsets=offsets_from_counts(columns.counts),
        users=columns.users,
        item_ids=index.item_ids,
        ladder=ladder,
    )
    return _without_unknown(whole, columns.items, unknown_items)


def _check_order(rows: np.ndarray, values: np.ndarray, name: str, remedy: str) -> None:
    """Refuse values that fall within a history."""
    falls = (values[1:] < values[:-1]) & (rows[1:] == rows[:-1])
    if falls.any():
        event = int(np.flatnonzero(falls)[0]) + 1
        raise ValueError(
            f"A history must be oldest first, but history {int(rows[event])} has {name} {values[event]} after "
            f"{values[event - 1]}. {remedy}"
        )


def _map_histories(histories: Histories, index: ItemIndex, ladder: BehaviorLadder, unknown_items: str) -> Histories:
    behaviors = histories.behaviors
    if histories.ladder.names != ladder.names:
        behaviors = np.array([ladder.index(name) for name in histories.ladder.names])[behaviors]
    if histories.item_ids is index.item_ids or np.array_equal(histories.item_ids, index.item_ids):
        return replace(histories, behaviors=behaviors, ladder=ladder)
    items = index.rows(histories.item_ids)[histories.items]
    mapped = replace(histories, items=items, behaviors=behaviors, ladder=ladder, item_ids=index.item_ids)
    return _without_unknown(mapped, histories.item_ids[histories.items], unknown_items)


def _without_unknown(histories: Histories, ids: Sequence[Any] | np.ndarray, unknown_items: str) -> Histories:
    known = histories.items >= 0
    if known.all():
        return histories
    if unknown_items == "error":
        event = int(np.flatnonzero(~known)[0])
        raise ValueError(
            f"History {int(histories.rows[event])} names the item {ids[event]!r}, which is not in the catalog of "
            f"{len(histories.item_ids)} items. Add it with `add_items`, or pass `unknown_items='skip'` to leave it out."
        )
    return replace(histories.keep(known), num_unknown=histories.num_unknown + int((~known).sum()))
