import numpy as np
import pytest

from genrec.data.histories import Queries, as_histories
from genrec.data.recent_events import RecentEvents
from genrec.recommender import TrendingRecommender
from genrec.recommender.tuning import merged_ndcg

ITEMS = [*"abcdef"]
LADDER = "view,buy"
HOUR, DAY = 3600, 86400


def log(*histories):
    return as_histories(list(histories), ITEMS, LADDER)


def random_log(seed=0, num_users=40):
    rng = np.random.default_rng(seed)
    users = []
    for _ in range(num_users):
        times = np.sort(rng.integers(1, 60 * 24, size=rng.integers(1, 9))) * HOUR
        users.append([(ITEMS[rng.integers(6)], ("view", "buy")[rng.integers(2)], int(time)) for time in times])
    return log(*users)


def scores_of(rule, at=None, behavior=None):
    (listed,) = rule.recommend([[]], k=len(ITEMS), behavior=behavior, at=at)
    return dict(zip(listed.item_ids, listed.scores, strict=True))


def test_only_the_window_strictly_before_the_query_counts():
    train = log([("a", "view", 0), ("b", "view", 10), ("c", "view", DAY), ("c", "view", DAY + 10)])
    rule = TrendingRecommender(window_days=1).fit(train)
    # At DAY + 10 the window is (10, DAY + 10): b is too old by nothing, and the second c not yet there.
    assert scores_of(rule, at=DAY + 10) == {"c": 1.5, "a": 0.5, "b": 0.5, "d": 0, "e": 0, "f": 0}
    assert scores_of(rule, at=DAY + 9) == {"b": 1.5, "c": 1.5, "a": 0.5, "d": 0, "e": 0, "f": 0}
    assert scores_of(rule, at=DAY + 11)["c"] == pytest.approx(2 + 2 / 3)


def test_after_a_silence_all_earlier_events_decide():
    rule = TrendingRecommender(window_days=1).fit(log([("a", "view", 5), ("b", "view", 6), ("b", "view", 7)]))
    assert scores_of(rule, at=90 * DAY) == pytest.approx({"b": 2 / 3, "a": 1 / 3, "c": 0, "d": 0, "e": 0, "f": 0})


def test_before_the_first_event_nothing_is_known():
    rule = TrendingRecommender().fit(random_log())
    assert set(scores_of(rule, at=HOUR // 2).values()) == {0.0}
    assert len(rule.recommend([[]], k=3, at=0)[0]) == 3


def test_a_behavior_of_its_own():
    train = log([("a", "view", 5), ("a", "view", 6), ("b", "buy", 7), ("c", "buy", 8), ("c", "buy", 9)])
    rule = TrendingRecommender(behavior_specific=True).fit(train)
    assert rule.recommend([[]], k=1, behavior="view", at=10)[0].item_ids == ["a"]
    assert rule.recommend([[]], k=1, behavior="buy", at=9)[0].item_ids in (["b"], ["c"])
    assert scores_of(rule, at=10, behavior="buy")["a"] == 0


def test_without_a_query_time_it_is_asked_after_the_last_event():
    rule = TrendingRecommender().fit(random_log())
    last = int(random_log().times.max())
    assert scores_of(rule) == scores_of(rule, at=last + 1) != scores_of(rule, at=last)


def test_every_user_is_asked_at_her_own_time():
    rule = TrendingRecommender(window_days=2).fit(random_log())
    times = np.random.default_rng(1).integers(70 * DAY, size=30)
    together = rule.recommend([[]] * 30, k=6, at=times)
    for row, time in enumerate(times.tolist()):
        assert together[row] == rule.recommend([[]], k=6, at=time)[0]


@pytest.mark.parametrize("behavior_specific", [False, True])
def test_it_agrees_with_a_loop(behavior_specific):
    train = random_log()
    rule = TrendingRecommender(window_days=3, behavior_specific=behavior_specific).fit(train)
    for time in (5 * DAY, 30 * DAY + HOUR, 80 * DAY):
        counts, earlier = np.zeros(6), np.zeros(6)
        for item, behavior, when in zip(train.items, train.behaviors, train.times, strict=True):
            if when < time and (behavior == 1 or not behavior_specific):
                earlier[item] += 1
                counts[item] += when > time - 3 * DAY
        expected = counts + earlier / (earlier.max() + 1)
        assert scores_of(rule, at=time) == pytest.approx(dict(zip(ITEMS, expected, strict=True)))


def test_events_beyond_the_training_part_count_from_their_moment_on():
    train, whole = log([("a", "view", 5)]), log([("a", "view", 5), ("b", "view", 90), ("b", "view", 95)])
    rule = TrendingRecommender().fit(train, RecentEvents.of(whole))
    assert rule.recommend([[]], k=1, at=90)[0].item_ids == ["a"]
    assert rule.recommend([[]], k=1, at=100)[0].item_ids == ["b"]


@pytest.mark.parametrize("change", ["removed", "added", "changed"])
def test_perturbing_the_future_changes_no_score(change):
    train = random_log()
    events = RecentEvents.of(train)
    rule = TrendingRecommender(window_days=3).fit(train, events)
    for now in np.random.default_rng(2).choice(events.times, size=6).tolist():
        later = events.times >= now
        items, behaviors, times = events.items[later], events.behaviors[later], events.times[later]
        others = events.before(now)
        if change == "added":
            others = events.with_events(items, behaviors, times)
        if change == "changed":
            others = others.with_events((items + 1) % 6, 1 - behaviors, times + 5)
        perturbed = TrendingRecommender(window_days=3).fit(train, others)
        assert scores_of(perturbed, at=now) == scores_of(rule, at=now)


def test_new_events_count_at_once():
    rule = TrendingRecommender().fit(random_log())
    now = 100 * DAY
    before = scores_of(rule, at=now)
    rule.add_events([[("f", "buy", now), ("x", "buy", now)], [("f", "view", now)]])
    assert scores_of(rule, at=now) == before
    assert rule.recommend([[]], k=1, at=now + 1)[0].item_ids == ["f"]
    assert scores_of(rule, at=now + 1)["f"] == pytest.approx(2, abs=1)
    assert rule.add_events([[]]).recommend([[]], k=1)[0].item_ids == ["f"]


def test_added_events_are_saved(tmp_path):
    rule = TrendingRecommender().fit(random_log()).add_events([[("f", "buy", 100 * DAY)]])
    rule.save_pretrained(tmp_path)
    loaded = TrendingRecommender.from_pretrained(tmp_path)
    assert scores_of(loaded) == scores_of(rule)
    loaded.add_events([[("e", "buy", 100 * DAY), ("e", "buy", 100 * DAY)]])
    assert loaded.recommend([[]], k=1)[0].item_ids == ["e"]


def test_tuning_finds_the_window():
    """What matters is the last hours: a was popular all month, b only just now."""
    days = [[("a", "view", day * DAY + hour * HOUR) for hour in range(4)] for day in range(30)]
    train = log(*days, *[[("b", "view", 30 * DAY - HOUR)]] * 3)
    asked = Queries(log([], []), log([("b", "view")], [("b", "view")]))
    rule = TrendingRecommender(window_days=30).fit(train).tune(asked, k=1)
    assert rule.window_days == 0.25
    assert merged_ndcg(rule, asked, k=1) == 1
    assert {trial["window_days"] for trial in rule.trials} == set(TrendingRecommender.grid["window_days"])


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="`window_days` must be positive, got 0"):
        TrendingRecommender(window_days=0)
    with pytest.raises(ValueError, match="needs the time of each event"):
        TrendingRecommender().fit(log([("a", "view")]))
    other = RecentEvents.of(as_histories([[("a", "view", 5)]], ["a", "b"], LADDER))
    with pytest.raises(ValueError, match="`events` know 2 items and 2 behaviors, the training histories 6 and 2"):
        TrendingRecommender().fit(random_log(), other)
    with pytest.raises(ValueError, match="Events must say when they happened"):
        TrendingRecommender().fit(random_log()).add_events([[("a", "view")]])
    with pytest.raises(ValueError, match="has not been fitted"):
        TrendingRecommender().add_events([[("a", "view", 5)]])
