"""What a server needs of `GenerativeRecommender`: several behaviors at once, swapped catalogs, fixed shapes."""

import copy
import threading

import numpy as np
import pytest
import torch

from genrec.data.catalog import Catalog
from genrec.item_tokenizers import AutoItemTokenizer
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.models.gamer import GamerForCausalLM
from genrec.recommender import GenerativeRecommender, generative, recommend_batches

from .tiny_models import tiny_model

ITEMS = [f"item {number}" for number in range(28)]
LADDER = "view,cart,buy"


@pytest.fixture
def tokenizer() -> ItemTokenizer:
    codes = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    return AutoItemTokenizer.from_codes(codes[:28], ITEMS, LADDER)


@pytest.fixture
def model(tokenizer: ItemTokenizer) -> GamerForCausalLM:
    return tiny_model(tokenizer)


def random_histories(num_users: int, seed: int = 0) -> list[list[tuple[str, str]]]:
    draw = np.random.default_rng(seed)
    names = LADDER.split(",")
    return [
        [(ITEMS[draw.integers(28)], names[draw.integers(3)]) for _ in range(draw.integers(0, 8))]
        for _ in range(num_users)
    ]


def without(tokenizer: ItemTokenizer, items: list[str]) -> ItemTokenizer:
    return copy.deepcopy(tokenizer).remove_items(items)


@pytest.mark.parametrize("search", ["fast", "generate"])
@pytest.mark.parametrize("filters", [{}, {"exclude_seen": True, "deny": ITEMS[:3]}])
def test_each_behavior_gets_what_it_gets_alone(
    model: GamerForCausalLM, tokenizer: ItemTokenizer, search: str, filters: dict[str, object]
):
    recommender = GenerativeRecommender(model, tokenizer, num_beams=6, batch_size=4, search=search)
    histories = random_histories(9)
    together = recommender.recommend_each(histories, k=5, **filters)
    assert list(together) == ["view", "cart", "buy"]
    for behavior, lists in together.items():
        alone = recommender.recommend(histories, k=5, behavior=behavior, **filters)
        assert lists.items.tolist() == alone.items.tolist()
        np.testing.assert_allclose(lists.scores, alone.scores, atol=1e-5)
    assert together["view"].items.tolist() != together["buy"].items.tolist()
    assert list(recommender.recommend_each(histories, behaviors=["buy", "view"])) == ["buy", "view"]


@pytest.mark.parametrize("behaviors", [[], ["buy", "buy"]])
def test_no_behavior_and_one_twice_are_refused(model: GamerForCausalLM, tokenizer: ItemTokenizer, behaviors: list[str]):
    with pytest.raises(ValueError, match="`behaviors` must name at least one behavior, each once"):
        GenerativeRecommender(model, tokenizer).recommend_each([[]], behaviors=behaviors)


@pytest.mark.parametrize("search", ["fast", "generate"])
def test_one_beam_is_enough_for_one_item(model: GamerForCausalLM, tokenizer: ItemTokenizer, search: str):
    lists = GenerativeRecommender(model, tokenizer, num_beams=1, search=search).recommend(random_histories(3), k=1)
    assert [len(found) for found in lists] == [1, 1, 1]


def test_a_swapped_catalog_serves_later_requests(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    recommender = GenerativeRecommender(model, tokenizer, Catalog(ITEMS), num_beams=30)
    smaller = without(tokenizer, ITEMS[:20])
    recommender.swap_catalog(smaller, Catalog(ITEMS[20:]))
    assert recommender.tokenizer is smaller
    assert recommender.catalog.titles() == ITEMS[20:]
    found = recommender.recommend([[(ITEMS[3], "view"), (ITEMS[22], "view")]], k=30)
    assert found.num_unknown == 1
    assert sorted(found[0].item_ids) == ITEMS[20:]
    fresh = GenerativeRecommender(model, smaller, num_beams=30).recommend([[(ITEMS[22], "view")]], k=30)
    assert found.items.tolist() == fresh.items.tolist()


def test_a_request_under_way_finishes_on_the_old_catalog(
    model: GamerForCausalLM, tokenizer: ItemTokenizer, monkeypatch: pytest.MonkeyPatch
):
    recommender = GenerativeRecommender(model, tokenizer, num_beams=30, batch_size=1)
    histories = random_histories(3)
    expected = recommender.recommend(histories, k=28)
    later = []

    class SwappingBar(generative.tqdm):
        def update(self, count: int = 1) -> None:
            """After the first user another thread swaps the catalog and asks."""
            if not later:
                later.append(None)
                thread = threading.Thread(target=swap_and_ask)
                thread.start()
                thread.join()

    def swap_and_ask() -> None:
        recommender.swap_catalog(without(tokenizer, ITEMS[:20]))
        later[0] = recommender.recommend(histories[:1], k=28)

    monkeypatch.setattr(generative, "tqdm", SwappingBar)
    lists = recommender.recommend(histories, k=28)
    assert lists.items.tolist() == expected.items.tolist()
    assert [found.item_ids for found in lists] == [found.item_ids for found in expected]
    assert sorted(later[0][0].item_ids) == ITEMS[20:]
    assert all(sorted(found.item_ids) == ITEMS[20:] for found in recommender.recommend(histories, k=28))


def test_a_catalog_that_does_not_fit_changes_nothing(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    recommender = GenerativeRecommender(model, tokenizer)
    other = AutoItemTokenizer.from_codes(torch.tensor([[0, 0], [1, 1]]), ["a", "b"], LADDER)
    with pytest.raises(ValueError, match="do not belong together"):
        recommender.swap_catalog(other)
    with pytest.raises(ValueError, match="The catalog's 2 items are not the item tokenizer's 28"):
        recommender.swap_catalog(tokenizer, Catalog(["a", "b"]))
    assert recommender.tokenizer is tokenizer


def test_items_added_in_place_are_served(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    recommender = GenerativeRecommender(model, tokenizer, num_beams=30)
    assert len(recommender.recommend([[]], k=30)[0]) == 28
    tokenizer.remove_items(ITEMS[:5])
    assert sorted(recommender.recommend([[]], k=30)[0].item_ids) == sorted(ITEMS[5:])


def test_a_search_in_fixed_shapes_finds_the_same(
    model: GamerForCausalLM, tokenizer: ItemTokenizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    recommender = GenerativeRecommender(model, tokenizer, num_beams=6, batch_size=4, compile_search=True)
    plain = GenerativeRecommender(model, tokenizer, num_beams=6, batch_size=3)
    histories = random_histories(9)
    for settings in ({}, {"exclude_seen": True}, {"allow": ITEMS[5:15]}):
        found, expected = (each.recommend(histories, k=5, **settings) for each in (recommender, plain))
        assert found.items.tolist() == expected.items.tolist()
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_only_the_fast_search_is_compiled(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    with pytest.raises(ValueError, match="`compile_search` compiles the fast search only"):
        GenerativeRecommender(model, tokenizer, search="generate", compile_search=True)


def test_a_compiled_search_can_be_asked_for_when_loading(model: GamerForCausalLM, tokenizer: ItemTokenizer, tmp_path):
    GenerativeRecommender(model, tokenizer).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`compile_search` compiles the fast search only"):
        GenerativeRecommender.from_pretrained(tmp_path, search="generate", compile_search=True)


def test_batches_are_read_one_at_a_time(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    recommender = GenerativeRecommender(model, tokenizer)
    histories, taken = random_histories(6), []

    def batches():
        for start in (0, 2, 4):
            taken.append(start)
            yield histories[start : start + 2]

    found = recommend_batches(recommender, batches(), k=4, behavior="cart", exclude_seen=True)
    first = next(found)
    assert taken == [0]
    whole = recommender.recommend(histories, k=4, behavior="cart", exclude_seen=True)
    assert np.concatenate([first.items, *(lists.items for lists in found)]).tolist() == whole.items.tolist()
