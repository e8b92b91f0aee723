"""Sessions of a log, as Ibis expressions: by idle gap, by calendar day in a time zone, or as the source gives them.

Every rule numbers a user's sessions from 0 in the order user, time, source row. With given sessions a new one starts
wherever the given value changes in that order, so that two devices used at once make alternating sessions, and a
session is always a run of neighbouring interactions.
"""

from typing import TYPE_CHECKING

import ibis

from genrec.data.config import DataConfig
from genrec.data.histories import SECONDS_PER_MINUTE
from genrec.data.times import MICROSECONDS, day_number

if TYPE_CHECKING:
    import ibis.expr.types as ir

IN_ORDER = ["time", "row"]


def with_sessions(table: "ir.Table", config: DataConfig) -> "ir.Table":
    """Return the log with an int64 column `session`, numbered from 0 per user.

    Args:
        table: A log with `user_id`, `time` (microseconds), `row` and, for given sessions, `session`.
        config: Says the rule.
    """
    if config.sessions == "column":
        starts = _changes(table, table.session)
    elif config.sessions == "day":
        first, last = (
            table.aggregate(first=table.time.min(), last=table.time.max()).to_pyarrow().to_pylist()[0].values()
        )
        starts = _changes(table, day_number(table.time, str(config.day_time_zone), first, last))
    else:
        assert config.gap_minutes is not None
        starts = _idle(table, config.gap_minutes)
    marked = table.mutate(starts=starts.cast("int64"))
    so_far = ibis.cumulative_window(group_by="user_id", order_by=IN_ORDER)
    return marked.mutate(session=marked.starts.sum().over(so_far) - 1).drop("starts")


def renumbered(table: "ir.Table") -> "ir.Table":
    """Return the log with session numbers from 0 without holes, after a filter emptied some sessions."""
    return table.mutate(
        session=ibis.dense_rank().over(ibis.window(group_by="user_id", order_by="session")).cast("int64")
    )


def _idle(table: "ir.Table", gap_minutes: float) -> "ir.BooleanValue":
    before = table.time.lag().over(ibis.window(group_by="user_id", order_by=IN_ORDER))
    gap = round(gap_minutes * SECONDS_PER_MINUTE * MICROSECONDS)
    return before.isnull() | (table.time - before > gap)


def _changes(table: "ir.Table", value: "ir.Value") -> "ir.BooleanValue":
    before = value.lag().over(ibis.window(group_by="user_id", order_by=IN_ORDER))
    return before.isnull() | (value != before)
