"""Every promise of an item tokenizer, once, for all classes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genrec.data.histories import as_histories
from genrec.item_tokenizers import (
    AutoItemTokenizer,
    ChunkedIDTokenizer,
    GivenCodesTokenizer,
    RQKMeansTokenizer,
    RQVAETokenizer,
)

NUM_ITEMS = 60
LADDER = "view,favorite=cart,buy"

TINY_RQVAE = {"hidden_dims": [16], "latent_dim": 8, "num_steps": 40, "batch_size": 32}
NEW = {
    "chunked": ChunkedIDTokenizer,
    "chunked shuffled": lambda: ChunkedIDTokenizer(8, shuffle=True, balanced=False),
    "given": GivenCodesTokenizer,
    "rqkmeans": lambda: RQKMeansTokenizer([8, 8]),
    "rqkmeans crowded": lambda: RQKMeansTokenizer([4, 4]),  # 16 codes for 60 items: repair adds a level
    "rqvae": lambda: RQVAETokenizer([8, 8], **TINY_RQVAE),
}


@pytest.fixture(params=NEW)
def name(request):
    return request.param


def make_inputs(name, num_items, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if name == "given":
        codes = torch.randint(8, (num_items, 2), generator=generator)
        codes[0] = 7  # so that the codebooks have 8 codes in every draw
        return codes
    return torch.randn(num_items, 12, generator=generator)


def fit(name, item_ids=tuple(range(NUM_ITEMS))):
    return NEW[name]().fit(make_inputs(name, len(item_ids)), list(item_ids), LADDER)


def different_codes(tokenizer):
    return len({tuple(code) for code in tokenizer.codes.tolist()})


def test_codes_are_one_to_one_and_within_their_codebooks(name):
    tokenizer = fit(name)
    assert tokenizer.codes.shape == (NUM_ITEMS, tokenizer.num_levels)
    assert tokenizer.codes.dtype == torch.long
    assert different_codes(tokenizer) == NUM_ITEMS
    assert (tokenizer.codes >= 0).all()
    assert (tokenizer.codes < torch.tensor(tokenizer.codebook_sizes)).all()


def test_every_item_comes_back_from_its_tokens(name):
    tokenizer = fit(name, [f"item {row}" for row in range(NUM_ITEMS)])
    tokens = tokenizer.encode(tokenizer.item_ids) + torch.tensor(tokenizer.vocabulary.level_offsets)
    assert tokenizer.decode(tokens) == tokenizer.item_ids.tolist()
    assert tokenizer.items_of(tokens.view(6, 10, -1)).tolist() == torch.arange(NUM_ITEMS).view(6, 10).tolist()


def test_encode_follows_the_asked_order(name):
    tokenizer = fit(name)
    assert torch.equal(tokenizer.encode([5, 3, 5]), tokenizer.codes[[5, 3, 5]])


def test_fitting_again_gives_the_same_codes(name):
    assert torch.equal(fit(name).codes, fit(name).codes)


def test_added_items_leave_old_codes_byte_identical(name):
    tokenizer = fit(name)
    before = tokenizer.codes.numpy().tobytes()
    num_new = 3 if "given" in name else 4
    new_ids = [1000 + row for row in range(num_new)]
    tokenizer.add_items(new_ids, make_inputs(name, num_new, seed=1))
    assert tokenizer.codes[:NUM_ITEMS].numpy().tobytes() == before
    assert tokenizer.item_ids.tolist() == [*range(NUM_ITEMS), *new_ids]
    assert different_codes(tokenizer) == NUM_ITEMS + num_new
    assert tokenizer.decode(tokenizer.item_tokens) == tokenizer.item_ids.tolist()
    assert tokenizer.report().num_items == NUM_ITEMS + num_new


def test_the_trie_follows_added_and_removed_items(name):
    tokenizer = fit(name)
    assert tokenizer.trie() is tokenizer.trie()
    assert tokenizer.trie().num_items == NUM_ITEMS
    tokenizer.add_items([1000], make_inputs(name, 1, seed=1))
    leaves = tokenizer.trie().leaf_items(tokenizer.trie().walk(tokenizer.item_tokens))
    assert leaves.flatten().tolist() == list(range(NUM_ITEMS + 1))
    assert tokenizer.remove_items([1000]).trie().num_items == NUM_ITEMS


def test_the_trie_knows_where_levels_begin_though_their_first_codes_are_unused():
    tokenizer = GivenCodesTokenizer.from_codes([[3, 2], [4, 5]], ["a", "b"], "view,buy")
    assert tokenizer.trie().level_offsets == tokenizer.vocabulary.level_offsets == (4, 9)
    assert [start for start, _ in tokenizer.trie().level_ranges] == [7, 11]


def test_removed_items_are_gone_and_the_others_keep_their_codes(name):
    tokenizer = fit(name)
    codes, tokens = tokenizer.codes, tokenizer.item_tokens
    tokenizer.remove_items([3, 7])
    kept = [row for row in range(NUM_ITEMS) if row not in (3, 7)]
    assert tokenizer.item_ids.tolist() == kept
    assert torch.equal(tokenizer.codes, codes[kept])
    assert tokenizer.decode(tokens[[2, 3, 4]]) == [2, None, 4]
    with pytest.raises(ValueError, match="item 3 has no code"):
        tokenizer.encode([3])


def test_freed_codes_may_be_used_again(name):
    tokenizer = fit(name)
    for _ in range(3):
        removed = tokenizer.item_ids[:20].tolist()
        tokenizer.remove_items(removed).add_items(removed, make_inputs(name, 20, seed=2))
        assert different_codes(tokenizer) == NUM_ITEMS


@pytest.mark.parametrize("item_ids", [range(100, 100 + NUM_ITEMS), [f"B0{row}" for row in range(NUM_ITEMS)]])
def test_saved_and_loaded_tokenizers_are_the_same(name, item_ids, tmp_path):
    tokenizer = fit(name, item_ids)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoItemTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert loaded.settings == tokenizer.settings
    assert loaded.item_ids.tolist() == list(item_ids)
    assert (loaded.behaviors, loaded.behavior_levels) == (["view", "favorite", "cart", "buy"], [0, 1, 1, 2])
    assert torch.equal(loaded.codes, tokenizer.codes)
    assert loaded.codebook_sizes == tokenizer.codebook_sizes
    assert loaded.report() == tokenizer.report()


def test_a_loaded_tokenizer_codes_new_items_as_the_saved_one(name, tmp_path):
    tokenizer = fit(name)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoItemTokenizer.from_pretrained(str(tmp_path))
    new_inputs = make_inputs(name, 3, seed=1)
    assert torch.equal(
        loaded.add_items([97, 98, 99], new_inputs).codes, tokenizer.add_items([97, 98, 99], new_inputs).codes
    )
    assert loaded.report() == tokenizer.report()


def test_the_report_is_json(name):
    report = fit(name).report()
    read = json.loads(report.to_json())
    assert read["num_items"] == NUM_ITEMS
    assert read["collision_rate"] == 0.0
    assert [check["status"] for check in read["checks"]] == [check.status for check in report.checks]


def test_a_repeated_id_is_refused_by_name_and_rows(name):
    with pytest.raises(ValueError, match=r"'a' stands in rows 0 and 2 of `item_ids`"):
        NEW[name]().fit(make_inputs(name, 3), ["a", "b", "a"], LADDER)


@pytest.mark.parametrize(
    ("item_ids", "message"),
    [([], "at least one item"), ([0.5, 1.5], r"row 0 has 0\.5"), (["a", None], "row 1 has None")],
)
def test_ids_that_cannot_be_saved_are_refused(item_ids, message):
    with pytest.raises(ValueError, match=message):
        ChunkedIDTokenizer().fit(None, item_ids, LADDER)


def test_adding_a_known_item_is_refused_and_changes_nothing(name):
    tokenizer = fit(name)
    before = tokenizer.codes
    with pytest.raises(ValueError, match="12 has a code already"):
        tokenizer.add_items([999, 12], make_inputs(name, 2))
    assert tokenizer.codes is before


def test_adding_no_items_changes_nothing(name):
    tokenizer = fit(name)
    before = tokenizer.codes
    assert tokenizer.add_items([]).codes is before


def test_more_new_items_than_free_codes_are_refused(name):
    tokenizer = fit(name)
    num_new = int(np.prod(tokenizer.codebook_sizes)) - NUM_ITEMS + 1
    with pytest.raises(ValueError, match="Fit the item tokenizer anew"):
        tokenizer.add_items([f"new {row}" for row in range(num_new)], make_inputs(name, num_new))
    assert len(tokenizer) == NUM_ITEMS


def test_a_catalog_can_be_filled_to_the_last_code(name):
    tokenizer = fit(name)
    old = tokenizer.codes
    num_new = int(np.prod(tokenizer.codebook_sizes)) - NUM_ITEMS
    tokenizer.add_items([1000 + row for row in range(num_new)], make_inputs(name, num_new, seed=3))
    assert different_codes(tokenizer) == np.prod(tokenizer.codebook_sizes)
    assert torch.equal(tokenizer.codes[:NUM_ITEMS], old)


def test_removing_unknown_or_all_items_is_refused():
    tokenizer = fit("rqkmeans")
    with pytest.raises(ValueError, match="'nobody' has no code"):
        tokenizer.remove_items(["nobody"])
    with pytest.raises(ValueError, match="would remove all 60 items"):
        tokenizer.remove_items(tokenizer.item_ids)


@pytest.mark.parametrize("use", [lambda t: t.codes, lambda t: t.ladder, lambda t: t.report(), lambda t: t([])])
def test_use_before_fit_says_what_to_do(use):
    with pytest.raises(ValueError, match="RQKMeansTokenizer has no codes yet. Call `fit`"):
        use(RQKMeansTokenizer())


def test_model_config_fields_describe_the_codes():
    fields = fit("rqkmeans crowded").model_config_fields()
    sizes = fields["codebook_sizes"]
    assert sizes[:2] == [4, 4]
    assert len(sizes) == 3
    assert fields["behavior_levels"] == [0, 1, 1, 2]
    assert fields["vocab_size"] == 2 + 4 + sum(sizes)


def given(codes=((0, 0), (1, 1), (1, 0)), ids=("a", "b", "c"), **options):
    return GivenCodesTokenizer.from_codes(list(codes), list(ids), "view,buy", **options)


def test_decode_reads_the_last_tokens_of_each_row():
    tokenizer = given()  # view 2, buy 3, level 1: 4, 5, level 2: 6, 7
    assert tokenizer.decode(torch.tensor([[0, 3, 4, 6], [2, 3, 5, 7]])) == ["a", "b"]


def test_decode_answers_none_for_foreign_codes_and_dead_rows():
    tokenizer = given()
    output = SimpleNamespace(
        sequences=torch.tensor([[3, 5, 6], [3, 4, 7], [3, 6, 6], [3, 0, 0], [3, 4, 6], [3, 9, 1]]),
        sequences_scores=torch.tensor([-1.0, -1.0, -1.0, -1.0, -1e9, -1.0]),
    )
    assert tokenizer.decode(output) == ["c", None, None, None, None, None]


def test_decode_refuses_rows_shorter_than_a_code():
    with pytest.raises(ValueError, match="max_new_tokens=2"):
        given().decode(torch.tensor([[4]]))


def test_calling_writes_histories_left_padded_and_asks_for_the_target_behavior():
    batch = given()([[("a", "view"), ("b", "buy")], [("c", "view")], []])
    assert batch["input_ids"].tolist() == [[2, 4, 6, 3, 5, 7, 3], [0, 0, 0, 2, 5, 6, 3], [0, 0, 0, 0, 0, 0, 3]]
    assert batch["attention_mask"].tolist() == [[1] * 7, [0] * 3 + [1] * 4, [0] * 6 + [1]]
    assert batch["session_ids"].tolist() == [[1, 1, 1, 2, 2, 2, 3], [0, 0, 0, 1, 1, 1, 2], [0] * 6 + [1]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.long}


def test_calling_keeps_the_last_interactions_and_numbers_their_sessions_from_one():
    history = [("a", "view", 0), ("b", "view", 10), ("c", "view", 86_400), ("a", "buy", 86_410)]
    batch = given()([history], behavior="view", max_history_items=3)
    assert batch["input_ids"].tolist() == [[2, 5, 7, 2, 5, 6, 3, 4, 6, 2]]
    assert batch["session_ids"].tolist() == [[1, 1, 1, 2, 2, 2, 2, 2, 2, 3]]


def test_calling_takes_histories_of_another_catalog_order():
    tokenizer = given()
    histories = as_histories([[("c", "view")]], item_ids=["c", "a"], ladder="view,buy")
    assert tokenizer(histories)["input_ids"].tolist() == [[2, 5, 6, 3]]


def test_unknown_items_are_skipped_with_a_count_or_refused(caplog):
    tokenizer = given()
    histories = [[("a", "view"), ("stranger", "view")]]
    assert tokenizer(histories)["input_ids"].tolist() == [[2, 4, 6, 3]]
    assert "Skipped 1 interactions" in caplog.text
    with pytest.raises(ValueError, match="'stranger'"):
        tokenizer(histories, unknown_items="error")


def test_an_unknown_behavior_is_refused():
    with pytest.raises(ValueError, match="Unknown behavior 'share'"):
        given()([[]], behavior="share")


def test_poor_codes_are_warned_of_when_fitted(caplog):
    GivenCodesTokenizer.from_codes([[0]] * 9 + [[1]], range(10), "view,buy", on_collision="keep")
    assert "The item codes are poor" in caplog.text
    assert "fail: raw_collision_rate 0.8" in caplog.text
