"""`Seq2SeqRecommender`: what it finds is what brute force over every item finds."""

import numpy as np
import pytest
import torch

from genrec.data.histories import as_histories
from genrec.generation.encoder_inputs import decoder_prefix, encoder_tensors
from genrec.item_tokenizers import GivenCodesTokenizer
from genrec.models.encoder_decoder import (
    MBGenConfig,
    MBGenForConditionalGeneration,
    TigerConfig,
    TigerForConditionalGeneration,
)
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.recommender import GenerativeRecommender, Seq2SeqRecommender, load_recommender

LADDER = "view,cart,buy"
SIZES = [4, 3, 5]
NUM_ITEMS = 23
SHAPE = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "initializer_factor": 2.0}
HISTORIES = [
    [("i3", "view"), ("i1", "buy"), ("i7", "cart"), ("i3", "view")],
    [("i20", "buy")],
    [],
    [(f"i{number}", "view") for number in range(9)],
]


def every_code() -> np.ndarray:
    codes = np.array(np.unravel_index(np.arange(np.prod(SIZES)), SIZES)).T
    return np.random.default_rng(0).permutation(codes)[:NUM_ITEMS]


@pytest.fixture(scope="module")
def tokenizer() -> GivenCodesTokenizer:
    return GivenCodesTokenizer(SIZES).fit(every_code(), [f"i{number}" for number in range(NUM_ITEMS)], LADDER)


@pytest.fixture(params=["tiger", "tiger-mb", "mbgen"])
def model(request, tokenizer):
    torch.manual_seed(0)
    fields = {**SHAPE, **tokenizer.model_config_fields(), "max_history_items": 6}
    if request.param == "mbgen":
        return MBGenForConditionalGeneration(MBGenConfig(**fields)).eval()
    return TigerForConditionalGeneration(TigerConfig(**fields, behavior_tokens=request.param == "tiger-mb")).eval()


@torch.no_grad()
def item_scores(model, tokenizer, history, behavior: int) -> torch.Tensor:
    """Return every item's log-probability after one history, teacher-forced, without a cache or padding."""
    has_behaviors = model.config.writes_behaviors
    tokens = []
    for item, name in history[-model.config.max_history_items :]:
        tokens += [2 + LADDER.split(",").index(name)] if has_behaviors else []
        tokens += tokenizer.item_tokens[int(item[1:])].tolist()
    history_ids = torch.tensor([[*tokens, 1]]).expand(NUM_ITEMS, -1)
    prefix = torch.tensor([[0, 2 + behavior] if has_behaviors else [0]]).expand(NUM_ITEMS, -1)
    written = torch.cat([prefix, tokenizer.item_tokens], dim=1)
    logits = model(input_ids=history_ids, decoder_input_ids=written).logits[:, prefix.shape[1] - 1 : -1]
    return logits.log_softmax(dim=-1).gather(2, tokenizer.item_tokens[..., None])[..., 0].sum(dim=1)


def test_a_wide_search_finds_what_brute_force_finds(model, tokenizer):
    recommender = Seq2SeqRecommender(model, tokenizer, num_beams=NUM_ITEMS, batch_size=3)
    lists = recommender.recommend_each(HISTORIES, k=NUM_ITEMS)
    for number, name in enumerate(LADDER.split(",")):
        for history, found in zip(HISTORIES, lists[name], strict=True):
            scores, items = item_scores(model, tokenizer, history, number).sort(descending=True)
            assert found.item_ids == [f"i{item}" for item in items.tolist()]
            assert found.scores == pytest.approx(scores.tolist(), rel=1e-5, abs=1e-4)


def test_asking_for_several_behaviors_encodes_once(model, tokenizer):
    calls = []
    model.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    recommender = Seq2SeqRecommender(model, tokenizer, num_beams=5)
    lists = recommender.recommend_each(HISTORIES, k=5)
    assert len(calls) == 1
    for name, found in lists.items():
        alone = recommender.recommend(HISTORIES, k=5, behavior=name)
        assert np.array_equal(found.items, alone.items)


def test_only_a_model_with_behavior_tokens_tells_behaviors_apart(model, tokenizer):
    lists = Seq2SeqRecommender(model, tokenizer, num_beams=NUM_ITEMS).recommend_each(HISTORIES, k=NUM_ITEMS)
    is_same = np.allclose(lists["view"].scores, lists["buy"].scores)
    assert is_same == (not model.config.writes_behaviors)


def test_filters_hold_and_no_item_comes_twice(model, tokenizer):
    recommender = Seq2SeqRecommender(model, tokenizer, num_beams=NUM_ITEMS)
    lists = recommender.recommend(HISTORIES, k=NUM_ITEMS, exclude_seen=True, deny=["i2"])
    for history, found in zip(HISTORIES, lists, strict=True):
        seen = {item for item, _ in history} | {"i2"}
        assert sorted(found.item_ids) == sorted({f"i{number}" for number in range(NUM_ITEMS)} - seen)


def test_the_models_own_generation_settings_are_neither_used_nor_lost(model, tokenizer):
    recommender = Seq2SeqRecommender(model, tokenizer, num_beams=5)
    expected = recommender.recommend(HISTORIES, k=3).items
    model.generation_config.update(num_beams=1, repetition_penalty=5.0, max_new_tokens=1)
    assert np.array_equal(recommender.recommend(HISTORIES, k=3).items, expected)
    assert model.generation_config.repetition_penalty == 5.0


def test_a_saved_recommender_is_loaded_by_its_kind(model, tokenizer, tmp_path):
    recommender = Seq2SeqRecommender(model, tokenizer, num_beams=7)
    recommender.save_pretrained(tmp_path)
    loaded = load_recommender(tmp_path, num_beams=7, batch_size=2)
    assert type(loaded) is Seq2SeqRecommender
    assert loaded.batch_size == 2
    ours, theirs = recommender.recommend(HISTORIES, k=5), loaded.recommend(HISTORIES, k=5)
    assert np.array_equal(ours.items, theirs.items)
    assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)


def test_a_new_item_is_recommended_without_training(model, tokenizer):
    codes = every_code()
    free = next(
        code for code in np.ndindex(*SIZES) if not (codes == code).all(axis=1).any() and (codes[:, 0] == code[0]).any()
    )
    grown = GivenCodesTokenizer(SIZES).fit(codes, tokenizer.item_ids, LADDER).add_items(["new"], np.array([free]))
    lists = Seq2SeqRecommender(model, grown, num_beams=30).recommend(HISTORIES, k=NUM_ITEMS + 1)
    assert all("new" in found.item_ids for found in lists)


def test_a_decoder_only_model_and_a_foreign_tokenizer_are_refused(model, tokenizer):
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
    gamer = GamerForCausalLM(GamerConfig(**shape, **tokenizer.model_config_fields()))
    with pytest.raises(ValueError, match="must be an encoder-decoder model, got a GamerForCausalLM"):
        Seq2SeqRecommender(gamer, tokenizer)
    with pytest.raises(ValueError, match="Pass `search='generate'`"):
        GenerativeRecommender(model, tokenizer)
    other = GivenCodesTokenizer([4, 3, 6]).fit(every_code(), tokenizer.item_ids, LADDER)
    with pytest.raises(ValueError, match="`codebook_sizes`"):
        Seq2SeqRecommender(model, other)


def test_histories_are_written_with_an_end_and_padded_on_the_right(tokenizer):
    read = as_histories([[("i1", "buy")], []], tokenizer.item_ids, LADDER)
    tokens = tokenizer.item_tokens[1].tolist()
    batch = encoder_tensors(read.items, read.behaviors, read.lengths, tokenizer.item_tokens, writes_behaviors=True)
    assert batch["input_ids"].tolist() == [[4, *tokens, 1], [1, 0, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 0, 0, 0, 0]]
    plain = encoder_tensors(read.items, read.behaviors, read.lengths, tokenizer.item_tokens, writes_behaviors=False)
    assert plain["input_ids"].tolist() == [[*tokens, 1], [1, 0, 0, 0]]
    assert decoder_prefix(2, 4).tolist() == [[0, 4], [0, 4]]
