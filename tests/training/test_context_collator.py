"""Batches with times and candidates: whose they are, when they are asked for, and that models learn from them."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genrec.data.candidates import Asked, QueryContext, query_context
from genrec.data.histories import Histories, Queries, as_histories, asked_at
from genrec.data.market import SyntheticMarket
from genrec.data.neighbors import NeighborIndex
from genrec.data.recent_events import RecentEvents
from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.item_tokenizers.inputs import candidate_tensors
from genrec.item_tokenizers.vocabulary import Vocabulary
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.models.gamer.item_history import ItemQueries, query_times, read_item_history
from genrec.recommender import GenerativeRecommender
from genrec.training.arguments import GenRecTrainingArguments
from genrec.training.collators import MicroBatchCollator
from genrec.training.context_collator import ContextCollator, prepared_context, reads_times
from genrec.training.device_dataset import DeviceDataset
from genrec.training.samples import HistoryDataset
from genrec.training.trainer import GenRecTrainer

ITEMS, LADDER, DAY = list(range(9)), "view,buy", 86_400
VOCABULARY = Vocabulary(num_behaviors=2, codebook_sizes=(3, 3))
ITEM_TOKENS = torch.tensor([[4 + item // 3, 7 + item % 3] for item in ITEMS])
HEADS = {"copy_head": True, "trend_head": True, "neighbor_head": True, "time_context": True}


def random_log(seed: int = 0, num_users: int = 12, longest: int = 9) -> Histories:
    rng = np.random.default_rng(seed)
    users = []
    for _ in range(num_users):
        times = np.cumsum(rng.choice([60, 600, 5000, DAY], size=rng.integers(1, longest + 1))) + rng.integers(DAY)
        users.append([(int(rng.integers(9)), ["view", "buy"][rng.integers(2)], int(time)) for time in times])
    return as_histories(users, ITEMS, LADDER)


def context_of(histories: Histories) -> QueryContext:
    neighbors = NeighborIndex.of(histories)
    return QueryContext(RecentEvents.of(histories), neighbors, (DAY, 3 * DAY), num_rising=3, num_recent=2)


def collator_of(context: QueryContext | None, max_history_items: int = 20, **heads: bool) -> ContextCollator:
    heads = heads or {"has_trend": True, "has_neighbors": True}
    return ContextCollator(ITEM_TOKENS, VOCABULARY, max_history_items, context=context, **heads)


def samples_of(dataset: HistoryDataset) -> list[dict]:
    return [dataset[row] for row in range(len(dataset))]


def expected_candidates(context: QueryContext, samples: list[dict]) -> dict[str, torch.Tensor]:
    """Ask for every labelled interaction by itself, from its own user's earlier sessions."""
    found = []
    for sample in samples:
        count = len(sample["items"])
        for event in range(count - min(sample.get("num_targets", count), count), count):
            past = [place for place in range(event) if sample["sessions"][place] != sample["sessions"][event]]
            latest = {int(sample["items"][place]): place for place in past}
            newest = sorted(latest.values(), reverse=True)[:2]

            items = [int(sample["items"][place]) for place in newest] + [-1] * (2 - len(newest))
            asked = Asked(
                times=np.array([sample["session_times"][event]]),
                behaviors=np.array([sample["behaviors"][event]]),
                items=np.array([items]),
            )
            found.append(candidate_tensors(context, asked, ITEM_TOKENS, has_trend=True, has_neighbors=True))
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def assert_candidates(batch: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert {name for name in batch if name.startswith(("trend", "neighbor"))} == set(expected)
    for name, part in expected.items():
        torch.testing.assert_close(batch[name], part, rtol=0, atol=0, msg=name)


def test_each_token_has_its_time_and_each_session_begins_when_it_began():
    sample = {
        "items": [3, 1, 1, 8],
        "behaviors": [0, 0, 1, 0],
        "sessions": [4, 4, 6, 6],
        "times": [50, 60, 900, 950],
        "session_times": [40, 40, 900, 900],  # something at 40 has been left out
    }
    batch = collator_of(None)([sample, {name: values[:1] for name, values in sample.items()}])
    assert batch["event_times"].tolist() == [[40] * 3 + [60] * 3 + [900] * 3 + [950] * 3, [40] * 3 + [0] * 9]
    cut = collator_of(None, max_history_items=2)([sample])  # keeps three interactions
    assert cut["event_times"].tolist() == [[40] * 3 + [900] * 3 + [950] * 3]


@pytest.mark.parametrize("num_targets", [None, 1, 3])
def test_candidates_follow_the_labelled_interactions_in_order(num_targets: int | None):
    histories = random_log()
    context, samples = context_of(histories), samples_of(HistoryDataset(histories, num_targets))
    batch = collator_of(context)(samples)
    assert_candidates(batch, expected_candidates(context, samples))
    num_labelled = int((batch["labels"][:, 1::3] != -100).sum())
    assert len(batch["trend_tokens"]) == len(batch["neighbor_features"]) == num_labelled


def test_a_head_that_is_off_gets_nothing():
    histories = random_log()
    samples = samples_of(HistoryDataset(histories))
    plain = {"input_ids", "attention_mask", "labels", "session_ids", "event_times"}
    for context, heads, expected in (
        (None, {"has_trend": True}, plain),
        (context_of(histories), {"has_trend": False, "has_neighbors": False}, plain),
        (context_of(histories), {"has_trend": True}, plain | {"trend_tokens", "trend_features"}),
        (context_of(histories), {"has_neighbors": True}, plain | {"neighbor_tokens", "neighbor_features"}),
    ):
        assert set(collator_of(context, **heads)(samples)) == expected


def test_micro_batches_carry_the_candidates_of_their_own_rows():
    """Rows go by length there: the shorter ones of a micro-batch may come from earlier samples."""
    histories = random_log(num_users=20)
    context, samples = context_of(histories), samples_of(HistoryDataset(histories))
    collate = collator_of(context)
    alone = {tuple(collate([sample])["input_ids"][0].tolist()): sample for sample in samples}
    batches = MicroBatchCollator(collate, 21 * 3)(samples)
    assert len(batches) > 2
    for batch in batches:
        rows = [tuple(row[row > 0].tolist()) for row in batch["input_ids"]]
        assert_candidates(batch, expected_candidates(context, [alone[row] for row in rows]))
    order = [row for batch in batches for row in batch["attention_mask"].sum(dim=1).tolist()]
    assert order == sorted(order, reverse=True) != [3 * len(sample["items"]) for sample in samples]


def test_samples_on_the_device_make_the_same_batches():
    histories = random_log()
    dataset, collate = HistoryDataset(histories, num_targets=2), collator_of(context_of(histories), 4)
    on_device = collate(DeviceDataset(dataset, collate).__getitems__([3, 0, 7]))
    one_by_one = collate([dataset[row] for row in (3, 0, 7)])
    assert on_device.keys() == one_by_one.keys()
    assert all(on_device[name].equal(part) for name, part in one_by_one.items())


@pytest.mark.parametrize("is_prepared", [False, True])
def test_no_samples_give_no_candidates(is_prepared: bool):
    histories = random_log()
    context = context_of(histories)
    context = prepared_context(context, HistoryDataset(histories), None) if is_prepared else context
    batch = collator_of(context)([])
    assert batch["trend_tokens"].shape == (0, 3, 2)
    assert batch["neighbor_features"].shape == (0, 64, 10)
    assert (batch["labels"] == -100).all()


def test_a_context_is_prepared_for_every_sample(monkeypatch: pytest.MonkeyPatch):
    histories, others = random_log(), random_log(seed=5)
    context = context_of(histories)
    expected = collator_of(context)(samples_of(HistoryDataset(others)))
    prepared = prepared_context(context, HistoryDataset(histories), HistoryDataset(others), None)
    monkeypatch.setattr(RecentEvents, "trending", lambda *_: pytest.fail("counted again"))
    assert collator_of(prepared)(samples_of(HistoryDataset(others)))["trend_features"].equal(expected["trend_features"])


def test_only_models_that_read_times_need_them():
    assert not reads_times(SimpleNamespace())
    assert not reads_times(SimpleNamespace(has_mixture=False, time_context=False))
    assert reads_times(SimpleNamespace(has_mixture=True))
    assert reads_times(SimpleNamespace(time_context=True))


def test_a_validation_sample_is_asked_about_when_its_session_began():
    """Its target came five minutes into the session; neither the model nor the counts may know."""
    whole = as_histories([[(0, "view", 100), (1, "view", 9000), (2, "buy", 9300)]], ITEMS, LADDER)
    is_target = np.array([False, True, True])
    targets = whole.with_session_times().keep(is_target)
    queries = Queries(asked_at(whole.keep(~is_target), 9000), targets)
    samples = samples_of(HistoryDataset.from_queries(queries))
    batch = collator_of(context_of(whole))(samples)
    config = GamerConfig(num_hidden_layers=2, codebook_sizes=[3, 3], behavior_levels=[0, 1], session_wise=True)
    history = read_item_history(config, batch["input_ids"], batch["session_ids"], batch["event_times"])
    asked = ItemQueries(torch.tensor([0, 1]), torch.tensor([1, 1]))
    assert query_times(history, asked).tolist() == [9000, 9000]
    assert batch["trend_tokens"].tolist() == [[[4, 7], [0, 0], [0, 0]]] * 2  # item 0 alone was met before


def tiny_model(tokenizer: ChunkedIDTokenizer, **fields: object) -> GamerForCausalLM:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    fields = {**shape, "num_key_value_heads": 1, "dropout": 0.0, "session_wise": True, **fields}
    return GamerForCausalLM(GamerConfig(**fields, **tokenizer.model_config_fields()))


def arguments(folder: Path, **fields: object) -> GenRecTrainingArguments:
    settings = {"selection_metric": "loss", "learning_rate": 5e-3, "use_cpu": True, "disable_tqdm": True, "seed": 0}
    return GenRecTrainingArguments(output_dir=str(folder), **settings | fields)


def last_session_queries(histories: Histories) -> Queries:
    """Ask for each user's last session."""
    histories = histories.with_session_times()
    last = histories.offsets[1:] - 1
    is_target = histories.sessions == histories.sessions[last][histories.rows]
    known = replace(histories.keep(~is_target), query_times=histories.session_starts[last])
    return Queries(known, histories.keep(is_target))


def losses_of(trainer: GenRecTrainer) -> list[float]:
    lines = (Path(trainer.args.output_dir) / "metrics.jsonl").read_text().splitlines()
    return [record["eval_loss"] for record in map(json.loads, lines) if "eval_loss" in record]


@pytest.mark.parametrize("mixture", ["item", "level"])
def test_training_on_a_market_lowers_the_loss(tmp_path: Path, mixture: str):
    histories = SyntheticMarket(num_users=40, num_items=40, num_categories=2, seed=7).histories()
    tokenizer = ChunkedIDTokenizer(chunk_size=7).fit(None, histories.item_ids, histories.ladder)
    queries = last_session_queries(histories)
    model = tiny_model(tokenizer, **HEADS, mixture=mixture)
    context = query_context(histories, model.config)
    trainer = GenRecTrainer(
        model,
        arguments(
            tmp_path,
            num_train_epochs=2,
            per_device_train_batch_size=16,
            max_tokens_per_micro_batch=1000,
            max_history_items=30,
            max_ranking_queries=10,
        ),
        tokenizer,
        HistoryDataset(queries.histories),
        HistoryDataset.from_queries(queries),
        ranking_queries=queries,
        context=context,
    )
    before = trainer.evaluate()
    trainer.train()
    assert losses_of(trainer)[-1] < before["eval_loss"]
    assert 0 <= before["eval_ndcg@10"] <= 1
    recommender = GenerativeRecommender(model, tokenizer, context=context, num_beams=10)
    found = recommender.recommend(queries.histories.select(np.arange(5)), behavior="buy", k=3)
    assert all(len(one) == 3 and set(one.item_ids) <= set(histories.item_ids.tolist()) for one in found)


def repeating_users(num_users: int, seed: int) -> Histories:
    """Each user meets one item of their own again and again, a day apart."""
    items = np.random.default_rng(seed).integers(9, size=num_users)
    return as_histories([[(int(item), "view", day * DAY) for day in range(1, 5)] for item in items], ITEMS, LADDER)


def test_the_copy_head_learns_to_repeat_the_last_item(tmp_path: Path):
    tokenizer = ChunkedIDTokenizer(chunk_size=3).fit(None, ITEMS, LADDER)
    model = tiny_model(tokenizer, copy_head=True)
    queries = last_session_queries(repeating_users(40, seed=1))
    trainer = GenRecTrainer(
        model,
        arguments(tmp_path, num_train_epochs=5, per_device_train_batch_size=16, per_device_eval_batch_size=64),
        tokenizer,
        HistoryDataset(repeating_users(200, seed=0)),
        HistoryDataset.from_queries(queries),
    )
    trainer.train()
    losses = losses_of(trainer)
    assert losses[-1] < 0.5 * losses[0]
    batch = next(iter(trainer.get_eval_dataloader()))
    gates, components = [], model.mixture.components

    def noted(*arguments: object, **options: object):
        found = components(*arguments, **options)
        gates.append(found.log_gates.exp())
        return found

    model.mixture.components = noted
    with torch.no_grad():
        model.eval()(**batch)
    assert gates[0][..., 1].mean() > 0.5  # most of the probability goes through the pointer


def test_nothing_that_rises_is_counted_for_a_model_that_asks_for_neighbors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokenizer, log = ChunkedIDTokenizer(chunk_size=3).fit(None, ITEMS, LADDER), random_log()
    model = tiny_model(tokenizer, neighbor_head=True)
    context = query_context(log, model.config)
    monkeypatch.setattr(RecentEvents, "trending", lambda *_: pytest.fail("counted"))
    settings = {"max_steps": 1, "eval_strategy": "no", "save_strategy": "no"}
    trainer = GenRecTrainer(model, arguments(tmp_path, **settings), tokenizer, HistoryDataset(log), context=context)
    assert trainer.train().global_step == 1


@pytest.mark.parametrize("name", ["trend_head", "neighbor_head"])
def test_a_head_without_a_context_is_refused(tmp_path: Path, name: str):
    tokenizer = ChunkedIDTokenizer(chunk_size=3).fit(None, ITEMS, LADDER)
    model, dataset = tiny_model(tokenizer, **{name: True}), HistoryDataset(random_log())
    with pytest.raises(ValueError, match=f"model with `{name}` chooses among items"):
        GenRecTrainer(model, arguments(tmp_path, eval_strategy="no"), tokenizer, dataset)
