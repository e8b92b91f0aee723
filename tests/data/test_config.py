import dataclasses
import datetime
import json
from pathlib import Path

import pytest

from genrec.data.config import DataConfig


def test_every_field_is_documented():
    for field in dataclasses.fields(DataConfig):
        assert f"        {field.name}: " in DataConfig.__doc__, field.name


def test_dict_round_trip():
    config = DataConfig(behaviors="view,buy", sessions="day", day_time_zone="Asia/Shanghai", user_share=0.5)
    assert DataConfig.from_dict(config.to_dict()) == config


def test_paths_become_text_that_json_can_hold():
    config = DataConfig(interactions=Path("logs/a.csv"), items=Path("items.csv"))
    assert (config.interactions, config.items) == (str(Path("logs/a.csv")), "items.csv")
    assert DataConfig(interactions=(Path("a.csv"), "b.csv")).interactions == ["a.csv", "b.csv"]
    assert DataConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_defaults_of_a_rule_are_filled_in_for_that_rule_only():
    assert DataConfig().gap_minutes == 30.0
    assert DataConfig(gap_minutes=15).gap_minutes == 15.0
    day = DataConfig(sessions="day", time_zone="Asia/Shanghai")
    assert (day.gap_minutes, day.day_time_zone) == (None, "Asia/Shanghai")
    assert DataConfig(sessions="column", session_column="visit").gap_minutes is None


def test_columns_name_the_session_only_if_there_is_one():
    names = {"user_id": "u", "item_id": "item_id", "behavior": "behavior", "timestamp": "t"}
    assert DataConfig(user_column="u", time_column="t").columns == names
    assert DataConfig(sessions="column", session_column="s").columns["session"] == "s"


def test_time_window_is_read_in_the_time_zone():
    config = DataConfig(start_time="1970-01-02", end_time=172_800, time_zone="Asia/Shanghai")
    assert config.time_window == ((86_400 - 8 * 3600) * 10**6, 172_800 * 10**6)
    assert DataConfig().time_window == (None, None)
    days = DataConfig(start_time=86_400, num_days=2)
    assert days.time_window == (86_400 * 10**6, 3 * 86_400 * 10**6)


def test_dates_become_text():
    config = DataConfig(start_time=datetime.date(1970, 1, 2), end_time=datetime.datetime(1970, 1, 2, 1))
    assert config.time_window == (86_400 * 10**6, 90_000 * 10**6)
    assert (config.to_dict()["start_time"], config.to_dict()["end_time"]) == ("1970-01-02", "1970-01-02T01:00:00")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sessions": "week"}, "`sessions` must be one of gap, day, column, got 'week'"),
        ({"interactions": {"user_id": [1]}}, "`interactions` must be the path of a file, got builtins.dict"),
        ({"items": ["a.csv"]}, "`items` must be the path of a file, got builtins.list. Hand a table in memory to"),
        ({"short_users": "keep"}, "`short_users` must be one of train, drop, got 'keep'"),
        ({"catalog_items": "some"}, "`catalog_items` must be one of all, log, got 'some'"),
        ({"time_unit": "h"}, "`time_unit` must be one of s, ms, us, ns, got 'h'"),
        ({"behaviors": "a,b=c"}, "Exactly one behavior must be the strongest"),
        ({"session_column": "visit"}, "`session_column` is 'visit' but `sessions` is 'gap'"),
        ({"sessions": "column"}, "`session_column` is None but `sessions` is 'column'"),
        ({"sessions": "day", "gap_minutes": 5.0}, "`gap_minutes` is 5.0 but `sessions` is 'day'"),
        ({"day_time_zone": "UTC"}, "`day_time_zone` is 'UTC' but `sessions` is 'gap'"),
        ({"sessions": "day", "day_time_zone": "Mars"}, "Unknown time zone 'Mars'"),
        ({"time_zone": "Mars"}, "Unknown time zone 'Mars'"),
        ({"gap_minutes": -1.0}, "`gap_minutes` must be above 0, got -1.0"),
        ({"gap_minutes": 0}, "`gap_minutes` must be above 0, got 0.0"),
        ({"start_time": 10, "end_time": 10}, "`start_time` 10 must lie before `end_time` 10"),
        ({"num_days": 7}, "`num_days` is 7, but `start_time` is missing"),
        ({"start_time": 1, "end_time": 2, "num_days": 7}, "`num_days` is 7 and `end_time` 2: one of them would have"),
        ({"start_time": 1, "num_days": 0}, "`num_days` must be above 0, got 0"),
        ({"start_time": "soon"}, "'soon' is no moment"),
        ({"start_time": datetime.time(8)}, r"datetime.time\(8, 0\) is no moment"),
        ({"min_interactions": 0}, "`min_interactions` must be at least 1"),
        ({"k_core": 0}, "`k_core` must be at least 1"),
        ({"min_sessions": 2}, "`min_sessions` must be at least 3, got 2"),
        ({"user_share": 0.0}, "`user_share` must be above 0 and at most 1"),
        ({"user_share": 1.5}, "`user_share` must be above 0 and at most 1"),
        ({"temporal_test_share": 0.0}, "must be above 0 and together below 1, got 0.1 and 0.0"),
        ({"temporal_test_share": 0.9}, "must be above 0 and together below 1, got 0.1 and 0.9"),
        ({"expected_counts": {"user": 3}}, "unknown count 'user'; it may have: users, items, sessions, interactions"),
        ({"strict_counts": True}, "`strict_counts` is true but there are no `expected_counts`"),
    ],
)
def test_bad_values_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


def test_unknown_key_names_the_nearest():
    with pytest.raises(ValueError, match="unknown key 'gap_minute'. Did you mean 'gap_minutes'"):
        DataConfig.from_dict({"gap_minute": 3})
    with pytest.raises(ValueError, match="unknown key 'xyz'. The keys are: interactions, items"):
        DataConfig.from_dict({"xyz": 3})
