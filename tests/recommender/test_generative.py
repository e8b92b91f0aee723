"""`GenerativeRecommender`: what a user of the library asks, against scoring every item by itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from genrec.data.candidates import QueryContext
from genrec.data.catalog import Catalog
from genrec.data.histories import as_histories
from genrec.data.recent_events import RecentEvents
from genrec.item_tokenizers import AutoItemTokenizer, ChunkedIDTokenizer
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.models.gamer import GamerForCausalLM
from genrec.recommender import PopularityRecommender, generative, load_recommender
from genrec.recommender.generative import GenerativeRecommender

from .tiny_models import tiny_model

ITEMS = [f"item {number}" for number in range(30)]
LADDER = "view,cart,buy"


@pytest.fixture
def tokenizer() -> ItemTokenizer:
    return ChunkedIDTokenizer(chunk_size=4).fit(None, ITEMS, LADDER)


@pytest.fixture
def model(tokenizer: ItemTokenizer) -> GamerForCausalLM:
    return tiny_model(tokenizer)


def random_histories(num_users: int, seed: int = 0, longest: int = 7) -> list[list[tuple[str, str, int]]]:
    generator = np.random.default_rng(seed)
    names = LADDER.split(",")
    return [
        [
            (ITEMS[generator.integers(30)], names[generator.integers(3)], int(time))
            for time in np.sort(generator.integers(0, 20_000, size=generator.integers(0, longest + 1)))
        ]
        for _ in range(num_users)
    ]


@torch.no_grad()
def score_every_item(model: GamerForCausalLM, tokenizer: ItemTokenizer, history: list, behavior: str) -> np.ndarray:
    """Return the log-probability of each catalog row, by a forward pass of history, behavior and item."""
    prompt = tokenizer([history], behavior=behavior, max_history_items=model.config.max_history_items)
    tokens = tokenizer.item_tokens
    num_levels = tokenizer.num_levels
    input_ids = torch.cat([prompt["input_ids"].expand(len(tokens), -1), tokens], dim=1)
    sessions = prompt["session_ids"]
    sessions = torch.cat([sessions, sessions[:, -1:].expand(-1, num_levels)], dim=1).expand(len(tokens), -1)
    logits = model(input_ids=input_ids, session_ids=sessions).logits[:, -num_levels - 1 : -1]
    return logits.log_softmax(dim=-1).gather(2, tokens[..., None]).sum(dim=(1, 2)).numpy()


@pytest.mark.parametrize("search", ["fast", "generate"])
@pytest.mark.parametrize("session_wise", [False, True])
def test_a_wide_beam_finds_the_items_that_score_best(tokenizer: ItemTokenizer, search: str, session_wise: bool):
    model = tiny_model(tokenizer, session_wise=session_wise)
    recommender = GenerativeRecommender(model, tokenizer, num_beams=64, batch_size=3, search=search)
    histories = random_histories(7)
    lists = recommender.recommend(histories, k=10, behavior="cart")
    for history, found in zip(histories, lists, strict=True):
        expected = score_every_item(model, tokenizer, history, "cart")
        best = np.argsort(-expected)[:10]
        assert found.item_ids == [ITEMS[row] for row in best]
        assert found.scores == pytest.approx(expected[best].tolist(), abs=1e-4)


def test_batches_change_nothing_and_lists_keep_the_callers_order(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    histories = random_histories(9, seed=1)
    together = GenerativeRecommender(model, tokenizer, batch_size=100).recommend(histories, k=4)
    in_pairs = GenerativeRecommender(model, tokenizer, batch_size=2).recommend(histories, k=4)
    for row, history in enumerate(histories):
        alone = GenerativeRecommender(model, tokenizer).recommend([history], k=4)[0]
        assert together[row].item_ids == in_pairs[row].item_ids == alone.item_ids
        assert together[row].scores == pytest.approx(alone.scores, abs=1e-5)


@pytest.mark.parametrize("search", ["fast", "generate"])
def test_filters_hold_on_every_path(model: GamerForCausalLM, tokenizer: ItemTokenizer, search: str):
    recommender = GenerativeRecommender(model, tokenizer, num_beams=40, batch_size=4, search=search)
    histories = random_histories(6, seed=2)
    allow, deny = ITEMS[:14], ITEMS[3:6]
    lists = recommender.recommend(histories, k=20, exclude_seen=True, allow=allow, deny=deny)
    for history, found in zip(histories, lists, strict=True):
        seen = {item for item, *_ in history}
        assert set(found.item_ids) == set(allow) - set(deny) - seen
    each = np.zeros((6, 30), dtype=bool)
    each[np.arange(6), np.arange(6)] = True
    lists = recommender.recommend(histories, k=3, allow=each)
    assert [found.item_ids for found in lists] == [[ITEMS[row]] for row in range(6)]


@pytest.mark.parametrize("search", ["fast", "generate"])
def test_forbidding_everything_gives_empty_lists(model: GamerForCausalLM, tokenizer: ItemTokenizer, search: str):
    lists = GenerativeRecommender(model, tokenizer, search=search).recommend(random_histories(3), k=5, allow=[])
    assert [len(found) for found in lists] == [0, 0, 0]
    assert np.isneginf(lists.scores).all()


@pytest.mark.parametrize("search", ["fast", "generate"])
def test_asking_for_more_than_the_catalog_gives_the_catalog(
    model: GamerForCausalLM, tokenizer: ItemTokenizer, search: str
):
    lists = GenerativeRecommender(model, tokenizer, num_beams=2, search=search).recommend(random_histories(2), k=50)
    assert lists.items.shape == (2, 50)
    assert all(sorted(found.item_ids) == sorted(ITEMS) for found in lists)


def test_a_cold_user_gets_the_models_prior(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    recommender = GenerativeRecommender(model, tokenizer, num_beams=30)
    cold, only_unknown = recommender.recommend([[], [("x", "view")]], k=3)
    best = np.argsort(-score_every_item(model, tokenizer, [], "buy"))[:3]
    assert cold.item_ids == only_unknown.item_ids == [ITEMS[row] for row in best]
    assert len(recommender.recommend([], k=3)) == 0


def test_only_the_last_items_of_a_long_history_are_read(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    recommender = GenerativeRecommender(model, tokenizer)
    history = [(ITEMS[number], "view") for number in range(12)]
    long, short = recommender.recommend([history, history[-5:]], k=6)
    assert long.item_ids == short.item_ids
    assert long.scores == pytest.approx(short.scores, abs=1e-6)


def test_inherited_generation_settings_are_not_used(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    histories = random_histories(3)
    expected = GenerativeRecommender(model, tokenizer, num_beams=6).recommend(histories, k=6)
    inherited = GenerationConfig(
        do_sample=True, temperature=9.0, num_beams=1, suppress_tokens=[5, 6, 7], eos_token_id=9
    )
    model.generation_config = inherited
    for search in ("fast", "generate"):
        lists = GenerativeRecommender(model, tokenizer, num_beams=6, search=search).recommend(histories, k=6)
        assert lists.items.tolist() == expected.items.tolist()
        assert lists.scores == pytest.approx(expected.scores, abs=1e-4)
    assert model.generation_config is inherited


def test_a_model_in_training_is_asked_without_dropout(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    histories = random_histories(2)
    expected = GenerativeRecommender(model, tokenizer).recommend(histories, k=5)
    model.train()
    lists = GenerativeRecommender(model, tokenizer).recommend(histories, k=5)
    assert lists.scores == pytest.approx(expected.scores, abs=1e-6)
    assert model.training


@pytest.mark.parametrize("search", ["fast", "generate"])
def test_items_that_share_a_code_all_come_out(search: str):
    codes = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1], [0, 0]])
    names = ["a", "b", "c", "d", "e"]
    tokenizer = AutoItemTokenizer.from_codes(codes, names, LADDER, on_collision="keep")
    recommender = GenerativeRecommender(tiny_model(tokenizer), tokenizer, search=search)
    everything = recommender.recommend([[("a", "view")]], k=9)[0]
    assert sorted(everything.item_ids) == names
    scores = dict(zip(everything.item_ids, everything.scores))
    assert scores["a"] == scores["c"] == scores["e"]
    assert everything.scores == sorted(everything.scores, reverse=True)
    without = recommender.recommend([[("a", "view")]], k=9, exclude_seen=True, deny=["e"])[0]
    assert sorted(without.item_ids) == ["b", "c", "d"]
    assert recommender.recommend([[("a", "view")]], k=2)[0].item_ids == everything.item_ids[:2]


def test_items_that_come_and_go_are_followed(tokenizer: ItemTokenizer):
    codes = torch.cartesian_prod(torch.arange(4), torch.arange(4))[:9]
    tokenizer = AutoItemTokenizer.from_codes(codes, list(range(9)), LADDER)
    recommender = GenerativeRecommender(tiny_model(tokenizer), tokenizer, catalog=Catalog(list(range(9))))
    tokenizer.remove_items([4, 5])
    remaining = [0, 1, 2, 3, 6, 7, 8]
    found = recommender.recommend([[(8, "view"), (4, "view")]], k=9, deny=[0])
    assert sorted(found[0].item_ids) == remaining[1:]
    assert found.num_unknown == 1
    with pytest.raises(ValueError, match="The catalog's 9 items are not the item tokenizer's 7"):
        recommender.save_pretrained("nowhere")


def test_transformers_models_are_searched_with_generate(tokenizer: ItemTokenizer):
    config = Qwen3Config(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=tokenizer.vocabulary.vocab_size,
    )
    qwen = Qwen3ForCausalLM(config)
    lists = GenerativeRecommender(qwen, tokenizer, search="generate").recommend(random_histories(2), k=40)
    assert all(sorted(found.item_ids) == sorted(ITEMS) for found in lists)
    with pytest.raises(ValueError, match=r"the model is 'qwen3'. Pass `search='generate'`"):
        GenerativeRecommender(qwen, tokenizer)


def test_progress_counts_users(monkeypatch: pytest.MonkeyPatch, model: GamerForCausalLM, tokenizer: ItemTokenizer):
    class Bar:
        def __init__(self, **settings: object):
            self.total, self.done = settings["total"], []
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error: object) -> None:
            return None

        def update(self, count: int) -> None:
            self.done.append(count)

    bars: list[Bar] = []
    monkeypatch.setattr(generative, "tqdm", Bar)
    GenerativeRecommender(model, tokenizer, batch_size=2).recommend(random_histories(5))
    assert [(bar.total, bar.done) for bar in bars] == [(5, [2, 2, 1])]


def test_one_folder_holds_everything(model: GamerForCausalLM, tokenizer: ItemTokenizer, tmp_path: Path):
    folder = tmp_path / "new" / "checkpoint"
    histories = random_histories(3)
    recommender = GenerativeRecommender(model, tokenizer, Catalog(ITEMS), num_beams=8)
    recommender.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "catalog.parquet",
        "config.json",
        "generation_config.json",
        "item_ids.json",
        "item_tokenizer.json",
        "item_tokenizer.safetensors",
        "model.safetensors",
        "serving.json",
    ]
    written = json.loads((folder / "generation_config.json").read_text())
    assert written["do_sample"] is False
    assert written["max_new_tokens"] == tokenizer.num_levels
    assert {"num_beams", "length_penalty", "early_stopping", "temperature", "top_k", "top_p"} <= set(written)
    loaded = GenerativeRecommender.from_pretrained(folder, device="cpu", num_beams=8, batch_size=2)
    assert loaded.catalog.titles() == ITEMS
    assert not loaded.model.training
    expected = recommender.recommend(histories, k=5)
    assert loaded.recommend(histories, k=5).items.tolist() == expected.items.tolist()
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(plain, GamerForCausalLM)
    recommender.save_pretrained(folder)  # again, over the first


def test_sessions_are_made_by_the_gap_that_is_saved(tokenizer: ItemTokenizer, tmp_path: Path):
    """Two events 45 minutes apart: one session for a log with a gap of an hour, two by the default."""
    model = tiny_model(tokenizer, session_wise=True)
    users = [[(ITEMS[3], "view", 1000), (ITEMS[8], "cart", 1000 + 45 * 60)]]
    GenerativeRecommender(model, tokenizer, gap_minutes=60).save_pretrained(tmp_path)
    loaded = GenerativeRecommender.from_pretrained(tmp_path, num_beams=30)
    read = as_histories(users, tokenizer.item_ids, tokenizer.ladder, gap_minutes=60)
    scores = loaded.recommend(users, k=5).scores
    assert (scores == loaded.recommend(read, k=5).scores).all()
    assert (scores != GenerativeRecommender(model, tokenizer, num_beams=30).recommend(users, k=5).scores).any()
    assert GenerativeRecommender.from_pretrained(tmp_path, gap_minutes=5).gap_minutes == 5
    (tmp_path / "serving.json").unlink()  # a checkpoint from before
    assert GenerativeRecommender.from_pretrained(tmp_path).gap_minutes == 30


def test_what_another_recommender_left_in_the_folder_is_not_read(
    model: GamerForCausalLM, tokenizer: ItemTokenizer, tmp_path: Path
):
    history = as_histories([[(ITEMS[0], "view", 5)]], tokenizer.item_ids, tokenizer.ladder)
    PopularityRecommender().fit(history).save_pretrained(tmp_path)
    Catalog(["another", "catalog"]).save(tmp_path)
    QueryContext(RecentEvents.of(history)).save(tmp_path)
    GenerativeRecommender(model, tokenizer).save_pretrained(tmp_path)
    loaded = load_recommender(tmp_path)
    assert isinstance(loaded, GenerativeRecommender)
    assert loaded.catalog is None
    assert loaded.context is None


def test_a_catalog_is_optional(model: GamerForCausalLM, tokenizer: ItemTokenizer, tmp_path: Path):
    GenerativeRecommender(model, tokenizer).save_pretrained(tmp_path)
    assert not (tmp_path / "catalog.parquet").exists()
    assert GenerativeRecommender.from_pretrained(tmp_path).catalog is None


def test_broken_checkpoints_are_named(model: GamerForCausalLM, tokenizer: ItemTokenizer, tmp_path: Path):
    GenerativeRecommender(model, tokenizer).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated or corrupt"):
        GenerativeRecommender.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        GenerativeRecommender.from_pretrained(tmp_path)
    state = model.state_dict()
    removed = "model.layers.1.mlp.down_proj"
    model.save_pretrained(tmp_path, state_dict={name: part for name, part in state.items() if name != removed})
    with pytest.raises(ValueError, match=f"lacks weights of its model, for example '{removed}'"):
        GenerativeRecommender.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json, so it holds no model"):
        GenerativeRecommender.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no folder './nowhere'"):
        GenerativeRecommender.from_pretrained("./nowhere")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_settings_that_are_no_json_are_named(
    model: GamerForCausalLM, tokenizer: ItemTokenizer, tmp_path: Path, name: str
):
    GenerativeRecommender(model, tokenizer).save_pretrained(tmp_path)
    settings = tmp_path / name
    settings.write_text(settings.read_text()[:40])
    with pytest.raises(ValueError, match=rf"{name} is not valid JSON .* truncated or corrupt"):
        GenerativeRecommender.from_pretrained(tmp_path)


def test_a_repository_is_downloaded_by_its_name(
    model: GamerForCausalLM, tokenizer: ItemTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    GenerativeRecommender(model, tokenizer).save_pretrained(tmp_path)
    asked = []

    def download(name: str, **settings: object) -> str:
        asked.append((name, settings))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    loaded = GenerativeRecommender.from_pretrained("org/name", revision="v1", num_beams=3)
    assert loaded.num_beams == 3
    patterns = ["*.json", "*.safetensors", "*.parquet"]
    assert asked == [("org/name", {"allow_patterns": patterns, "revision": "v1"})]


def test_parts_that_do_not_belong_together_are_refused(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    other = ChunkedIDTokenizer(chunk_size=8).fit(None, ITEMS, LADDER)
    with pytest.raises(ValueError, match=r"model's `codebook_sizes` is \[.*\] but the item tokenizer's is \[8"):
        GenerativeRecommender(model, other)
    with pytest.raises(ValueError, match="`behavior_levels` is .* do not belong together"):
        GenerativeRecommender(model, ChunkedIDTokenizer(chunk_size=4).fit(None, ITEMS, "view=cart,buy"))
    with pytest.raises(ValueError, match="The catalog's 30 items are not the item tokenizer's 30, or stand in another"):
        GenerativeRecommender(model, tokenizer, Catalog(ITEMS[::-1]))


def test_bad_arguments_are_refused(model: GamerForCausalLM, tokenizer: ItemTokenizer):
    with pytest.raises(ValueError, match="`num_beams` and `batch_size` must be at least 1, got 0 and 64"):
        GenerativeRecommender(model, tokenizer, num_beams=0)
    with pytest.raises(ValueError, match="`search` must be one of 'fast', 'generate', got 'slow'"):
        GenerativeRecommender(model, tokenizer, search="slow")
    recommender = GenerativeRecommender(model, tokenizer)
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        recommender.recommend([[]], k=0)
    with pytest.raises(ValueError, match="Unknown behavior 'like'"):
        recommender.recommend([[]], behavior="like")
    with pytest.raises(ValueError, match="names the item 'x'"):
        recommender.recommend([[("x", "view")]], unknown_items="error")
