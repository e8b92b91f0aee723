"""A recommender whose model looks at what all users do: the moment counts, the future does not, and batches agree."""

import copy

import numpy as np
import pytest
import torch

from genrec.data.candidates import query_context
from genrec.data.histories import Histories, as_histories
from genrec.item_tokenizers import AutoItemTokenizer
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.recommender import GenerativeRecommender

from .tiny_models import tiny_model

ITEMS = [f"item {number}" for number in range(28)]
NAMES = ["view", "cart", "buy"]
HOUR = 3600
NOW = 300 * HOUR


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    codes = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    return AutoItemTokenizer.from_codes(codes[:28], ITEMS, ",".join(NAMES))


def events_of(seed: int, num_users: int, latest: int = NOW) -> list[list[tuple[str, str, int]]]:
    draw = np.random.default_rng(seed)
    users = []
    for _ in range(num_users):
        times = np.sort(draw.integers(1, latest, size=draw.integers(0, 9)))
        users.append([(ITEMS[draw.zipf(1.3) % 28], NAMES[draw.integers(3)], int(time)) for time in times])
    return users


@pytest.fixture(scope="module")
def log(tokenizer: ItemTokenizer) -> Histories:
    return as_histories(events_of(0, 60), ITEMS, tokenizer.ladder)


@pytest.fixture(scope="module")
def model(tokenizer: ItemTokenizer) -> GamerForCausalLM:
    heads = {"copy_head": True, "trend_head": True, "neighbor_head": True, "time_context": True, "session_wise": True}
    return tiny_model(tokenizer, trend_windows=[10 * HOUR, 100 * HOUR], pointer_dim=8, **heads)


def recommender_of(model: GamerForCausalLM, tokenizer: ItemTokenizer, log: Histories, **settings: object):
    return GenerativeRecommender(model, tokenizer, context=query_context(log, model.config), num_beams=28, **settings)


def lists_of(found) -> list[tuple[list[str], list[float]]]:
    return [(each.item_ids, np.round(each.scores, 4).tolist()) for each in found]


def test_a_large_request_gets_what_each_user_gets_alone(model, tokenizer, log):
    """Users of many moments in batches of four: what rises is counted in one go, and must be each one's own."""
    users = events_of(1, 14)
    moments = np.random.default_rng(2).integers(150 * HOUR, 320 * HOUR, size=14).tolist()
    recommender = recommender_of(model, tokenizer, log, batch_size=4)
    together = lists_of(recommender.recommend(users, k=6, at=moments))
    alone = [lists_of(recommender.recommend([user], k=6, at=at))[0] for user, at in zip(users, moments, strict=True)]
    assert together == alone


@pytest.mark.parametrize("search", ["fast", "generate"])
def test_several_behaviors_get_what_each_gets_alone(model, tokenizer, log, search):
    users = events_of(3, 5)
    recommender = recommender_of(model, tokenizer, log, search=search)
    each = recommender.recommend_each(users, k=5, behaviors=["buy", "view"], at=NOW)
    for behavior in ("buy", "view"):
        assert lists_of(each[behavior]) == lists_of(recommender.recommend(users, k=5, behavior=behavior, at=NOW))


def test_both_searches_agree(model, tokenizer, log):
    users = events_of(4, 6)
    fast, plain = (
        lists_of(recommender_of(model, tokenizer, log, search=search).recommend(users, k=8, at=NOW))
        for search in ("fast", "generate")
    )
    assert [items for items, _ in fast] == [items for items, _ in plain]
    np.testing.assert_allclose([scores for _, scores in fast], [scores for _, scores in plain], atol=2e-4)


def test_what_all_users_do_later_changes_no_list(model, tokenizer, log):
    users, moment = events_of(5, 6, latest=200 * HOUR), 200 * HOUR
    expected = lists_of(recommender_of(model, tokenizer, log).recommend(users, k=6, at=moment))
    shorter = recommender_of(model, tokenizer, log.keep(log.times < moment))
    assert lists_of(shorter.recommend(users, k=6, at=moment)) == expected
    shorter.update([[(ITEMS[20], "buy", moment + second) for second in range(50)]])
    assert lists_of(shorter.recommend(users, k=6, at=moment)) == expected


def test_an_update_counts_from_the_next_request_on(model, tokenizer, log):
    recommender = recommender_of(model, tokenizer, log)
    before = lists_of(recommender.recommend([[]], k=28))
    last = int(log.times.max())
    recommender.update([[(ITEMS[27], "buy", last + 1 + second) for second in range(50)]])
    after = lists_of(recommender.recommend([[]], k=28))
    assert before != after
    assert lists_of(recommender.recommend([[]], k=28, at=last + 1)) == before  # at the old moment nothing is new


def test_items_that_come_and_go_keep_what_is_known_of_the_others(model, tokenizer, log):
    """Rows move up by one and the number of items stays: a context that stayed would count for the wrong items."""
    users, changed = events_of(6, 5), copy.deepcopy(tokenizer)
    recommender = recommender_of(model, changed, log)
    recommender.recommend(users, k=3, at=NOW)
    changed.remove_items([ITEMS[0]]).add_items(["new"], np.array([[4, 5]]))
    moved = query_context(log, model.config).for_items(tokenizer.item_ids, changed.item_ids)
    fresh = GenerativeRecommender(model, changed, context=moved, num_beams=28)
    assert lists_of(recommender.recommend(users, k=6, at=NOW)) == lists_of(fresh.recommend(users, k=6, at=NOW))


def test_a_new_item_rises_at_once(model, tokenizer, log):
    changed = copy.deepcopy(tokenizer)
    recommender = recommender_of(model, changed, log)
    changed.add_items(["new"], np.array([[4, 5]]))
    before = recommender.recommend([[]], k=29, at=NOW + 60)[0]
    recommender.update([[("new", "buy", NOW + second)] for second in range(50)])
    after = recommender.recommend([[]], k=29, at=NOW + 60)[0]
    assert after.scores[after.item_ids.index("new")] > before.scores[before.item_ids.index("new")] + 0.1


def test_a_recommender_is_saved_with_the_context_of_its_present_items(model, tokenizer, log, tmp_path):
    changed = copy.deepcopy(tokenizer)
    recommender = recommender_of(model, changed, log)
    changed.add_items(["new"], np.array([[4, 5]]))
    recommender.save_pretrained(tmp_path)  # nothing was asked since
    loaded = GenerativeRecommender.from_pretrained(tmp_path, num_beams=28)
    assert lists_of(loaded.recommend([[]], k=6, at=NOW)) == lists_of(recommender.recommend([[]], k=6, at=NOW))


def test_an_update_without_times_or_context_is_refused(model, tokenizer, log):
    recommender = recommender_of(model, tokenizer, log)
    with pytest.raises(ValueError, match="needs the time of each event"):
        recommender.update([[(ITEMS[0], "view")]])
    plain = GamerForCausalLM(GamerConfig(num_hidden_layers=1, cross_level_layers=[], **tokenizer.model_config_fields()))
    with pytest.raises(ValueError, match="there is nothing to update"):
        GenerativeRecommender(plain, tokenizer).update([[(ITEMS[0], "view", 5)]])


def test_what_rises_is_counted_once_for_a_large_request(model, tokenizer, log, monkeypatch):
    from genrec.data.recent_events import RecentEvents

    counted = []
    original = RecentEvents.trending
    monkeypatch.setattr(
        RecentEvents, "trending", lambda self, *rest, **named: counted.append(1) or original(self, *rest, **named)
    )
    recommender = recommender_of(model, tokenizer, log, batch_size=4)
    recommender.recommend_each(events_of(1, 14), k=2, at=list(range(NOW, NOW + 14)))
    assert len(counted) == 1
