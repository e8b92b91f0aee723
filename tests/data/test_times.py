import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pyarrow as pa
import pytest

from genrec.data.times import MICROSECONDS, TimeColumn, day_number, local_to_utc, parse_time, zone_changes, zone_info

BERLIN = ZoneInfo("Europe/Berlin")
START, END = 1_550_000_000, 1_650_000_000


@pytest.fixture(scope="module")
def backend():
    return ibis.duckdb.connect()


def read(backend, values, unit="s", zone="UTC"):
    times = TimeColumn.of(pa.chunked_array([pa.array(values)]), unit, zone)
    table = ibis.memtable(pa.table({"row": list(range(len(values))), "time": times.values}))
    expression = table.select("row", time=times.microseconds(table.time, backend)).order_by("row")
    return backend.to_pyarrow(expression)["time"].to_pylist()


def seconds(*moments):
    return [round(moment.timestamp() * MICROSECONDS) for moment in moments]


@pytest.mark.parametrize(("unit", "factor"), [("s", 10**6), ("ms", 10**3), ("us", 1)])
def test_numbers_count_the_unit_asked_for(backend, unit, factor):
    assert read(backend, [0, 1_511_539_201], unit=unit) == [0, 1_511_539_201 * factor]


def test_nanoseconds_are_rounded_to_microseconds(backend):
    assert read(backend, [1_511_539_201_000_001_000], unit="ns") == [1_511_539_201_000_001]


def test_fractions_of_a_second_are_kept(backend):
    assert read(backend, [1.5, -0.25]) == [1_500_000, -250_000]
    assert read(backend, ["1.5", "2e3"]) == [1_500_000, 2_000_000_000]


def test_unreadable_times_are_null(backend):
    assert read(backend, ["10", "x"]) == [10_000_000, None]
    assert read(backend, ["2020-01-01", "x"]) == [1_577_836_800_000_000, None]
    assert read(backend, [1.0, float("inf"), float("nan"), 1e13]) == [1_000_000, None, None, None]
    assert read(backend, ["x", "y"], zone="Europe/Berlin") == [None, None]
    assert read(backend, ["2020-01-01", "99999-01-01"], zone="Asia/Shanghai") == [1_577_808_000_000_000, None]
    assert read(backend, [datetime(2020, 1, 1), datetime(9999, 1, 1)]) == [1_577_836_800_000_000, None]


@pytest.mark.parametrize(
    "text",
    [
        *("2020-07-01T10:00:00Z", "2020-07-01 12:00:00+02:00", "2020-07-01 06:30:00-0330"),
        *("2020-07-01 18:00:00.000 +08", "2020-07-01 10:00:00 UTC", "2020-07-01 10:00 GMT", "2020-07-01 10:00:00.0UTC"),
    ],
)
def test_a_written_zone_wins(backend, text):
    expected = seconds(datetime(2020, 7, 1, 10, tzinfo=UTC))
    assert read(backend, [text], zone="Asia/Shanghai") == expected
    assert read(backend, ["2020-07-01 18:00:00", text], zone="Asia/Shanghai") == expected * 2


@pytest.mark.parametrize(
    "text",
    [
        *("2024-01-02 08:00:00 PM", "2024-01-02 08:00 AM", "2024-01-02 08:00:00 BC", "epoch", "infinity", "now"),
        *("2024-01-02 08:00:00 America/New_York", "2024-01-02 08:00:00 PST", "2024-01-02 08:00:00 UTC+8"),
        *("01/02/2024", "20240102T08:00:00", "08:00:00", "2024-01-02 08:00:00 UTC UTC", "2024-01-02 25:00:00"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
def test_text_with_more_than_a_date_time_is_unreadable(backend, text, zone):
    assert read(backend, ["2024-01-02 08:00:00+00", text], zone=zone) == [1_704_182_400_000_000, None]


def test_date_times_may_be_written_short(backend):
    texts = ["2024-01-02", "2024/1/2", " 2024-01-02 0:00 ", "2024-1-2T00:00:00.000000"]
    assert read(backend, texts) == [1_704_153_600_000_000] * 4


def test_date_times_without_a_zone_are_local(backend):
    summer, winter = datetime(2020, 7, 1, 9, 30, 0, 250_000), datetime(2020, 12, 1)
    expected = seconds(summer.replace(tzinfo=BERLIN), winter.replace(tzinfo=BERLIN))
    assert read(backend, ["2020-07-01 09:30:00.25", "2020-12-01"], zone="Europe/Berlin") == expected
    assert read(backend, [summer, winter], zone="Europe/Berlin") == expected
    assert read(backend, [summer.date(), winter.date()], zone="UTC") == seconds(
        datetime(2020, 7, 1, tzinfo=UTC), datetime(2020, 12, 1, tzinfo=UTC)
    )


def test_date_times_with_a_zone_are_moments(backend):
    moment = datetime(2020, 7, 1, 9, tzinfo=BERLIN)
    assert read(backend, [moment], zone="Asia/Shanghai") == seconds(moment)


def test_zone_changes_match_the_standard_library():
    changes = zone_changes("Europe/Berlin", START, END)
    moments = [second for second, _ in changes[1:]]
    assert len(moments) == 7  # twice in 2019, 2020 and 2021, and once more in March 2022
    for (second, offset), (_, before) in zip(changes[1:], changes, strict=False):
        for moment, expected in ((second, offset), (second - 1, before)):
            local = datetime.fromtimestamp(moment, UTC).astimezone(BERLIN)
            assert local.utcoffset() == timedelta(seconds=expected)


def test_local_times_match_the_standard_library(backend):
    generator = np.random.default_rng(0)
    local = [datetime(2019, 3, 1) + timedelta(minutes=int(m)) for m in generator.integers(0, 1_500_000, 300)]
    local += [datetime(2020, 10, 25, 2, 30), datetime(2020, 3, 29, 2, 30)]  # shown twice, never shown
    naive = [round(moment.replace(tzinfo=UTC).timestamp()) * MICROSECONDS for moment in local]
    table = ibis.memtable(pa.table({"time": naive}))
    utc = backend.to_pyarrow(table.select(time=local_to_utc(table.time, "Europe/Berlin", min(naive), max(naive))))
    assert sorted(utc["time"].to_pylist()) == sorted(seconds(*(moment.replace(tzinfo=BERLIN) for moment in local)))


def test_day_numbers_match_the_standard_library(backend):
    moments = np.random.default_rng(1).integers(START, END, 300)
    table = ibis.memtable(pa.table({"row": np.arange(300), "time": moments * MICROSECONDS}))
    days = table.select("row", day=day_number(table.time, "Europe/Berlin", START * MICROSECONDS, END * MICROSECONDS))
    expected = [datetime.fromtimestamp(m, BERLIN).date().toordinal() - 719_163 for m in moments.tolist()]
    assert backend.to_pyarrow(days.order_by("row"))["day"].to_pylist() == expected


def test_unknown_zone_is_refused():
    with pytest.raises(ValueError, match="Unknown time zone 'Mars/Olympus'"):
        zone_info("Mars/Olympus")


def test_single_moments_are_read():
    assert parse_time(1.5) == 1_500_000
    assert parse_time("1970-01-02") == 86_400 * MICROSECONDS
    assert parse_time(date(1970, 1, 2), "Asia/Shanghai") == (86_400 - 8 * 3600) * MICROSECONDS
    assert parse_time(datetime(1970, 1, 1, 9, tzinfo=UTC), "Asia/Shanghai") == 9 * 3600 * MICROSECONDS
    assert parse_time("1970-01-01 09:00:00 UTC", "Asia/Shanghai") == 9 * 3600 * MICROSECONDS
    for wrong in ("soon", "1970-01-01 UTC", "1970-01-01 09:00:00+08:00 UTC", None):
        with pytest.raises(ValueError, match=re.escape(f"{wrong!r} is no moment")):
            parse_time(wrong)
