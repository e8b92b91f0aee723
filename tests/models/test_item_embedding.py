"""Embeddings of whole items: counted by hand, found from token ids alone, the same with and without a cache."""

import itertools

import pytest
import torch

from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.models.gamer.item_embedding import NO_ITEM
from genrec.models.gamer.token_layout import read_layout

from ..tiny_shape import TINY_SHAPE

SIZES = [3, 2, 4]
TINY = {
    **TINY_SHAPE,
    "codebook_sizes": SIZES,
    "behavior_levels": [0, 1],
    "initializer_range": 0.4,
}
ITEMS = [[4 + a, 7 + b, 9 + c] for a, b, c in itertools.product(*map(range, SIZES))]


def config_of(rows: int) -> GamerConfig:
    return GamerConfig(**TINY, item_embedding_rows=rows)


def numbers_of(config: GamerConfig, ids: list[int]) -> list[int]:
    return read_layout(config, torch.tensor([ids])).numbers[0].tolist()


def test_with_enough_rows_every_item_has_its_own_in_the_order_of_its_codes():
    config = config_of(24)
    row = [token for item in ITEMS for token in [2, *item]]
    numbers = numbers_of(config, row)
    assert numbers[3::4] == list(range(1, 25))
    assert all(number == NO_ITEM for place, number in enumerate(numbers) if place % 4 != 3)


def test_with_fewer_rows_items_are_spread_over_all_of_them():
    numbers = numbers_of(config_of(5), [token for item in ITEMS for token in [3, *item]])[3::4]
    assert set(numbers) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("rows", [24, 5])
def test_padding_and_an_unfinished_item_change_no_number(rows):
    config, row = config_of(rows), [2, *ITEMS[5], 3, *ITEMS[17]]
    whole = numbers_of(config, row)
    assert numbers_of(config, [0, 0, 0, *row, 2, 4]) == [0, 0, 0, *whole, 0, 0]


def test_only_the_last_code_is_changed_and_no_item_stays_zero():
    torch.manual_seed(0)
    model = GamerForCausalLM(config_of(24)).eval().model
    ids = torch.tensor([[2, *ITEMS[5], 3, *ITEMS[17], 2]])
    layout = read_layout(model.config, ids)
    added = model.embed(ids, layout) - model.embed_tokens(ids)
    expected = torch.zeros_like(added)
    expected[0, 3], expected[0, 7] = model.item_embedding.weight[6], model.item_embedding.weight[18]
    torch.testing.assert_close(added, expected)
    assert (model.item_embedding.weight[NO_ITEM] == 0).all()


def test_with_a_cache_the_logits_are_those_without():
    torch.manual_seed(0)
    model = GamerForCausalLM(config_of(24)).eval()
    ids = torch.tensor([[2, *ITEMS[5], 3, *ITEMS[17], 2, *ITEMS[3][:2]]])
    whole = model(ids).logits
    known = model(ids[:, :6], use_cache=True).past_key_values
    rest = model(ids[:, 6:], past_key_values=known, layout=read_layout(model.config, ids)).logits
    torch.testing.assert_close(rest, whole[:, 6:], rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_rows_of_the_items_read():
    torch.manual_seed(0)
    model = GamerForCausalLM(config_of(24))
    ids = torch.tensor([[2, *ITEMS[5], 3, *ITEMS[17]]])
    model(ids, labels=ids).loss.backward()
    touched = model.model.item_embedding.weight.grad.abs().sum(dim=1).nonzero()[:, 0].tolist()
    assert touched == [6]  # the last item is read by nothing that bears loss


def test_none_is_the_papers_model_and_a_negative_number_is_refused():
    assert GamerForCausalLM(config_of(0)).model.item_embedding is None
    with pytest.raises(ValueError, match="`item_embedding_rows` must not be negative, got -1"):
        config_of(-1)
