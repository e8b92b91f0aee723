"""The synthetic market: the log keeps its stated shape for any seed, and the claimed truth is the truth."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from genrec.data.histories import Histories, sessions_by_gap
from genrec.data.market import SyntheticMarket
from genrec.data.market_process import Trace, World, _take_session
from genrec.data.market_world import SECONDS_PER_DAY, START_SECONDS, Clock
from genrec.data.statistics import log_statistics

SMALL = {"num_users": 300, "num_items": 60, "num_categories": 3, "num_brands": 3}
EVENT_ARRAYS = ("items", "behaviors", "sessions", "times", "offsets")


def ask(market: SyntheticMarket, users: np.ndarray, times: np.ndarray) -> Histories:
    """Ask about users (ids) at times, with empty histories: the market knows its own past."""
    nothing = np.zeros(0, dtype=np.int64)
    offsets = np.zeros(len(users) + 1, dtype=np.int64)
    return Histories(
        nothing, nothing, nothing, nothing, offsets, users, market.item_ids, market.behaviors, query_times=times
    )


def later_sessions(market: SyntheticMarket) -> tuple[np.ndarray, np.ndarray, list[set[tuple[int, int]]]]:
    """Return users, start times and {(item row, behavior)} of every session, the first of each user included."""
    users, times, shown = [], [], []
    for row, history in enumerate(market.histories()):
        for session in np.unique(history.sessions):
            inside = history.sessions == session
            users.append(market.user_ids[row])
            times.append(history.times[inside][0])
            shown.append(set(zip(history.items[inside].tolist(), history.behaviors[inside].tolist(), strict=True)))
    return np.array(users), np.array(times), shown


# The log ---------------------------------------------------------------------------------------------------------


def test_same_seed_same_log_and_another_seed_another():
    first, again, other = (SyntheticMarket(**SMALL, seed=seed) for seed in (31, 31, 32))
    assert first.log().equals(again.log())
    assert first.catalog().table.equals(again.catalog().table)
    assert not first.log().equals(other.log())


@pytest.mark.parametrize("seed", [101, 202, 303])
def test_default_market_lies_within_the_bands_of_real_logs(seed):
    statistics = log_statistics(SyntheticMarket(seed=seed).histories())
    bands = {
        "events": (70_000, 100_000),
        "sessions per user, mean": (9, 13),
        "events per session, mean": (2.3, 3.7),
        "sessions of one event": (0.3, 0.7),
        "popularity, Gini": (0.42, 0.66),
        "popularity, share of top 1 %": (0.045, 0.14),
        "popularity, first half to second": (0.3, 0.75),
        "repeat share": (0.13, 0.26),
        "repeat share, top behavior": (0.17, 0.4),
        "cold share": (0.0, 0.03),
        "behavior:view": (0.7, 0.85),
        "behavior:cart": (0.1, 0.2),
        "behavior:buy": (0.05, 0.14),
    }
    outside = {name: statistics[name] for name, (low, high) in bands.items() if not low <= statistics[name] <= high}
    assert not outside


def test_permuting_the_names_of_the_ladder_only_renames_events():
    plain = SyntheticMarket(**SMALL, seed=5).histories()
    permuted = SyntheticMarket(**SMALL, seed=5, ladder="buy,view,cart").histories()
    for name in EVENT_ARRAYS:
        assert np.array_equal(getattr(plain, name), getattr(permuted, name)), name
    assert permuted.ladder.names == ("buy", "view", "cart")


def test_tied_behaviors_share_their_level_evenly():
    statistics = log_statistics(SyntheticMarket(**SMALL, seed=6, ladder="see,like=save=share,buy").histories())
    shares = np.array([statistics[f"behavior:{name}"] for name in ("like", "save", "share")])
    assert shares == pytest.approx(shares.mean(), rel=0.25)
    assert statistics["behavior:see"] > shares.sum() > statistics["behavior:buy"]


def test_one_behavior_and_one_category_are_enough():
    market = SyntheticMarket(num_users=20, num_items=3, num_categories=1, num_brands=1, ladder="listen", seed=9)
    assert set(market.log()["behavior"].to_pylist()) == {"listen"}
    assert market.next_item_scores(ask(market, market.user_ids, np.full(20, START_SECONDS)), "listen").shape == (20, 3)


def test_sessions_are_those_of_a_thirty_minute_gap():
    for ladder in ("view,cart,buy", "a,b,c,d,e,f,g,h"):
        log = SyntheticMarket(**SMALL, seed=11, ladder=ladder).histories()
        assert np.array_equal(log.sessions, sessions_by_gap(log.rows, log.times, gap_minutes=30))
        assert (np.diff(log.times)[np.diff(log.rows) == 0] >= 0).all()


def test_every_visit_climbs_the_ladder_from_its_foot():
    log = SyntheticMarket(**SMALL, seed=12).histories()
    climbs = np.diff(log.behaviors)
    assert log.behaviors[0] == 0
    assert ((climbs == 1) | (log.behaviors[1:] == 0)).all()
    assert (np.diff(log.items)[climbs == 1] == 0).all()


def test_no_event_before_its_items_release():
    market = SyntheticMarket(**SMALL, seed=13, late_share=0.6)
    log = market.histories()
    assert (log.times >= market.release_times[log.items]).all()
    assert 0.3 < (market.release_times > START_SECONDS).mean() < 0.8


def test_the_log_ends_when_it_says():
    log = SyntheticMarket(**SMALL, seed=14, num_days=30, drift_days=9).histories()
    last_starts = log.times[log.offsets[1:] - 1]
    assert log.times.min() >= START_SECONDS
    assert last_starts.max() < START_SECONDS + 31 * SECONDS_PER_DAY
    assert (log.lengths > 0).all()


def test_the_table_and_the_histories_tell_the_same():
    market = SyntheticMarket(**SMALL, seed=15)
    table, log = market.log(), market.histories()
    assert table.column_names == ["user_id", "item_id", "behavior", "timestamp", "session"]
    assert table["item_id"].to_pylist() == log.item_ids[log.items].tolist()
    assert table["user_id"].to_pylist() == log.users[log.rows].tolist()
    assert table["behavior"].to_pylist() == [log.ladder.names[behavior] for behavior in log.behaviors]


def test_titles_carry_brand_and_subcategory():
    table = SyntheticMarket(num_users=2, num_items=400, num_categories=25, num_brands=14, seed=16).catalog().table
    for item in table.to_pylist():
        assert item["title"].startswith(item["brand"])
        assert item["subcategory"] in item["title"]
        assert item["category"] in item["title"]
    assert len(set(table["subcategory"].to_pylist())) == 75


# The truth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "ladder", "behavior"), [(21, "view,cart,buy", "buy"), (22, "x,b=a,t", "a"), (23, "v,b", "v")]
)
def test_scores_are_calibrated_over_all_sessions(seed, ladder, behavior):
    """Of the items given about 5 %, about 5 % must turn up. Sessions are martingale differences, so z is normal."""
    market = SyntheticMarket(**SMALL, seed=seed, ladder=ladder, revisit_rate=0.2, late_share=0.5)
    users, times, shown = later_sessions(market)
    scores = market.next_item_scores(ask(market, users, times), behavior)
    index = market.behaviors.index(behavior)
    happened = np.zeros(scores.shape)
    for row, pairs in enumerate(shown):
        happened[row, [item for item, kind in pairs if kind == index]] = 1
    edges = [0, *np.quantile(scores[scores > 0], [0.3, 0.6, 0.8, 0.9, 0.97, 0.99]), 1]
    for low, high in itertools.pairwise(edges):
        surplus = np.where((scores > low) & (scores <= high), happened - scores, 0).sum(axis=1)
        assert abs(surplus.sum()) < 4 * np.sqrt((surplus**2).sum()), (low, high)
    assert happened[scores == 0].sum() == 0


def same_past(market: SyntheticMarket, copies: int) -> tuple[World, Trace]:
    """Give `copies` users the tastes and the first session of the user 0, and a second session of drawn length."""
    world = market._world
    twins = np.zeros(copies, dtype=np.int64)
    tastes = world.shoppers
    shoppers = replace(tastes, **{name: getattr(tastes, name)[twins] for name in vars(tastes)})
    rng = np.random.default_rng(77)
    shape = 0.6
    second = 1 + rng.negative_binomial(shape, shape / (shape + market.visits_per_session - 1), size=copies)
    visits = np.stack([np.full(copies, 3), second], axis=1).ravel()
    starts = START_SECONDS + np.tile([10 * SECONDS_PER_DAY, 20 * SECONDS_PER_DAY], copies)
    offsets = np.concatenate([[0], np.cumsum(visits)])
    clock = Clock(np.arange(copies + 1) * 2, starts, offsets, np.zeros((visits.sum(), 3), dtype=np.int64))
    world = World(market, world.shelves, shoppers, clock)
    trace = Trace(*(np.zeros(size, dtype=np.int64) for size in (2 * copies,) * 3 + (int(visits.sum()),) * 2))
    trace.session_needs[::2], trace.session_brands[::2], trace.session_levels[::2] = 4, 1, 1
    for number, (item, level) in enumerate([(7, 0), (8, 1), (7, 0)]):
        trace.visit_items[offsets[:-1:2] + number] = item
        trace.visit_levels[offsets[:-1:2] + number] = level
    return world, trace


def test_scores_are_the_frequencies_of_many_next_sessions():
    market = SyntheticMarket(**SMALL, seed=24, revisit_rate=0.25, late_share=0.5)
    copies = 40_000
    world, trace = same_past(market, copies)
    market.__dict__["_world"], market.__dict__["_trace"] = world, trace
    now = np.array([START_SECONDS + 20 * SECONDS_PER_DAY])
    claimed = {
        name: market.next_item_scores(ask(market, market.user_ids[:1], now), name)[0] for name in ("view", "buy")
    }

    users = np.arange(copies)
    _take_session(np.random.default_rng(3), world, trace, users, users * 2 + 1, has_past=True)
    session = np.repeat(np.arange(2 * copies), np.diff(world.clock.visit_offsets))
    for name, level in (("view", 0), ("buy", 2)):
        is_new = (session % 2 == 1) & (trace.visit_levels >= level)
        pairs = np.unique(np.stack([session[is_new], trace.visit_items[is_new]], axis=1), axis=0)
        frequencies = np.bincount(pairs[:, 1], minlength=60) / copies
        spread = np.sqrt(claimed[name] * (1 - claimed[name]) / copies)
        assert (np.abs(frequencies - claimed[name]) <= 4.5 * spread).all()
        assert frequencies.sum() == pytest.approx(claimed[name].sum(), rel=0.05)


def test_a_market_with_one_item_per_need_by_hand():
    """First session, all keen alike: P = sum over needs of P(need) * (1 - G(1 - P(item | need)))."""
    market = SyntheticMarket(
        num_users=4, num_items=3, num_categories=1, num_brands=1, seed=25, trend_rate=0.0, late_share=0
    )
    scores = market.next_item_scores(ask(market, market.user_ids, np.full(4, START_SECONDS)), "view")
    assert scores.sum(axis=1) == pytest.approx(1.0)  # one need per session, one item per need
    world = market._world
    logits = world.shoppers.early_interests + world.shelves.need_weights
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert scores == pytest.approx(shares[:, world.shelves.needs], rel=1e-5)


def test_nothing_at_or_after_the_query_is_read():
    market = SyntheticMarket(**SMALL, seed=26)
    users, times, _ = later_sessions(market)
    every_third = slice(None, None, 3)
    queries = ask(market, users[every_third], times[every_third])
    before = market.next_item_scores(queries, "cart")
    trace, world = market._trace, market._world
    cut = int(np.quantile(world.clock.session_starts, 0.5))
    is_future = world.clock.session_starts >= cut
    future_visits = np.repeat(is_future, np.diff(world.clock.visit_offsets))
    market.__dict__["_trace"] = Trace(
        session_needs=np.where(is_future, 0, trace.session_needs),
        session_brands=np.where(is_future, 0, trace.session_brands),
        session_levels=np.where(is_future, 2, trace.session_levels),
        visit_items=np.where(future_visits, 0, trace.visit_items),
        visit_levels=np.where(future_visits, 0, trace.visit_levels),
    )
    after = market.next_item_scores(queries, "cart")
    asked_early = queries.query_times <= cut
    assert np.array_equal(before[asked_early], after[asked_early])
    assert not np.array_equal(before[~asked_early], after[~asked_early])


def test_columns_follow_the_asked_catalog():
    market = SyntheticMarket(**SMALL, seed=27)
    queries = ask(market, market.user_ids[:9], np.full(9, START_SECONDS + 40 * SECONDS_PER_DAY))
    whole = market.next_item_scores(queries, "view")
    rows = np.array([50, 3, 17])
    part = market.next_item_scores(replace(queries, item_ids=market.item_ids[rows]), "view")
    assert np.array_equal(part, whole[:, rows])


def test_chunks_do_not_change_the_scores(monkeypatch):
    market = SyntheticMarket(**SMALL, seed=28)
    queries = ask(market, market.user_ids, np.full(300, START_SECONDS + 50 * SECONDS_PER_DAY))
    whole = market.next_item_scores(queries, "buy")
    monkeypatch.setattr("genrec.data.market_truth.CELLS_AT_ONCE", 60 * 7)
    assert np.array_equal(market.next_item_scores(queries, "buy"), whole)
    nobody = ask(market, market.user_ids[:0], np.zeros(0, dtype=np.int64))
    assert market.next_item_scores(nobody, "buy").shape == (0, 60)


def test_unreleased_items_score_zero():
    market = SyntheticMarket(**SMALL, seed=29, late_share=0.5)
    scores = market.next_item_scores(ask(market, market.user_ids, np.full(300, START_SECONDS)), "view")
    is_late = market.release_times > START_SECONDS
    assert (scores[:, is_late] == 0).all()
    assert (scores[:, ~is_late] > 0).all()


# Bad settings and questions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_users": 0}, "`num_users` must be at least 1, got 0"),
        ({"sessions_per_user": 1.0}, "`sessions_per_user` must be above 1"),
        ({"popularity_drift": -1.0}, "`popularity_drift` must be at least 0"),
        ({"brand_focus": 1.5}, "`brand_focus` must be between 0 and 1, got 1.5"),
        ({"num_categories": 0}, "`num_categories` must be at least 1, got 0"),
        ({"revisit_rate": 0.9, "trend_rate": 0.2}, "`revisit_rate` must be at most 1 - `trend_rate`"),
        (
            {"step_rates": (0.5,)},
            "`step_rates` needs one rate per ladder level above the lowest, 2 for view,cart,buy, got 1",
        ),
        ({"step_rates": (0.5, 0.0)}, "`step_rates` must be above 0"),
        ({"num_items": 10, "num_categories": 4}, "`num_items` must be at least 3 per category"),
        ({"ladder": "view,view"}, "stands twice"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SyntheticMarket(**settings)


def test_questions_about_strangers_are_refused():
    market = SyntheticMarket(**SMALL, seed=30)
    queries = ask(market, market.user_ids[:2], np.full(2, START_SECONDS))
    with pytest.raises(ValueError, match="The user 9999 is not of this market"):
        market.next_item_scores(replace(queries, users=np.array([1, 9999])), "view")
    with pytest.raises(ValueError, match="The item 5 is not of this market"):
        market.next_item_scores(replace(queries, item_ids=np.array([10_001, 5])), "view")
    with pytest.raises(ValueError, match="`query_times`"):
        market.next_item_scores(replace(queries, query_times=None), "view")
    with pytest.raises(ValueError, match="Unknown behavior 'rent'"):
        market.next_item_scores(queries, "rent")
