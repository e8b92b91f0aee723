"""Histories in the forms that users bring, lists of tuples or a table, as columns with one entry per event."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def as_id_array(ids: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Return ids as int64 when all are integers, else as objects, so that `.tolist()` gives the log's own ids back."""
    array = np.asarray(ids)
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
        ValueError: If a column is missing.
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
    num_events = len(columns["item_id"])
    user_of_event = list(columns["user_id"]) if "user_id" in columns else [0] * num_events
    users = list(dict.fromkeys(user_of_event))
    number = {user: row for row, user in enumerate(users)}
    rows = np.array([number[user] for user in user_of_event], dtype=np.int64)
    times = _seconds(columns["timestamp"]) if "timestamp" in columns else None
    order = np.argsort(rows, kind="stable") if times is None else np.lexsort((np.arange(num_events), times, rows))
    sessions = np.asarray(columns["session"], dtype=np.int64)[order] if "session" in columns else None
    return EventColumns(
        items=[columns["item_id"][event] for event in order],
        behaviors=[columns["behavior"][event] for event in order],
        times=None if times is None else times[order],
        sessions=sessions,
        counts=np.bincount(rows, minlength=len(users)),
        users=as_id_array(users),
    )


def columns_of_lists(histories: Any) -> EventColumns:
    """Return the events of lists of tuples, one list per user.

    Raises:
        ValueError: If an element is no tuple of two or three, the same for all.
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
    return EventColumns(
        items=[event[0] for event in events],
        behaviors=[event[1] for event in events],
        times=_seconds([event[2] for event in events]) if widths == {3} else None,
        sessions=None,
        counts=np.array([len(history) for history in histories], dtype=np.int64),
        users=np.arange(len(histories)),
    )


def _seconds(values: Sequence[Any]) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind in "iuf":
        return array.astype(np.int64)
    return array.astype("datetime64[s]").astype(np.int64)
