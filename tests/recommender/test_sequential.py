"""`SequentialRecommender`: what the model says, whatever the batch; filters, cold users, save and load."""

import json

import numpy as np
import pytest
import torch

from genrec.data import Catalog
from genrec.data.histories import as_histories
from genrec.models.discriminative import SASRecConfig, SASRecModel
from genrec.recommender import SequentialRecommender
from genrec.recommender.sequential import padded_histories

ITEMS = [f"i{row}" for row in range(20)]
LADDER = "view,cart,buy"


def make_model(**fields):
    torch.manual_seed(0)
    shape = {"num_items": len(ITEMS), "num_behaviors": 3, "hidden_size": 8, "initializer_range": 0.3}
    return SASRecModel(SASRecConfig(**shape | {"max_history_items": 4} | fields))


@pytest.fixture
def recommender():
    return SequentialRecommender(make_model(), ITEMS, LADDER)


@pytest.fixture
def histories():
    draw = np.random.default_rng(0)
    return [
        [(ITEMS[draw.integers(20)], draw.choice(["view", "cart"])) for _ in range(length)] for length in (3, 9, 1, 4, 6)
    ]


def test_it_lists_the_items_that_the_model_scores_highest_for_the_last_items(recommender, histories):
    lists = recommender.recommend(histories, k=5, behavior="cart")
    for history, listed in zip(histories, lists):
        rows = torch.tensor([[ITEMS.index(item) for item, _ in history[-4:]]])
        scores = recommender.model.eval().score_items(rows, torch.zeros_like(rows), asked_behavior=1)[0]
        best = scores.topk(5)
        assert listed.item_ids == [ITEMS[row] for row in best.indices]
        assert listed.scores == pytest.approx(best.values.tolist(), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_changes_nothing(recommender, histories, batch_size):
    other = SequentialRecommender(recommender.model, ITEMS, LADDER, batch_size=batch_size)
    expected = recommender.recommend(histories, k=20)
    lists = other.recommend(histories, k=20)
    np.testing.assert_allclose(lists.scores, expected.scores, atol=1e-5)
    assert (lists.items == expected.items).all()


def test_dropout_is_off_while_asking_and_back_on_after(recommender, histories):
    recommender.model.train()
    first, second = (recommender.recommend(histories, k=5) for _ in range(2))
    assert np.array_equal(first.scores, second.scores)
    assert recommender.model.training


def test_the_asked_behavior_is_the_target_unless_named(histories):
    recommender = SequentialRecommender(make_model(behavior_ids=True), ITEMS, LADDER)
    default = recommender.recommend(histories, k=3)
    assert np.array_equal(default.scores, recommender.recommend(histories, k=3, behavior="buy").scores)
    assert not np.allclose(default.scores, recommender.recommend(histories, k=3, behavior="view").scores)


def test_filters_make_short_lists_without_a_repeated_item(recommender, histories):
    lists = recommender.recommend(histories, k=10, exclude_seen=True, allow=ITEMS[:6])
    for history, listed in zip(histories, lists):
        seen = {item for item, _ in history}
        assert set(listed.item_ids) == set(ITEMS[:6]) - seen
        assert len(listed) == len(set(listed.item_ids))


def test_unknown_items_are_skipped_and_counted_or_refused(recommender):
    with_stranger = [[("i1", "view"), ("stranger", "view"), ("i2", "view")]]
    lists = recommender.recommend(with_stranger, k=3)
    assert lists.num_unknown == 1
    assert lists[0] == recommender.recommend([[("i1", "view"), ("i2", "view")]], k=3)[0]
    with pytest.raises(ValueError, match="stranger"):
        recommender.recommend(with_stranger, unknown_items="error")


def test_a_cold_user_gets_the_prior(recommender):
    counts = torch.ones(3, len(ITEMS))
    counts[2, [7, 3]] = torch.tensor([9.0, 5.0])
    recommender.model.set_prior(counts)
    assert recommender.recommend([[], [("stranger", "view")]], k=2)[0].item_ids == ["i7", "i3"]
    assert recommender.recommend([[("stranger", "view")]], k=2)[0].item_ids == ["i7", "i3"]


def test_what_happens_at_or_after_the_query_is_not_read(recommender):
    history = [("i1", "view", 100), ("i2", "view", 200), ("i3", "view", 300)]
    lists = recommender.recommend([history], k=3, at=300)
    assert lists.num_later == 1
    assert lists[0].item_ids == recommender.recommend([history[:2]], k=3)[0].item_ids


def test_padded_histories_keep_the_last_items_and_all_columns():
    events = [[("a", "view", 10), ("b", "buy", 20), ("a", "buy", 9000)], [("b", "view", 5)], []]
    padded = padded_histories(as_histories(events, ["a", "b"], "view,buy"), max_history_items=2)
    assert padded["items"].tolist() == [[1, 0], [1, -1], [-1, -1]]
    assert padded["behaviors"].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert padded["sessions"].tolist() == [[0, 1], [0, 0], [0, 0]]
    assert padded["times"].tolist() == [[20, 9000], [5, 0], [0, 0]]


@pytest.mark.parametrize("ids", [ITEMS, list(range(20))])
def test_saved_and_loaded_it_recommends_the_same(tmp_path, ids):
    catalog = Catalog(np.array(ids, dtype=object if isinstance(ids[0], str) else np.int64))
    recommender = SequentialRecommender(make_model(), ids, LADDER, catalog=catalog, gap_minutes=60)
    recommender.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "model.safetensors", "recommender.json", "item_ids.json", "catalog.parquet"}
    loaded = SequentialRecommender.from_pretrained(tmp_path, device="cpu", batch_size=3)
    assert (loaded.batch_size, loaded.gap_minutes) == (3, 60)
    assert loaded.item_ids.tolist() == ids
    assert loaded.catalog.item_ids.tolist() == ids
    history = [[(ids[4], "view"), (ids[9], "cart")]]
    assert loaded.recommend(history, k=20)[0] == recommender.recommend(history, k=20)[0]


def test_a_folder_of_another_recommender_is_refused(recommender, tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json"):
        SequentialRecommender.from_pretrained(tmp_path)
    recommender.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "recommender.json").read_text())
    (tmp_path / "recommender.json").write_text(json.dumps({**config, "recommender": "RecencyRecommender"}))
    with pytest.raises(ValueError, match="holds a RecencyRecommender, not a SequentialRecommender"):
        SequentialRecommender.from_pretrained(tmp_path)


def test_a_truncated_weights_file_is_named(recommender, tmp_path):
    recommender.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match="model.safetensors is truncated or corrupt"):
        SequentialRecommender.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"item_ids": ITEMS[:5]}, "The model knows 20 items but 5 are given"),
        ({"ladder": "view,buy"}, "The model knows 3 behaviors but 2 are given"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"catalog": Catalog(np.array(ITEMS[::-1], dtype=object))}, "items are not the 20 of `item_ids`"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SequentialRecommender(make_model(), **{"item_ids": ITEMS, "ladder": LADDER} | settings)
