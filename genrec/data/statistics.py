"""What an event log looks like, in a dozen numbers: the ones by which a synthetic log is compared with real ones."""

import numpy as np

from genrec.data.histories import SECONDS_PER_MINUTE, Histories

MIN_SESSIONS = 3
SECONDS_PER_DAY = 24 * 60 * SECONDS_PER_MINUTE


def log_statistics(histories: Histories) -> dict[str, float]:
    """Describe a log.

    Args:
        histories: Everything that every user did, sessions included.

    Returns:
        Name -> value. Shares lie in [0, 1]. A *target* is a distinct (user, item, behavior) of the last session of a
        user with at least three sessions; a *record* is all targets of one user and behavior, as in the `last-session`
        split. *Repeat* means that the user met the item in an earlier session, with whatever behavior, *cold* that
        nobody met it outside the last sessions; both are averaged over records. `behavior:<name>` is the share of
        events with that behavior. An empty log gives an empty dictionary.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> log = as_histories([[("a", "view"), ("b", "view"), ("a", "buy")]], item_ids=["a", "b"], ladder="view,buy")
        >>> log_statistics(log)["repeat share"]
        1.0
    """
    if len(histories.items) == 0:
        return {}
    return {
        **_counts(histories),
        **_sessions(histories),
        **_popularity(histories),
        **_targets(histories),
        **_behaviors(histories),
    }


def _counts(histories: Histories) -> dict[str, float]:
    return {
        "users": float((histories.lengths > 0).sum()),
        "items": float(len(np.unique(histories.items))),
        "events": float(len(histories.items)),
    }


def _session_numbers(histories: Histories) -> np.ndarray:
    """Number the sessions of the whole log from 0, `[events]`."""
    rows = histories.rows
    starts = (np.diff(rows) != 0) | (np.diff(histories.sessions) != 0)
    return np.concatenate([[0], np.cumsum(starts)])


def _sessions(histories: Histories) -> dict[str, float]:
    session = _session_numbers(histories)
    rows, times = histories.rows, histories.times
    events_per_session = np.bincount(session)
    visits = np.unique(np.stack([session, histories.items], axis=1), axis=0)
    user_of_session = rows[np.concatenate([[True], np.diff(session) > 0])]
    sessions_per_user = np.bincount(user_of_session)
    between = np.diff(times)[(np.diff(rows) == 0) & (np.diff(session) > 0)]
    return {
        "sessions per user, mean": float(sessions_per_user[sessions_per_user > 0].mean()),
        "sessions per user, median": float(np.median(sessions_per_user[sessions_per_user > 0])),
        "sessions per user, 90th percentile": float(np.quantile(sessions_per_user[sessions_per_user > 0], 0.9)),
        "users with three sessions": float((sessions_per_user >= MIN_SESSIONS).sum() / (sessions_per_user > 0).sum()),
        "events per session, mean": float(events_per_session.mean()),
        "events per session, median": float(np.median(events_per_session)),
        "events per session, 90th percentile": float(np.quantile(events_per_session, 0.9)),
        "sessions of one event": float((events_per_session == 1).mean()),
        "items per session, mean": float(np.bincount(visits[:, 0]).mean()),
        "days between sessions, median": float(np.median(between) / SECONDS_PER_DAY) if len(between) else 0.0,
    }


def _popularity(histories: Histories) -> dict[str, float]:
    counts = np.sort(np.unique(histories.items, return_counts=True)[1])
    ranks = np.arange(1, len(counts) + 1)
    top = max(1, len(counts) // 100)
    return {
        "popularity, Gini": float(
            2 * (ranks * counts).sum() / (len(counts) * counts.sum()) - (len(counts) + 1) / len(counts)
        ),
        "popularity, share of top 1 %": float(counts[-top:].sum() / counts.sum()),
        "popularity, first half to second": _half_to_half(histories),
    }


def _half_to_half(histories: Histories) -> float:
    """Correlate the items' log counts before and after the median event: 1 without any drift."""
    early = histories.times <= np.median(histories.times)
    num_items = len(histories.item_ids)
    before = np.bincount(histories.items[early], minlength=num_items)
    after = np.bincount(histories.items[~early], minlength=num_items)
    seen = before + after > 0
    logs = np.log1p(before[seen]), np.log1p(after[seen])
    return float(np.corrcoef(*logs)[0, 1]) if min(logs[0].std(), logs[1].std()) > 0 else 1.0


def _targets(histories: Histories) -> dict[str, float]:
    """Say how many targets of the last sessions were met before, by the user and by anyone."""
    is_last, asked = _last_sessions(histories)
    if not asked.any():
        return {}
    rows, num_items, num_behaviors = histories.rows, len(histories.item_ids), len(histories.ladder.names)
    events = np.stack([rows[asked], histories.items[asked], histories.behaviors[asked]], axis=1)
    users, items, behaviors = np.unique(events, axis=0).T
    met_by_user = np.unique(rows[~is_last] * num_items + histories.items[~is_last])
    met_by_anyone = np.bincount(histories.items[~is_last], minlength=num_items) > 0
    records, record = np.unique(users * num_behaviors + behaviors, return_inverse=True)
    sizes = np.bincount(record)
    repeat = np.bincount(record, weights=np.isin(users * num_items + items, met_by_user)) / sizes
    cold = np.bincount(record, weights=~met_by_anyone[items]) / sizes
    is_top = records % num_behaviors == num_behaviors - 1
    return {
        "records": float(len(records)),
        "repeat share": float(repeat.mean()),
        "repeat share, top behavior": float(repeat[is_top].mean()) if is_top.any() else 0.0,
        "cold share": float(cold.mean()),
    }


def _last_sessions(histories: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Return which events lie in their user's last session, and which of those belong to users with enough sessions."""
    session, has_events = _session_numbers(histories), histories.lengths > 0
    first, last = np.zeros(len(histories), dtype=np.int64), np.zeros(len(histories), dtype=np.int64)
    first[has_events] = session[histories.offsets[:-1][has_events]]
    last[has_events] = session[histories.offsets[1:][has_events] - 1]
    is_last = session == last[histories.rows]
    return is_last, is_last & ((last - first)[histories.rows] >= MIN_SESSIONS - 1)


def _behaviors(histories: Histories) -> dict[str, float]:
    shares = np.bincount(histories.behaviors, minlength=len(histories.ladder.names)) / len(histories.behaviors)
    return {f"behavior:{name}": float(share) for name, share in zip(histories.ladder.names, shares, strict=True)}
