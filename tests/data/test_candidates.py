"""What a query may choose from: by hand, and unmoved by anything at or after its time."""

from dataclasses import replace
from math import log, log1p
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from genrec.data.candidates import LOOK_BACK, SMALLEST_WEIGHT, Asked, QueryContext, check_context, query_context
from genrec.data.histories import Histories, as_histories, asked_at
from genrec.data.neighbors import PRIOR_PAIRS, NeighborIndex
from genrec.data.recent_events import RecentEvents

ITEMS, LADDER = list("abcdef"), "view,cart,buy"
HOUR, DAY = 3600, 86_400
VIEW, CART, BUY = 0, 1, 2
A, B, C, D, E, F = range(6)
WINDOWS = (100, 10_000)


def log_by_hand() -> Histories:
    """Two users; half an hour without an event ends a session."""
    return as_histories(
        [
            [
                *[("a", "view", 10), ("b", "view", 600), ("a", "cart", 1200)],
                *[("c", "view", 10_000), ("a", "view", 10_100)],
                ("d", "buy", 20_000),
            ],
            [("b", "view", 50), ("e", "view", 9000), ("b", "view", 9060)],
        ],
        ITEMS,
        LADDER,
    )


def asked_of(histories: Histories, events: list[int], num_recent: int = 2) -> Asked:
    names = ("items", "behaviors", "sessions", "times")
    columns = {name: getattr(histories, name) for name in names} | {"session_times": histories.session_starts}
    return Asked.of_events(columns, histories.lengths, np.array(events, dtype=np.int64), num_recent)


def random_log(seed: int = 0, num_users: int = 25) -> Histories:
    rng = np.random.default_rng(seed)
    users = []
    for _ in range(num_users):
        times = np.sort(rng.integers(1, 20 * DAY, size=rng.integers(1, 15)))
        users.append([(ITEMS[rng.integers(6)], ["view", "cart", "buy"][rng.integers(3)], int(time)) for time in times])
    return as_histories(users, ITEMS, LADDER)


def context_of(histories: Histories, *, with_neighbors: bool = True, **settings: object) -> QueryContext:
    neighbors = NeighborIndex.of(histories, session_window=3, back_window=3) if with_neighbors else None
    sizes = {"num_rising": 4, "num_recent": 3, "num_nearby": 3}
    return QueryContext(RecentEvents.of(histories), neighbors, (DAY, 5 * DAY), **sizes, **settings)


def random_queries(seed: int = 1, num_queries: int = 40) -> Asked:
    rng = np.random.default_rng(seed)
    items = rng.integers(-1, 6, size=(num_queries, 3))
    times = rng.integers(-DAY, 22 * DAY, size=num_queries)
    return Asked(times, rng.integers(3, size=num_queries), items)


def answers(context: QueryContext, asked: Asked) -> list[list]:
    return [part.tolist() for found in (context.rising(asked), context.nearby(asked)) for part in found]


def test_an_event_is_asked_about_at_the_beginning_of_its_session():
    asked = asked_of(log_by_hand(), [2, 4, 5, 6, 8])
    assert asked.times.tolist() == [10, 10_000, 20_000, 50, 9000]
    assert asked.behaviors.tolist() == [CART, VIEW, BUY, VIEW, VIEW]


def test_an_event_knows_the_latest_distinct_items_of_earlier_sessions_of_its_user():
    asked = asked_of(log_by_hand(), [2, 4, 5, 6, 8])
    assert asked.items.tolist() == [[-1, -1], [A, B], [A, C], [-1, -1], [B, -1]]
    assert asked_of(log_by_hand(), [5], num_recent=4).items.tolist() == [[A, C, B, -1]]


def test_a_session_may_have_begun_before_what_is_left_of_it():
    histories = replace(log_by_hand(), session_times=log_by_hand().session_starts - 7)
    assert asked_of(histories, [4, 5]).times.tolist() == [9993, 19_993]


def test_a_user_who_does_the_same_again_and_again_is_not_searched_to_the_beginning():
    repeats = 3 * LOOK_BACK
    events = [("a", "view", 0), *[("b", "view", 10_000 * day) for day in range(1, repeats)], ("c", "view", 10**6)]
    histories = as_histories([events], ITEMS, LADDER)
    assert asked_of(histories, [repeats], num_recent=2).items.tolist() == [[B, -1]]
    assert asked_of(histories, [repeats], num_recent=3).items.tolist() == [[B, A, -1]]


def test_nobody_asks_nothing():
    asked = asked_of(log_by_hand(), [])
    assert asked.items.shape == (0, 2)
    context = context_of(log_by_hand())
    assert [part.shape for part in context.rising(asked)] == [(0, 4), (0, 4, 4)]
    assert [part.shape for part in context.nearby(asked)] == [(0, 3), (0, 3, 10)]


def test_whole_histories_are_asked_about_at_their_query_times():
    histories = as_histories([[("a", "view", 5), ("b", "buy", 9), ("a", "cart", 11)], []], ITEMS, LADDER)
    asked = Asked.of_histories(asked_at(histories, [20, 30]), [BUY], 2)
    assert (asked.times.tolist(), asked.behaviors.tolist()) == ([20, 30], [BUY, BUY])
    assert asked.items.tolist() == [[A, B], [-1, -1]]
    both = Asked.of_histories(asked_at(histories, [20, 30]), [BUY, VIEW], 2)
    assert (both.times.tolist(), both.behaviors.tolist()) == ([20, 20, 30, 30], [BUY, VIEW, BUY, VIEW])
    assert both.items.tolist() == [[A, B], [A, B], [-1, -1], [-1, -1]]
    nobody = Asked.of_histories(asked_at(as_histories([[]], ITEMS, LADDER), [4]), [VIEW], 3)
    assert nobody.items.tolist() == [[-1, -1, -1]]


def test_training_and_serving_ask_alike():
    """Each last session's first event, asked from its sample, and from the history before it."""
    log_of_all = random_log()
    last = log_of_all.offsets[1:] - 1
    sessions = log_of_all.sessions[last][log_of_all.rows]
    before = log_of_all.keep(log_of_all.sessions < sessions)
    firsts = log_of_all.offsets[:-1] + before.lengths
    from_samples = asked_of(log_of_all, firsts.tolist(), num_recent=3)
    known = replace(before, query_times=log_of_all.times[firsts])
    for behavior in range(3):
        from_histories = Asked.of_histories(known, [behavior], 3)
        rows = from_samples.behaviors == behavior
        for name in ("times", "behaviors", "items"):
            assert (getattr(from_samples, name)[rows] == getattr(from_histories, name)[rows]).all(), name


def one_query(time: int, behavior: int) -> Asked:
    none = np.zeros((1, 0), dtype=np.int64)
    return Asked(np.array([time]), np.array([behavior]), none)


def test_what_rises_by_hand():
    context = QueryContext(RecentEvents.of(log_by_hand()), windows=WINDOWS, num_rising=3)
    items, features = context.rising(one_query(9070, VIEW))
    # The last 100 s hold e and b, the last 10,000 s also a's view and cart and b's two views.
    assert items.tolist() == [[B, E, A]]
    expected = [[1, 3, 1, 3], [1, 1, 1, 1], [0, 2, 0, 1]]  # in each window: all behaviors, then views
    np.testing.assert_allclose(features, np.log1p([expected]), rtol=1e-6)
    assert features.dtype == np.float32
    _, of_carts = context.rising(one_query(9070, CART))
    np.testing.assert_allclose(of_carts[0, 2], [0, log1p(2), 0, log1p(1)], rtol=1e-6)


@pytest.mark.parametrize("time", [-5, 10, 10**9])
def test_before_the_first_event_or_long_after_the_last_nothing_rises(time: int):
    context = QueryContext(RecentEvents.of(log_by_hand()), windows=WINDOWS, num_rising=3)
    items, features = context.rising(one_query(time, VIEW))
    assert items.tolist() == [[-1, -1, -1]]
    assert not features.any()


def test_what_goes_with_the_users_items_by_hand():
    """One user met a, c and b in one session and bought b; another met a, and b in the session after."""
    log = as_histories(
        [
            [("a", "view", 100), ("c", "view", 200), ("b", "buy", 300)],
            [("a", "view", DAY), ("b", "view", DAY + HOUR)],
        ],
        ITEMS,
        LADDER,
    )
    context = QueryContext(RecentEvents.of(log), NeighborIndex.of(log), WINDOWS, num_nearby=3)
    now = DAY + 2 * HOUR
    asked = Asked(
        times=np.array([now, now, DAY + HOUR]),
        behaviors=np.array([BUY, VIEW, BUY]),
        items=np.array([[A, -1]] * 3),
    )
    items, features = context.nearby(asked)
    assert items[:2].tolist() == [[B, C, -1]] * 2
    norm = (2 + PRIOR_PAIRS) ** 0.5
    after = 1 / (1 + PRIOR_PAIRS) ** 0.5
    long_ago, an_hour_ago = 1 / (1 + (now - 300) / DAY), 1 / (1 + 1 / 24)
    lately = long_ago / norm + an_hour_ago * after
    of_b = [log_(1 / norm), log_(after), log_(lately), log1p(2), log1p(0), log1p(1) / 4]
    counts = [2, 1, 0, 1]  # ever, bought, in the last 100 s, in the last 10,000 s
    np.testing.assert_allclose(features[0, 0], [*of_b, *np.log1p(counts) / 2], rtol=1e-5)
    np.testing.assert_allclose(features[1, 0, 6:], np.log1p([2, 1, 0, 1]) / 2, rtol=1e-5)  # viewed once, too
    hours = log1p((now - 200) / HOUR) / 4  # the pair came about when c was met
    of_c = [log_(1 / norm), log_(0), log_(1 / norm / (1 + (now - 200) / DAY)), log1p(1), 0, hours]
    np.testing.assert_allclose(features[1, 1], [*of_c, *np.log1p([1, 1, 0, 0]) / 2], rtol=1e-5, atol=1e-7)
    assert sorted(items[2].tolist()) == [-1, B, C]
    np.testing.assert_allclose(features[2, :2, 1], log_(0), rtol=1e-5)  # nothing of the second user is known yet
    assert (features[:, 2] == 0).all()
    assert features.dtype == np.float32


def log_(weight: float) -> float:
    return log(weight + SMALLEST_WEIGHT) / 3


def test_queries_of_one_session_are_answered_as_if_each_were_alone():
    context, asked = context_of(random_log()), random_queries()
    rows = np.repeat(np.arange(40), 3)
    many = Asked(*(getattr(asked, name)[rows] for name in Asked.__dataclass_fields__))
    many = replace(many, behaviors=np.tile(np.arange(3), 40))
    for place in range(120):
        one = Asked(*(getattr(many, name)[place : place + 1] for name in Asked.__dataclass_fields__))
        for together, alone in zip(context.nearby(many), context.nearby(one), strict=True):
            assert (together[place] == alone[0]).all()


def test_a_prepared_context_answers_the_same():
    context, asked = context_of(random_log()), random_queries()
    expected = answers(context, asked)
    assert answers(context.prepared(asked.times), asked) == expected
    assert answers(context.prepared(np.concatenate([asked.times, [7, 7, 5]])), asked) == expected
    for unprepared in (asked.times[:5], np.zeros(0, dtype=np.int64), np.array([10**9])):
        assert answers(context.prepared(unprepared), asked) == expected


def test_a_prepared_context_does_not_count_again(monkeypatch: pytest.MonkeyPatch):
    asked = random_queries()
    context = context_of(random_log()).prepared(asked.times)
    monkeypatch.setattr(RecentEvents, "trending", lambda *_: pytest.fail("counted again"))
    context.rising(asked)


def without(histories: Histories, users: list[int]) -> Histories:
    return histories.select(np.setdiff1d(np.arange(len(histories)), users))


def test_new_events_count_at_once():
    everyone, asked = random_log(), random_queries()
    few, new = without(everyone, [2, 5]), everyone.select([2, 5])
    context = context_of(few).prepared(asked.times)
    later = context.with_events(new.items, new.behaviors, new.times)
    expected = QueryContext(RecentEvents.of(everyone), None, (DAY, 5 * DAY), num_rising=4)
    for found, other in zip(later.rising(asked), expected.rising(asked), strict=True):
        assert found.tolist() == other.tolist()
    assert answers(later, asked)[:2] != answers(context, asked)[:2]
    assert answers(later, asked)[2] == answers(context, asked)[2]  # pairs are not counted anew


def perturbed(histories: Histories, time: int, kind: str) -> Histories:
    """Return the log with what lies at or after a moment changed, taken away or added to."""
    is_later = histories.times >= time
    if kind == "removed":
        return histories.keep(~is_later)
    if kind == "changed":
        items, behaviors = (histories.items + 1) % 6, (histories.behaviors + 1) % 3
        return replace(
            histories,
            items=np.where(is_later, items, histories.items),
            behaviors=np.where(is_later, behaviors, histories.behaviors),
            times=np.where(is_later, histories.times + 17, histories.times),
        )
    tables = [
        [*zip(np.array(ITEMS, dtype=object)[one.items], one.behaviors, one.times, strict=True)] for one in histories
    ]
    names = LADDER.split(",")
    more = [("f", names[step % 3], time + step * HOUR) for step in range(50)]
    named = [[(item, names[behavior], int(when)) for item, behavior, when in table] for table in tables]
    return as_histories([*named, more], ITEMS, LADDER)


@pytest.mark.parametrize("kind", ["changed", "removed", "added"])
def test_nothing_at_or_after_the_query_reaches_it(kind: str):
    histories, asked = random_log(), random_queries()
    context = context_of(histories)
    has_changed = []
    for query in range(len(asked.times)):
        one = Asked(*(getattr(asked, name)[query : query + 1] for name in Asked.__dataclass_fields__))
        other = context_of(perturbed(histories, int(one.times[0]), kind))
        assert answers(other, one) == answers(context, one)
        end = replace(one, times=np.array([25 * DAY]))
        has_changed.append(answers(other, end) != answers(context, end))
    assert sum(has_changed) > 20  # the same change does reach later queries


def test_later_events_change_nothing_in_a_context_made_with_its_defaults():
    config = SimpleNamespace(trend_head=True, neighbor_head=True, trend_windows=[DAY])
    histories = random_log()
    for time in (3 * DAY, 9 * DAY, 15 * DAY):
        is_later = histories.times >= time
        other = replace(histories, items=np.where(is_later, (histories.items + 1) % 6, histories.items))
        asked = replace(random_queries(), times=np.full(40, time))
        assert answers(query_context(other, config), asked) == answers(query_context(histories, config), asked)


def test_nothing_of_its_own_session_reaches_a_sample():
    """Items, behaviors and times of the asked session and of later ones change, but not when it began."""
    histories = log_by_hand()
    asked = asked_of(histories, [4])
    items, times = histories.items.copy(), histories.times.copy()
    items[[3, 5]], times[[4, 5]] = [F, F], [10_999, 30_000]
    other = asked_of(replace(histories, items=items, times=times), [4])
    for name in Asked.__dataclass_fields__:
        assert getattr(other, name).tolist() == getattr(asked, name).tolist()


@pytest.mark.parametrize("with_neighbors", [False, True])
def test_a_saved_context_comes_back(tmp_path: Path, with_neighbors: bool):
    context, asked = context_of(random_log(), with_neighbors=with_neighbors), random_queries()
    context.prepared(asked.times).save(tmp_path)
    loaded = QueryContext.load(tmp_path)
    assert loaded is not None
    assert (loaded.windows, loaded.num_rising, loaded.num_recent, loaded.num_nearby) == ((DAY, 5 * DAY), 4, 3, 3)
    assert (loaded.events.num_items, loaded.events.num_behaviors) == (6, 3)
    assert [part.tolist() for part in loaded.rising(asked)] == [part.tolist() for part in context.rising(asked)]
    assert (loaded.neighbors is not None) == with_neighbors
    if with_neighbors:
        assert answers(loaded, asked) == answers(context, asked)
    more = loaded.with_events([A], [BUY], [19 * DAY])
    assert len(more.events) == len(context.events) + 1


def test_a_folder_without_a_context_and_one_with_half_of_it(tmp_path: Path):
    assert QueryContext.load(tmp_path) is None
    context_of(random_log()).save(tmp_path)
    arrays = tmp_path / "query_context.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"query_context\.safetensors"):
        QueryContext.load(tmp_path)


def test_a_context_is_made_for_what_the_model_reads():
    histories = random_log()

    def made(**fields: object) -> QueryContext | None:
        return query_context(histories, SimpleNamespace(trend_windows=[DAY, 60], **fields))

    assert made() is None
    assert made(trend_head=False, neighbor_head=False) is None
    trend, neighbor = made(trend_head=True, neighbor_head=False), made(trend_head=False, neighbor_head=True)
    assert trend is not None
    assert (trend.windows, trend.neighbors) == ((DAY, 60), None)
    assert neighbor is not None
    assert neighbor.neighbors is not None
    untimed = as_histories([[("a", "view")]], ITEMS, LADDER)
    with pytest.raises(ValueError, match="needs the time of each event"):
        query_context(untimed, SimpleNamespace(trend_windows=[DAY], trend_head=True, neighbor_head=False))


def test_a_context_that_does_not_fit_is_refused():
    whole, half = context_of(random_log()), context_of(random_log(), with_neighbors=False)
    both = SimpleNamespace(trend_head=True, neighbor_head=True)
    check_context(both, whole, 6)
    check_context(SimpleNamespace(trend_head=True, neighbor_head=False), half, 6)
    check_context(SimpleNamespace(), None, 6)
    with pytest.raises(ValueError, match="model with `trend_head` chooses among items by what all users did"):
        check_context(both, None, 6)
    with pytest.raises(ValueError, match="model with `neighbor_head` chooses.* or set `neighbor_head=False`"):
        check_context(both, half, 6)
    with pytest.raises(ValueError, match="The context counts 6 items, the item tokenizer has 7"):
        check_context(both, whole, 7)


@pytest.mark.parametrize("with_neighbors", [True, False])
def test_a_context_over_another_catalog_is_the_one_made_over_it(with_neighbors):
    """Items in another order, with new ones among them: as if the log had been read with that catalog."""
    log, new_ids = random_log(), np.array(["x", *ITEMS[::-1], "y"], dtype=object)
    moved = context_of(log, with_neighbors=with_neighbors).prepared(np.array([DAY]))
    moved = moved.for_items(log.item_ids, new_ids)
    fresh = context_of(as_histories(log, new_ids, LADDER), with_neighbors=with_neighbors)
    assert moved.events.num_items == 8
    assert moved.trending is None  # counted by the old rows
    for part in ("events", "neighbors") if with_neighbors else ("events",):
        for name, value in vars(getattr(fresh, part)).items():
            np.testing.assert_array_equal(getattr(getattr(moved, part), name), value, err_msg=name)


def test_a_context_forgets_items_that_the_new_catalog_lacks():
    log = random_log()
    moved = context_of(log).for_items(log.item_ids, np.array(["f", "b"], dtype=object))
    old_rows = log.items[np.isin(log.items, [B, F])]
    assert moved.events.counts(np.array([21 * DAY])).tolist() == [[(old_rows == F).sum(), (old_rows == B).sum()]]
    index, pairs = NeighborIndex.of(log, session_window=3, back_window=3), moved.neighbors
    of_b = slice(index.starts[B], index.starts[B + 1])
    assert pairs.starts.tolist() == [0, len(pairs.others) // 2, len(pairs.others)]  # a pair stands under either item
    np.testing.assert_array_equal(pairs.times[pairs.starts[1] :], index.times[of_b][index.others[of_b] == F])
