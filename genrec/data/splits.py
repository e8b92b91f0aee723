"""Splits of a log into training, validation and test, by index arithmetic on `Histories`.

`last-session` is the session-wise leave-one-out of the GAMER paper (section 4.1.3): per user, the last session is
tested, the one before validates, what comes before trains. `temporal` cuts the log at two moments for all users at
once, so that training has seen nothing of the periods it is asked about.
"""

from dataclasses import dataclass, replace

import numpy as np

from genrec.data.behaviors import BehaviorLadder
from genrec.data.catalog import Catalog
from genrec.data.histories import Histories, Queries, offsets_from_counts

PROTOCOLS = ("last-session", "temporal")


@dataclass(frozen=True, eq=False)
class Sessions:
    """The sessions of histories as ranges of events, `[sessions]` int64 each, in the order of the events.

    Args:
        rows: The user each belongs to.
        starts: Its first event.
        ends: The event after its last.
        numbers: Its place among the user's sessions, from 0.
        counts: How many sessions each user has, `[users]`.
    """

    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    numbers: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, histories: Histories) -> "Sessions":
        """Find the sessions.

        Example:
            >>> from genrec.data.histories import as_histories
            >>> one = as_histories([[("a", "view", 0), ("b", "view", 60), ("a", "view", 9000)]], ["a", "b"], "view")
            >>> Sessions.of(one).starts.tolist(), Sessions.of(one).ends.tolist()
            ([0, 2], [2, 3])
        """
        rows, sessions = histories.rows, histories.sessions
        is_start = np.ones(len(rows), dtype=bool)
        is_start[1:] = (rows[1:] != rows[:-1]) | (sessions[1:] != sessions[:-1])
        starts = np.flatnonzero(is_start)
        ends = np.append(starts[1:], len(rows)).astype(np.int64) if len(starts) else starts
        counts = np.bincount(rows[starts], minlength=len(histories))
        first_session = offsets_from_counts(counts)[:-1]
        return cls(rows[starts], starts, ends, np.arange(len(starts)) - first_session[rows[starts]], counts)


@dataclass(frozen=True, eq=False)
class Split:
    """A log in three parts.

    Args:
        protocol: `"last-session"` or `"temporal"`.
        train: What models are fitted on; users without training events are left out.
        validation: Queries for choices.
        test: Queries for results; their histories include the validation period.
        cuts: The first second of the validation and of the test period, None for `last-session`.
        catalog: What item rows refer to; None if histories were split that came without one.
    """

    protocol: str
    train: Histories
    validation: Queries
    test: Queries
    cuts: tuple[int, int] | None = None
    catalog: Catalog | None = None

    @property
    def ladder(self) -> BehaviorLadder:
        """What behavior indices refer to."""
        return self.train.ladder


def split_last_session(histories: Histories, min_sessions: int = 3) -> Split:
    """Hold out each user's last two sessions.

    Args:
        histories: Whole histories of all users.
        min_sessions: Users with fewer sessions only train, with all they did.
    """
    sessions = Sessions.of(histories)
    is_evaluated = sessions.counts[sessions.rows] >= min_sessions
    from_end = sessions.counts[sessions.rows] - sessions.numbers
    return Split(
        protocol="last-session",
        train=_without_empty(_part(histories, sessions, ~is_evaluated | (from_end > 2))),
        validation=_queries(histories, sessions, is_evaluated & (from_end == 2)),
        test=_queries(histories, sessions, is_evaluated & (from_end == 1)),
    )


def split_temporal(
    histories: Histories, validation_share: float = 0.1, test_share: float = 0.1, min_sessions: int = 3
) -> Split:
    """Cut the log at two moments, chosen so that the given shares of all sessions start in the last two periods.

    A session belongs to the period of its first event. Training holds the sessions that end before the first cut; one
    that spans it is in no training part, but in the histories of later queries. Validation and test ask for each user's
    first session in the period, if the user has an earlier one.

    Args:
        histories: Whole histories of all users.
        validation_share: Share of sessions, by their start, in the validation period.
        test_share: Share in the test period, the latest.
        min_sessions: Users with fewer sessions in the whole log are never asked about.

    Raises:
        ValueError: If a part has no session.
    """
    sessions = Sessions.of(histories)
    start_times, end_times = histories.times[sessions.starts], histories.times[sessions.ends - 1]
    cuts = _cuts(start_times, validation_share, test_share)
    is_asked = (sessions.numbers > 0) & (sessions.counts[sessions.rows] >= min_sessions)
    in_validation = (start_times >= cuts[0]) & (start_times < cuts[1])
    split = Split(
        protocol="temporal",
        train=_without_empty(_part(histories, sessions, end_times < cuts[0])),
        validation=_queries(histories, sessions, _first_per_user(sessions, in_validation) & is_asked),
        test=_queries(histories, sessions, _first_per_user(sessions, start_times >= cuts[1]) & is_asked),
        cuts=cuts,
    )
    for name, part in (("training", split.train), ("validation", split.validation), ("test", split.test)):
        if len(part) == 0:
            raise ValueError(
                f"The temporal split leaves no user in the {name} part (cuts at {cuts[0]} and {cuts[1]} seconds, "
                f"shares {validation_share} and {test_share}). Change `temporal_validation_share` or "
                "`temporal_test_share`, or use the protocol 'last-session'."
            )
    return split


def leave_one_out(histories: Histories, behavior: str | None = None) -> Queries:
    """Ask for each user's last interaction, given all before it, those of its own session included.

    The next-item protocol that GAMER (section 3.2) argues against: within a session, what is asked about was often met
    a moment ago. Here to be measured beside `split_last_session`, not to report results with.

    Args:
        histories: Whole histories of all users.
        behavior: Ask for the last interaction of this behavior, given all before it; None takes any.

    Returns:
        One query for each user who has such an interaction and another before it. It is asked at the target's time,
        one second later where the interaction before it is of the same second, so that none counts as unknown yet.

    Raises:
        ValueError: If the ladder lacks the behavior.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> one = as_histories([[("a", "view", 0), ("a", "buy", 9), ("b", "view", 12)]], ["a", "b"], "view,buy")
        >>> [queries.histories.items.tolist() for queries in (leave_one_out(one), leave_one_out(one, "buy"))]
        [[0, 0], [0]]
    """
    rows, places = histories.rows, np.arange(len(histories.items))
    is_asked = np.ones(len(places), dtype=bool)
    if behavior is not None:
        is_asked = histories.behaviors == histories.ladder.index(behavior)
    last = np.full(len(histories), -1, dtype=np.int64)
    np.maximum.at(last, rows[is_asked], places[is_asked])
    is_evaluated = last > histories.offsets[:-1]
    users, last = histories.select(is_evaluated), last[is_evaluated]
    times = np.maximum(histories.times[last], histories.times[last - 1] + 1) if users.has_times else np.zeros_like(last)
    numbers = np.arange(len(users.items)) - users.offsets[:-1][users.rows]
    targets = (last - histories.offsets[:-1][is_evaluated])[users.rows]
    users = replace(users, query_times=times)
    return Queries(histories=users.keep(numbers < targets), targets=users.keep(numbers == targets))


def _cuts(start_times: np.ndarray, validation_share: float, test_share: float) -> tuple[int, int]:
    in_order = np.sort(start_times)
    num_test, num_validation = (max(1, round(len(in_order) * share)) for share in (test_share, validation_share))
    test_place = len(in_order) - num_test
    return int(in_order[max(0, test_place - num_validation)]), int(in_order[test_place])


def _first_per_user(sessions: Sessions, chosen: np.ndarray) -> np.ndarray:
    """Keep of each user's chosen sessions the first."""
    places = np.flatnonzero(chosen)
    _, first = np.unique(sessions.rows[places], return_index=True)
    is_first = np.zeros(len(chosen), dtype=bool)
    is_first[places[first]] = True
    return is_first


def _part(histories: Histories, sessions: Sessions, chosen: np.ndarray) -> Histories:
    return histories.keep(np.repeat(chosen, sessions.ends - sessions.starts))


def _without_empty(histories: Histories) -> Histories:
    return histories.select(histories.lengths > 0)


def _queries(histories: Histories, sessions: Sessions, chosen: np.ndarray) -> Queries:
    """Ask for the chosen sessions, at most one per user, given all that the user did before."""
    rows, starts, ends = sessions.rows[chosen], sessions.starts[chosen], sessions.ends[chosen]
    users = replace(histories.select(rows), query_times=histories.times[starts])
    places = np.arange(len(users.items)) - users.offsets[:-1][users.rows]  # place of each event in its user's history
    first, last = starts - histories.offsets[rows], ends - histories.offsets[rows]
    return Queries(
        histories=users.keep(places < first[users.rows]),
        targets=users.keep((places >= first[users.rows]) & (places < last[users.rows])),
    )
