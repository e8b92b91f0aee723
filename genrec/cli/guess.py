"""Guesses about an unknown table: which column is the user, the item, the behavior, the time, and which ladder.

Names are tried first, contents second. A guess is only ever a proposal: `genrec init` prints it and writes it into the
recipe, where it can be changed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

NAMES = {
    "user": ("user", "visitor", "customer", "client", "member", "account", "uid", "reader", "person", "shopper"),
    "item": ("item", "product", "sku", "article", "content", "asin", "video", "movie", "song", "goods", "iid", "pid"),
    "behavior": ("behavior", "behaviour", "event", "action", "interaction", "activity", "type"),
    "time": ("timestamp", "datetime", "time", "date", "ts", "when", "created", "at"),
}
PLAIN_NAMES = {"user": "user_id", "item": "item_id", "behavior": "behavior", "time": "timestamp"}
ROLES = ("time", "behavior", "user", "item")
LADDER = (
    ("impression", "show", "exposure", "expose"),
    ("view", "click", "pageview", "pv", "visit", "open", "read", "browse", "watch", "play", "detail"),
    ("like", "thumbsup", "upvote"),
    ("favorite", "favourite", "fav", "collect", "wish", "wishlist", "bookmark", "save"),
    ("share", "forward", "follow", "comment", "subscribe"),
    ("cart", "addtocart", "addcart", "basket", "add"),
    ("checkout", "order"),
    ("buy", "purchase", "transaction", "pay", "conversion", "sale", "sold", "bought", "ordered"),
)
MAX_BEHAVIORS = 20
EPOCH_SECONDS = (3e8, 5e9)
EPOCH_UNITS = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True)
class Columns:
    """The columns of a log by role."""

    user: str
    item: str
    behavior: str
    time: str


def guess_columns(table: pa.Table) -> Columns:
    """Guess which column is which.

    Args:
        table: The log or its first rows.

    Raises:
        ValueError: If a role finds no column.

    Example:
        >>> guess_columns(pa.table({"visitorid": [1], "event": ["view"], "itemid": [7], "ts": [1433221332117]}))
        Columns(user='visitorid', item='itemid', behavior='event', time='ts')
    """
    taken: dict[str, str] = {}
    for by in (_by_name, _by_content):
        for role in ROLES:
            left = [name for name in table.column_names if name not in taken.values()]
            if role not in taken and (column := by(role, left, table)) is not None:
                taken[role] = column
    for role in ("user", "item", "behavior", "time"):
        if role not in taken:
            raise ValueError(
                f"No column looks like the {role}. The table has: {', '.join(table.column_names)}. Rename the right "
                f"one, for example to `{PLAIN_NAMES[role]}`, or write the recipe by hand and set `data.{role}_column`."
            )
    return Columns(**taken)


def guess_ladder(counts: dict[str, int]) -> tuple[list[str], bool]:
    """Guess the order of behaviors, weakest first.

    Args:
        counts: Events per behavior.

    Returns:
        The behaviors, and whether all were known words. Unknown ones are ordered by their counts instead, the most
        frequent weakest, because stronger behaviors are rarer.

    Example:
        >>> guess_ladder({"transaction": 5, "view": 90, "addtocart": 9})
        (['view', 'addtocart', 'transaction'], True)
    """
    rungs = {name: _rung(name) for name in counts}
    by_count = sorted(counts, key=lambda name: (-counts[name], name))
    if None in rungs.values():
        return by_count, False
    return sorted(by_count, key=lambda name: rungs[name] or 0), True


def time_unit(column: pa.ChunkedArray) -> str:
    """Return what numbers in a time column count: `"s"`, `"ms"`, `"us"` or `"ns"`; `"s"` for dates.

    >>> time_unit(pa.chunked_array([[1433221332117]]))
    'ms'
    """
    if not _is_number(column):
        return "s"
    values = column.drop_null().to_pylist()
    return next((name for name, unit in EPOCH_UNITS.items() if max(values) <= EPOCH_SECONDS[1] * unit), "ns")


def _rung(behavior: str) -> int | None:
    """Return where a behavior's name stands in the usual ladder, or None."""
    squeezed = re.sub(r"[^a-z]", "", behavior.lower())
    exact = [rung for rung, words in enumerate(LADDER) if squeezed in words]
    inside = [rung for rung, words in enumerate(LADDER) if set(_words(behavior)) & set(words)]
    return max(exact or inside, default=None)


def _by_name(role: str, columns: Sequence[str], table: pa.Table) -> str | None:
    """Return the column whose name says the role, the plainest such name."""
    ranked = []
    for position, column in enumerate(columns):
        words = _words(column)
        squeezed = "".join(words)
        for rank, word in enumerate(NAMES[role]):
            if (word in words or squeezed in (word, word + "id")) and _fits(role, table[column]):
                ranked.append((rank, len(words), position, column))
    return min(ranked)[-1] if ranked else None


def _by_content(role: str, columns: Sequence[str], table: pa.Table) -> str | None:
    """Return the first column whose values fit the role; for behaviors that with the fewest different ones."""
    fitting = [column for column in columns if _fits(role, table[column])]
    if role == "behavior":
        fitting.sort(key=lambda column: len(set(table[column].to_pylist())))
    if role in ("user", "item"):
        fitting = [column for column in fitting if not _looks_like_time(table[column])]
    return fitting[0] if fitting else None


def _fits(role: str, column: pa.ChunkedArray) -> bool:
    if role == "time":
        return _looks_like_time(column)
    if not (_is_text(column) or pa.types.is_integer(_value_type(column))):
        return False
    return role != "behavior" or 1 <= len(set(column.to_pylist())) <= MAX_BEHAVIORS


def _looks_like_time(column: pa.ChunkedArray) -> bool:
    """Say whether values are dates, or numbers that are plausible seconds (or milli-, micro-, nanoseconds)."""
    if pa.types.is_temporal(column.type):
        return True
    values: list[Any] = [value for value in column.to_pylist() if value is not None]
    if not values:
        return False
    if _is_text(column):
        return all(re.match(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}|$)", value) for value in values)
    if not _is_number(column):
        return False
    return any(
        EPOCH_SECONDS[0] * unit <= min(values) and max(values) <= EPOCH_SECONDS[1] * unit
        for unit in EPOCH_UNITS.values()
    )


def _value_type(column: pa.ChunkedArray) -> pa.DataType:
    """Return the type of a column's values, which a dictionary-encoded column keeps inside."""
    return column.type.value_type if pa.types.is_dictionary(column.type) else column.type


def _is_text(column: pa.ChunkedArray) -> bool:
    kind = _value_type(column)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(column: pa.ChunkedArray) -> bool:
    kind = _value_type(column)
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _words(name: str) -> list[str]:
    """Split a name into lower-case words.

    >>> _words("eventTime"), _words("USER_ID"), _words("add-to-cart")
    (['event', 'time'], ['user', 'id'], ['add', 'to', 'cart'])
    """
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return re.findall(r"[a-z]+", spaced.lower())
