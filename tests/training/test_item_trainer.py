"""`ItemTrainer` on a world with a rule, for every scoring model: it learns, stops, resumes and validates."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from genrec.data.histories import Queries, as_histories
from genrec.models.discriminative import MODELS, GraphModel, MBGMNModel, SASRecConfig, SASRecModel, SMBRecModel
from genrec.training.item_arguments import ITEM_PRESETS, ItemTrainingArguments, ignored_fields
from genrec.training.item_samples import item_samples
from genrec.training.item_trainer import ItemTrainer

from .planted_log import NUM_ITEMS, last_asked, planted_log

ORDERED = [kind for kind in MODELS if not issubclass(kind, GraphModel)]  # graphs know no order
LENGTHS = (3, 10)


@pytest.fixture(scope="module")
def train():
    return planted_log(150, seed=0, lengths=LENGTHS)


@pytest.fixture(scope="module")
def validation():
    return last_asked(planted_log(40, seed=1, lengths=LENGTHS))


def make_model(kind=SASRecModel, seed=0, **fields):
    torch.manual_seed(seed)
    shape = {"num_items": NUM_ITEMS, "num_behaviors": 2, "hidden_size": 16, "max_history_items": 8, "dropout": 0.1}
    return kind(kind.config_class(**shape | fields))


@pytest.fixture
def make_args(tmp_path):
    def build(**fields):
        settings = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 32,
            "num_train_epochs": 2,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "disable_tqdm": True,
        }
        return ItemTrainingArguments(**settings | fields)

    return build


@pytest.mark.parametrize("samples", ["user", "interaction"])
@pytest.mark.parametrize("kind", ORDERED, ids=lambda kind: kind.__name__)
def test_every_model_of_an_order_learns_the_rule_from_either_kind_of_sample(
    kind, samples, train, validation, make_args
):
    epochs, batch_size = (30, 16) if samples == "user" else (6, 32)
    settings = {"num_train_epochs": epochs, "per_device_train_batch_size": batch_size, "learning_rate": 4e-3}
    args = make_args(samples=samples, eval_strategy="no", **settings)
    trainer = ItemTrainer(make_model(kind, hidden_size=32, initializer_range=0.1, dropout=0.0), args, train, validation)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.75 * before["eval_loss"]
    assert after["eval_ndcg@10"] > max(0.6, 1.5 * before["eval_ndcg@10"])


@pytest.mark.parametrize(("kind", "fields"), [(MBGMNModel, {}), (SMBRecModel, {"contrast_weight": 0.0})])
def test_a_graph_model_gets_the_graph_of_the_training_part_and_learns_from_it(kind, fields, make_args):
    draw = np.random.default_rng(0)

    def clusters(num_users):
        """Even items for some users, odd ones for the others."""
        users = [2 * draw.permutation(NUM_ITEMS // 2)[:6] + user % 2 for user in range(num_users)]
        return as_histories([[(item, "buy") for item in items.tolist()] for items in users], np.arange(16), "view,buy")

    train, validation = clusters(80), last_asked(clusters(20))
    args = make_args(num_train_epochs=15, eval_strategy="no", per_device_train_batch_size=16)
    trainer = ItemTrainer(make_model(kind, **fields), args, train, validation)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.model.edges.shape == (2, len(train.items))
    assert trainer.model.item_degrees[1].tolist() == np.bincount(train.items, minlength=NUM_ITEMS).tolist()
    assert trainer.evaluate()["eval_loss"] < 0.75 * before


def test_training_leaves_its_files_and_the_best_weights(train, validation, make_args, tmp_path):
    trainer = ItemTrainer(make_model(), make_args(num_train_epochs=4), train, validation)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    curve = [line["eval_ndcg@10"] for line in lines if "eval_ndcg@10" in line]
    report = json.loads((tmp_path / "run" / "training_report.json").read_text())
    assert len(curve) == 4
    assert report["best_ndcg@10"] == max(curve)
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(max(curve))
    loaded = SASRecModel.from_pretrained(tmp_path / "run" / f"checkpoint-{report['best_step']}")
    assert torch.equal(loaded.item_embeddings.weight, trainer.model.item_embeddings.weight)


def test_the_prior_is_counted_in_training(train, make_args):
    model = make_model()
    ItemTrainer(model, make_args(eval_strategy="no"), train)
    items, counts = np.unique(train.items[train.behaviors == 1], return_counts=True)
    assert int(model.prior[1].argmax()) in items[counts == counts.max()]


def test_a_stopped_run_goes_on_to_the_same_weights(train, validation, make_args, tmp_path):
    def trainer_in(folder):
        model = make_model(loss="bce")  # its negatives are drawn from torch's generator, like dropout
        return ItemTrainer(model, make_args(output_dir=str(tmp_path / folder), num_train_epochs=3), train, validation)

    whole = trainer_in("whole")
    whole.train()
    first = trainer_in("parts")
    step, calls = first.training_step, []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 12:  # in the third epoch of five steps
            raise KeyboardInterrupt
        return step(*arguments, **keywords)

    first.training_step = interrupted
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = trainer_in("parts")
    second.train(resume_from_checkpoint=True)
    for name, values in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], values), name


def test_patience_ends_a_run_that_learns_nothing(train, validation, make_args):
    args = make_args(num_train_epochs=30, early_stopping_patience=2, learning_rate=0.0)
    trainer = ItemTrainer(make_model(), args, train, validation)
    trainer.train()
    assert trainer.report()["stopped_by"] == "patience"
    assert trainer.state.epoch == 3


def test_it_can_rank_among_candidates_and_for_the_target_behavior_only(train, validation, make_args):
    model = make_model()

    def ndcg(**fields):
        return ItemTrainer(model, make_args(**fields), train, validation).evaluate()["eval_ndcg@10"]

    assert ndcg(ranking_candidates=4) > ndcg()
    is_bought = validation.targets.behaviors == 1
    bought = Queries(validation.histories, validation.targets.keep(is_bought))
    expected = ItemTrainer(model, make_args(), train, bought).evaluate()["eval_ndcg@10"]
    assert ndcg(ranking_behaviors="target") == pytest.approx(expected)


def test_target_behaviors_only_trains_on_fewer_samples(train, validation, make_args):
    every, target = (
        ItemTrainer(make_model(), make_args(samples="interaction", target_behaviors_only=only), train, validation)
        for only in (False, True)
    )
    is_first = np.zeros(len(train.items), dtype=bool)
    is_first[train.offsets[:-1]] = True
    assert len(every.train_dataset) == (~is_first).sum()
    assert len(target.train_dataset) == (~is_first & (train.behaviors == 1)).sum()


def test_without_validation_it_trains_to_the_end(train, make_args):
    trainer = ItemTrainer(make_model(), make_args(eval_strategy="no"), train)
    trainer.train()
    assert trainer.report()["stopped_by"] == "schedule"
    with pytest.raises(ValueError, match="`validation` queries are needed"):
        ItemTrainer(make_model(), make_args(), train)


def test_other_samples_are_validated_without_ranking(train, validation, make_args):
    trainer = ItemTrainer(make_model(), make_args(), train, validation)
    assert "eval_ndcg@10" in trainer.evaluate()
    metrics = trainer.evaluate(trainer.train_dataset)
    assert metrics["eval_loss"] > 0
    assert "eval_ndcg@10" not in metrics


def test_a_model_of_another_catalog_is_refused(train, make_args):
    other = SASRecModel(SASRecConfig(num_items=5, num_behaviors=2, hidden_size=8))
    with pytest.raises(ValueError, match="The model knows 5 items but 16 are given"):
        ItemTrainer(other, make_args(eval_strategy="no"), train)


@pytest.mark.parametrize("name", ITEM_PRESETS)
def test_a_preset_sets_what_it_says(name):
    args = ItemTrainingArguments.preset(name, output_dir="unused", use_cpu=True)
    assert {field: getattr(args, field) for field in ITEM_PRESETS[name]} == ITEM_PRESETS[name]
    assert (args.learning_rate, args.weight_decay, args.early_stopping_patience) == (1e-3, 0.01, 10)
    assert args.lr_scheduler_type == "constant"


def test_arguments_survive_a_copy(make_args):
    assert dataclasses.replace(make_args(total_batch_size=64), seed=3).gradient_accumulation_steps == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": "session"}, "`samples` must be one of user, window, interaction, got 'session'"),
        ({"ranking_behaviors": "view"}, "`ranking_behaviors` must be one of merged, target, got 'view'"),
        ({"ranking_candidates": 1}, "`ranking_candidates` must be at least 2, or None, got 1"),
        ({"target_behaviors_only": True}, "`target_behaviors_only` would be ignored with `samples='window'`"),
        ({"temperature": 0.7}, "`temperature=0.7` would be ignored: it is about generating codes"),
        ({"causal_share": 0.5}, "`causal_share=0.5` would be ignored"),
    ],
)
def test_wrong_or_ignored_arguments_are_refused(make_args, fields, message):
    with pytest.raises(ValueError, match=message):
        make_args(**fields)


def test_only_arguments_about_codes_are_ignored():
    assert {"temperature", "causal_share", "ranking_num_beams"} <= set(ignored_fields())
    assert not {"learning_rate", "max_seconds", "early_stopping_patience", "samples"} & set(ignored_fields())


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ValueError, match="no training preset 'large'. Choose one of: paper, small"):
        ItemTrainingArguments.preset("large", output_dir="unused")


def test_thinned_copies_are_trained_on_and_the_prior_counts_the_log_alone(train, make_args):
    args = make_args(samples="interaction", eval_strategy="no", seed=3)
    model = make_model()
    trainer = ItemTrainer(model, args, train, augmentation_copies=2)
    expected = item_samples(train, "interaction", 8, augmentation_copies=2, seed=3)
    alone = item_samples(train, "interaction", 8)
    assert len(trainer.train_dataset) == len(expected) > len(alone)
    assert trainer.train_dataset[-1]["items"].tolist() == expected[-1]["items"].tolist()
    plain = make_model()
    ItemTrainer(plain, args, train)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.buffers(), plain.buffers(), strict=True))


def test_the_average_of_the_weights_is_kept_here_too(train, validation, make_args):
    trainers = [
        ItemTrainer(
            make_model(), make_args(ema_decay=decay, output_dir=make_args().output_dir + name), train, validation
        )
        for name, decay in (("-plain", 0.0), ("-averaged", 0.9))
    ]
    for trainer in trainers:
        trainer.train()
    plain, averaged = ([r["eval_loss"] for r in each.state.log_history if "eval_loss" in r] for each in trainers)
    assert plain != averaged
