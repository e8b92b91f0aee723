"""Histories in the forms that users bring, lists of tuples or a table, as columns with one entry per event."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any

import numpy as np

from genrec.data.times import MICROSECONDS, parse_time

INT64_END = 2**63


def as_id_array(ids: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Return ids as int64 when all are integers, else as objects, so that `.tolist()` gives the log's own ids back.

    Raises:
        ValueError: If an integer is beyond 64 bits with sign.
    """
    array = np.asarray(ids)
    if array.dtype.kind == "u" and (array >= INT64_END).any():
        raise ValueError(
            f"Integer ids must be below {INT64_END} (64 bits with sign), got {array.max()}. Make them text."
        )
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    objects = np.empty(len(ids), dtype=object)
    objects[:] = list(ids)
    return objects


@dataclass(frozen=True)
class EventColumns:
    """Events of many users, one entry per event; `counts` and `users` per user.

    Args:
        items: Item ids `[events]`.
        behaviors: Their names `[events]`.
        times: Seconds `[events]`, or None.
        sessions: Session numbers `[events]`, or None.
        counts: Events of each user `[users]`.
        users: User ids `[users]`.
    """

    items: list[Any]
    behaviors: list[str]
    times: np.ndarray | None
    sessions: np.ndarray | None
    counts: np.ndarray
    users: np.ndarray


def is_table(histories: Any) -> bool:
    """Whether something has columns."""
    return isinstance(histories, Mapping) or hasattr(histories, "to_pydict") or hasattr(histories, "to_dict")


def columns_of_table(table: Any) -> EventColumns:
    """Return the events of a table (`as_histories` says which), users in the order of their first event.

    Raises:
        ValueError: If a column is missing or shorter than another, a time is no moment, or a session no whole number.
    """
    if isinstance(table, Mapping):
        columns = {name: list(values) for name, values in table.items()}
    elif hasattr(table, "to_pydict"):
        columns = table.to_pydict()
    elif hasattr(table, "iter_rows"):  # polars
        columns = table.to_dict(as_series=False)
    else:
        columns = table.to_dict("list")
    missing = [name for name in ("item_id", "behavior") if name not in columns]
    if missing:
        raise ValueError(
            f"A history table needs the columns `item_id` and `behavior`; {missing[0]!r} is missing from "
            f"{sorted(columns)}. Rename the table's column."
        )
    _check_lengths(columns)
    num_events = len(columns["item_id"])
    user_of_event = list(columns["user_id"]) if "user_id" in columns else [0] * num_events
    users = list(dict.fromkeys(user_of_event))
    number = {user: row for row, user in enumerate(users)}
    rows = np.array([number[user] for user in user_of_event], dtype=np.int64)

    def place(column: str, row: int) -> str:
        user = f"; user {columns['user_id'][row]!r}" if "user_id" in columns else ""
        return f"`{column}` in row {row} (counted from 0{user}) of the histories"

    times = _seconds(columns["timestamp"], partial(place, "timestamp")) if "timestamp" in columns else None
    sessions = _session_numbers(columns["session"], partial(place, "session")) if "session" in columns else None
    order = np.argsort(rows, kind="stable") if times is None else np.lexsort((np.arange(num_events), times, rows))
    return EventColumns(
        items=[columns["item_id"][event] for event in order],
        behaviors=[columns["behavior"][event] for event in order],
        times=None if times is None else times[order],
        sessions=None if sessions is None else sessions[order],
        counts=np.bincount(rows, minlength=len(users)),
        users=as_id_array(users),
    )


def columns_of_lists(histories: Any) -> EventColumns:
    """Return the events of lists of tuples, one list per user.

    Raises:
        ValueError: If an element is no tuple of two or three, the same for all, or a time is no moment.
    """
    histories = [list(history) for history in histories]
    events = [event for history in histories for event in history]
    widths = {len(event) if isinstance(event, (tuple, list)) else 0 for event in events}
    if not widths <= {2} and not widths <= {3}:
        wrong = (
            next(event for event in events if not isinstance(event, (tuple, list)) or len(event) not in (2, 3))
            if widths - {2, 3}
            else "a mixture of both"
        )
        raise ValueError(
            "A history is a list of `(item, behavior)` or of `(item, behavior, time)`, the same for all; "
            f"got {wrong!r}. One history still needs the outer list: [[('item', 'view')]]."
        )
    places = [(event, row) for row, history in enumerate(histories) for event in range(len(history))]

    def place(number: int) -> str:
        event, row = places[number]
        return f"The time of event {event} of history {row} (both counted from 0)"

    return EventColumns(
        items=[event[0] for event in events],
        behaviors=[event[1] for event in events],
        times=_seconds([event[2] for event in events], place) if widths == {3} else None,
        sessions=None,
        counts=np.array([len(history) for history in histories], dtype=np.int64),
        users=np.arange(len(histories)),
    )


def whole_seconds(moment: Any, name: str) -> int:
    """Return one moment as whole seconds since 1970, rounded down.

    Args:
        moment: Seconds since 1970, a `datetime` or `date`, or ISO text (UTC where it names no zone).
        name: What to call it in messages.

    Raises:
        ValueError: If it is no moment.

    Example:
        >>> whole_seconds("1970-01-01T00:01:00.5", "`at`"), whole_seconds(-0.5, "`at`")
        (60, -1)
    """
    if isinstance(moment, np.datetime64) and not np.isnat(moment):
        return int(moment.astype("datetime64[s]").astype(np.int64))
    number = moment.item() if isinstance(moment, np.number) else moment
    if isinstance(number, bool) or not isinstance(number, (str, int, float, date)):
        raise ValueError(f"{name} must be seconds since 1970, a datetime or ISO text, got {moment!r}.")
    if isinstance(number, (int, float)) and not abs(number) < INT64_END:
        raise ValueError(f"{name} must be a finite number of seconds, got {number}.")
    try:
        return parse_time(number) // MICROSECONDS
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}") from error


def _seconds(values: Sequence[Any], place: Callable[[int], str]) -> np.ndarray:
    """Return times as whole seconds; `place` says of an event's number what its time is called in messages."""
    array = np.asarray(values)
    if array.dtype.kind == "O" and all(_is_local(value) for value in values):
        array = array.astype("datetime64[us]")
    if array.dtype.kind == "i":
        return array.astype(np.int64)
    if array.dtype.kind == "f" and (np.abs(array) < INT64_END).all():
        return np.floor(array).astype(np.int64)
    if array.dtype.kind == "M" and not np.isnat(array).any():
        return array.astype("datetime64[s]").astype(np.int64)
    return np.array([whole_seconds(value, place(event)) for event, value in enumerate(values)], dtype=np.int64)


def _is_local(value: Any) -> bool:
    """Whether a value is a date-time without a zone, which NumPy reads many at a time (pandas' NaT equals nothing)."""
    return isinstance(value, datetime) and value.tzinfo is None and value == value


def _session_numbers(values: Sequence[Any], place: Callable[[int], str]) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind == "i":
        return array.astype(np.int64)
    numbers = np.zeros(len(values), dtype=np.int64)
    for event, value in enumerate(values):
        number = _whole_number(value)
        if number is None:
            raise ValueError(
                f"{place(event)} must be a whole number, got {value!r}. Number each user's sessions in their order, or "
                "leave the column out."
            )
        numbers[event] = number
    return numbers


def _whole_number(value: Any) -> int | None:
    """Return what a value (`3`, `3.0` or `"3"`) counts, None if that is no whole number of 64 bits."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    is_whole = isinstance(value, str) or number == value
    return number if is_whole and -INT64_END <= number < INT64_END else None


def _check_lengths(columns: Mapping[str, Sequence[Any]]) -> None:
    num_events = len(columns["item_id"])
    for name, values in columns.items():
        if len(values) != num_events:
            raise ValueError(
                f"A history table needs one value per event in every column, but `item_id` has {num_events} and "
                f"`{name}` has {len(values)}. Give columns of one length."
            )
