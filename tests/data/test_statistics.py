"""Log statistics, against counts made by hand."""

import numpy as np
import pytest

from genrec.data.histories import as_histories
from genrec.data.statistics import log_statistics

DAY = 86_400
LOG = [
    [("a", "view", 0), ("a", "buy", 60), ("b", "view", 2 * DAY), ("a", "view", 4 * DAY), ("c", "view", 4 * DAY)],
    [("b", "view", 0), ("a", "view", DAY), ("b", "view", DAY + 60), ("d", "buy", 9 * DAY), ("b", "buy", 9 * DAY)],
    [("b", "view", 5 * DAY), ("b", "view", 6 * DAY)],
    [],
]


def statistics() -> dict[str, float]:
    return log_statistics(as_histories(LOG, item_ids=["a", "b", "c", "d", "never"], ladder="view,buy"))


def test_counts_and_sessions():
    expected = {
        "users": 3,
        "items": 4,
        "events": 12,
        "sessions per user, mean": (3 + 3 + 2) / 3,
        "sessions per user, median": 3,
        "users with three sessions": 2 / 3,
        "events per session, mean": 12 / 8,
        "sessions of one event": 4 / 8,
        "items per session, mean": (1 + 1 + 2 + 1 + 2 + 2 + 1 + 1) / 8,
        "days between sessions, median": np.median([2 - 60 / DAY, 2, 1, 8 - 60 / DAY, 1]),
        "behavior:view": 9 / 12,
        "behavior:buy": 3 / 12,
    }
    found = statistics()
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_targets_are_averaged_over_records():
    """Records: user 0 view {a: repeat, c: cold}, user 1 buy {d: cold, b: repeat}; user 2 has too few sessions."""
    found = statistics()
    assert found["records"] == 2
    assert found["repeat share"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["repeat share, top behavior"] == pytest.approx(1 / 2)
    assert found["cold share"] == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_popularity():
    """Counts 1, 1, 4, 6: Gini = 2 (1 + 2 + 12 + 24) / (4 * 12) - 5 / 4."""
    found = statistics()
    assert found["popularity, Gini"] == pytest.approx(2 * 39 / 48 - 5 / 4)
    assert found["popularity, share of top 1 %"] == pytest.approx(6 / 12)
    assert -1 <= found["popularity, first half to second"] <= 1


def test_a_log_without_drift_or_targets():
    still = log_statistics(as_histories([[("a", "view")], [("a", "view")]], item_ids=["a"], ladder="view"))
    assert still["popularity, first half to second"] == 1.0
    assert still["days between sessions, median"] == 0.0
    assert "records" not in still


def test_an_empty_log_has_no_statistics():
    assert log_statistics(as_histories([], item_ids=["a"], ladder="view")) == {}
