"""Times of a log as one kind of number, microseconds since 1970 (UTC), whatever the source wrote.

Zones are turned into a handful of offsets by the standard library's `zoneinfo`, so an engine only ever adds integers:
the result cannot depend on an engine's own zone database or settings.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

MICROSECONDS_PER_UNIT = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
MICROSECONDS = 1_000_000
SECONDS_PER_DAY = 86_400
LARGEST_SECONDS = 10_000_000_000  # 2286-11-20: a larger number was written in a finer unit
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
# Date-time, then sign, hours and minutes of the offset. UTC and GMT are the only names: others are no single offset.
ZONED = r"^(.*:\d{2}(?:\.\d+)?)\s*(?:[Zz]|UTC|GMT|([+-])(\d{2}):?(\d{2})?)$"
LOCAL = r"^\d{4}[-/]\d{1,2}[-/]\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?$"
NAMED_UTC = re.compile(r" ?(?:UTC|GMT)$")


def zone_info(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        ValueError: If there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"Unknown time zone {name!r}. Give an IANA name such as 'UTC', 'Asia/Shanghai' or 'Europe/Berlin'."
        ) from error


def zone_changes(zone: str, first: int, last: int) -> list[tuple[int, int]]:
    """Return when a zone's offset from UTC changes, as `(from second, offset in seconds)`.

    The first entry holds at the second `first`; no change after the second `last` is missing a day before it.

    Example:
        >>> zone_changes("Asia/Shanghai", 1_500_000_000, 1_600_000_000)
        [(1500000000, 28800)]
        >>> [offset for _, offset in zone_changes("Europe/Berlin", 1_500_000_000, 1_520_000_000)]
        [7200, 3600]
    """
    info = zone_info(zone)

    def offset(second: int) -> int:
        delta = datetime.fromtimestamp(second, UTC).astimezone(info).utcoffset()
        assert delta is not None
        return int(delta.total_seconds())

    changes = [(first, offset(first))]
    for day in range(first, last + SECONDS_PER_DAY, SECONDS_PER_DAY):
        before, after = day, day + SECONDS_PER_DAY
        if offset(after) == changes[-1][1]:
            continue
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if offset(middle) == changes[-1][1] else (before, middle)
        changes.append((after, offset(after)))
    return changes


def parse_time(value: str | int | float | date, zone: str = "UTC") -> int:
    """Read one moment as microseconds since 1970 (UTC).

    Args:
        value: Seconds since 1970, an ISO date-time (which may end in `UTC` or `GMT`), a `datetime` or a `date`.
        zone: The zone of a value that names none.

    Example:
        >>> parse_time("2017-11-25", "Asia/Shanghai") == parse_time("2017-11-24T16:00:00Z") == parse_time(1511539200)
        True
        >>> parse_time(date(2017, 11, 25)) == parse_time("2017-11-25 00:00:00 UTC", "Asia/Shanghai")
        True

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(value, (int, float)):
        return round(value * MICROSECONDS)
    try:
        text = value.isoformat() if isinstance(value, date) else value
        moment = datetime.fromisoformat(NAMED_UTC.sub("+00:00", text) if ":" in text else text)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{value!r} is no moment. Give seconds since 1970 or an ISO date-time, '2017-11-25'."
        ) from error
    moment = moment.replace(tzinfo=zone_info(zone)) if moment.tzinfo is None else moment
    return round(moment.timestamp() * MICROSECONDS)


@dataclass(frozen=True, eq=False)
class TimeColumn:
    """A log's time column as read, and what its values mean.

    Args:
        values: The values: int64 microseconds for `"instant"` and `"local"`, else as the source has them.
        kind: `"instant"` (date-times with a zone), `"local"` (date-times without), `"number"` or `"text"`.
        unit: What numbers count.
        zone: The zone of date-times that name none.
    """

    values: "pa.ChunkedArray"
    kind: str
    unit: str
    zone: str

    @classmethod
    def of(cls, column: "pa.ChunkedArray", unit: str, zone: str) -> "TimeColumn":
        """Find out what a time column without nulls holds; text is a number if its first value is one."""
        import pyarrow as pa

        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            is_local = pa.types.is_date(column.type) or column.type.tz is None
            instants = column.cast(pa.timestamp("us", None if is_local else column.type.tz), safe=False)
            return cls(instants.cast(pa.int64()), "local" if is_local else "instant", unit, zone)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return cls(column, "number", unit, zone)
        text = column.cast(pa.string())
        return cls(text, "number" if NUMBER.fullmatch(text[0].as_py()) else "text", unit, zone)

    def microseconds(self, column: "ir.Value", backend: Any) -> "ir.Value":
        """Return the Ibis column as UTC microseconds; null where a value is no moment."""
        if self.kind == "instant":
            return _plausible(column)
        if self.kind == "number":
            return _numbers_to_microseconds(column, self.unit)
        if self.kind == "local":
            moments = _plausible(column)
            return local_to_utc(moments, self.zone, *_bounds(moments, backend))
        column = column.strip()
        is_zoned = column.re_search(ZONED)
        moments = _plausible(_text_to_microseconds(is_zoned.ifelse(column.re_extract(ZONED, 1), column)))
        shifted = local_to_utc(moments, self.zone, *_bounds(moments, backend))
        return is_zoned.ifelse(moments - _written_offset(column), shifted)


def _numbers_to_microseconds(column: "ir.Value", unit: str) -> "ir.Value":
    """Null where a number is no moment: not finite, or so large that it counts a finer unit."""
    factor = MICROSECONDS_PER_UNIT[unit]
    numbers = column.try_cast("float64")
    limit = LARGEST_SECONDS * MICROSECONDS / factor
    return (numbers.abs() < limit).ifelse((numbers * factor).round().cast("int64"), None)


def _plausible(moments: "ir.Value") -> "ir.Value":
    """Null where a moment is centuries away."""
    return (moments.abs() < LARGEST_SECONDS * MICROSECONDS).ifelse(moments, None)


def _text_to_microseconds(column: "ir.Value") -> "ir.Value":
    """Null where the text is no ISO date-time without a zone, which comes out as if it were UTC.

    An engine alone would take more than that: DuckDB reads a word behind the time (`PM`, `PST`, `BC`) as a zone's name
    and passes over it.
    """
    import ibis

    written = column.re_search(LOCAL).ifelse(column, None)
    return written.try_cast("timestamp").delta(ibis.timestamp("1970-01-01 00:00:00"), unit="microsecond")


def _written_offset(column: "ir.Value") -> "ir.Value":
    """Return the offset from UTC (microseconds) that a date-time names: engines disagree on reading it.

    It is 0 for `Z`, `UTC` and `GMT`.
    """
    hours, minutes = (column.re_extract(ZONED, group).try_cast("int64").fill_null(0) for group in (3, 4))
    sign = (column.re_extract(ZONED, 2) == "-").ifelse(-1, 1)
    return sign * (hours * 60 + minutes) * 60 * MICROSECONDS


def _bounds(column: "ir.Value", backend: Any) -> tuple[int, int]:
    first, last = (backend.to_pyarrow(bound).as_py() for bound in (column.min(), column.max()))
    return (0, 0) if first is None else (first, last)


def local_to_utc(local: "ir.Value", zone: str, first: int, last: int) -> "ir.Value":
    """Return UTC microseconds from local ones between the moments `first` and `last` (microseconds).

    A local time that the zone's clock shows twice is taken as its first showing.
    """
    changes = zone_changes(zone, *_days_around(first, last))
    return local - _cases(
        local,
        [
            (second + max(offset, before), offset)
            for (second, offset), (_, before) in zip(changes, [changes[0], *changes], strict=False)
        ],
    )


def day_number(time: "ir.Value", zone: str, first: int, last: int) -> "ir.Value":
    """Return the calendar day, counted from 1970-01-01, on which a moment falls in a zone."""
    local = time + _cases(time, zone_changes(zone, *_days_around(first, last)))
    return (local // (SECONDS_PER_DAY * MICROSECONDS)).cast("int64")


def _days_around(first: int, last: int) -> tuple[int, int]:
    return first // MICROSECONDS - SECONDS_PER_DAY, last // MICROSECONDS + SECONDS_PER_DAY


def _cases(time: "ir.Value", changes: list[tuple[int, int]]) -> Any:
    """Return the offset (microseconds) that holds at a time, given `(from second, offset)` in rising order."""
    import ibis

    offsets = [offset * MICROSECONDS for _, offset in changes]
    if len(changes) == 1:
        return ibis.literal(offsets[0], "int64")
    until = [second * MICROSECONDS for second, _ in changes[1:]]
    branches = [(time < end, offset) for end, offset in zip(until, offsets, strict=False)]
    return ibis.cases(*branches, else_=offsets[-1])
