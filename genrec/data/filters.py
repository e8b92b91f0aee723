"""Filters of a log, as Ibis expressions, each a function `table -> table`."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ibis
import pyarrow as pa

from genrec.data.behaviors import BehaviorLadder
from genrec.data.config import DataConfig

if TYPE_CHECKING:
    import ibis.expr.types as ir

HASH_RANGE = 2**64
Materialize = Callable[["ir.Table"], "ir.Table"]  # computes a table now, as one of the engine's


@dataclass(frozen=True)
class Filter:
    """One reason to leave rows out.

    Args:
        name: Its name in the manifest.
        reason: What is said about the rows it drops.
        apply: What it keeps.
    """

    name: str
    reason: str
    apply: Callable[["ir.Table"], "ir.Table"]


def filters_before_sessions(ladder: BehaviorLadder, config: DataConfig) -> Iterator[Filter]:
    """Yield the configured filters that decide which log it is: behaviors, time window, users drawn."""
    if config.other_behaviors == "drop":
        yield Filter(
            "behaviors",
            f"the behavior is none of {', '.join(ladder.names)}",
            lambda table: table.filter(table.behavior.isin(list(ladder.names))),
        )
    if config.time_window != (None, None):
        yield Filter(
            "time_window",
            f"outside the {_window_text(config)}",
            lambda table: in_time_window(table, *config.time_window),
        )
    if config.user_share < 1:
        yield Filter(
            "user_share",
            f"the user is not among the {config.user_share:.4g} drawn with seed {config.seed}",
            lambda table: drawn_users(table, config.user_share, config.seed),
        )


def _window_text(config: DataConfig) -> str:
    """Say the time window as it was configured."""
    start = "the beginning" if config.start_time is None else config.start_time
    end = "the end" if config.end_time is None else config.end_time
    return f"time from {start} to before {end}" if config.num_days is None else f"{config.num_days:g} days from {start}"


def filters_by_count(config: DataConfig, materialize: Materialize) -> Iterator[Filter]:
    """Yield the configured filters that count interactions: per user, then the k-core."""
    if config.min_interactions > 1:
        yield Filter(
            "min_interactions",
            f"the user has fewer than {config.min_interactions} interactions",
            lambda table: frequent(table, "user_id", config.min_interactions),
        )
    if config.k_core > 1:
        yield Filter(
            "k_core",
            f"outside the {config.k_core}-core: the user or the item has fewer than {config.k_core} interactions",
            lambda table: k_core(table, config.k_core, materialize),
        )


def filters_by_sessions(config: DataConfig) -> Iterator[Filter]:
    """Yield the filter that leaves out short users, if it is configured."""
    if config.short_users == "drop":
        yield Filter(
            "min_sessions",
            f"the user has fewer than {config.min_sessions} sessions",
            lambda table: with_enough_sessions(table, config.min_sessions),
        )


def in_time_window(table: "ir.Table", start: int | None, end: int | None) -> "ir.Table":
    """Keep what happened from `start` on and before `end` (microseconds, None = open)."""
    if start is not None:
        table = table.filter(table.time >= start)
    return table if end is None else table.filter(table.time < end)


def drawn_users(table: "ir.Table", share: float, seed: int) -> "ir.Table":
    """Keep a share of the users, drawn one by one: the same whatever the engine and whoever else is in the log."""
    users = table.select("user_id").distinct().to_pyarrow()["user_id"]
    drawn = [user for user in users.to_pylist() if user_position(user, seed) < share]
    return table.semi_join(ibis.memtable(pa.table({"user_id": pa.array(drawn, users.type)})), "user_id")


def user_position(user: Any, seed: int) -> float:
    """Return a user's place in [0, 1), the same everywhere, uniform over users.

    Example:
        >>> 0 <= user_position("u1", seed=0) < 1, user_position("u1", 0) == user_position("u1", 1)
        (True, False)
    """
    digest = hashlib.sha256(f"{seed}:{user}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / HASH_RANGE


def frequent(table: "ir.Table", column: str, least: int) -> "ir.Table":
    """Keep the rows whose value of a column stands in at least `least` rows."""
    counts = table.group_by(column).aggregate(events=table.count())
    return table.semi_join(counts.filter(counts.events >= least), column)


def k_core(table: "ir.Table", k: int, materialize: Materialize) -> "ir.Table":
    """Drop users, then items, with fewer than `k` rows, until all have them. The order changes nothing.

    Each round's table is dropped once the next is made: a log may take many rounds, each nearly as large as the log.
    """
    core: ir.Table | None = None
    before, after = -1, table.count().to_pyarrow().as_py()
    while before != after:
        table = materialize(frequent(frequent(table, "user_id", k), "item_id", k))
        if core is not None:
            core.get_backend().raw_sql(f"DROP TABLE {core.op().name}")
        core = table
        before, after = after, table.count().to_pyarrow().as_py()
    return table


def with_enough_sessions(table: "ir.Table", least: int) -> "ir.Table":
    """Keep the users with at least `least` sessions."""
    counts = table.group_by("user_id").aggregate(num_sessions=table.session.nunique())
    return table.semi_join(counts.filter(counts.num_sessions >= least), "user_id")
