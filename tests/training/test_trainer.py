import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback

from genrec.data.histories import as_histories
from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.training.checkpoints import newest_checkpoint
from genrec.training.item_samples import InteractionDataset
from genrec.training.samples import HistoryDataset
from genrec.training.trainer import GenRecTrainer
from genrec.training.trainer_checks import check_rows


class StopAt(TrainerCallback):
    """Kills the run after a step, as a power cut would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def metrics_of(trainer: GenRecTrainer) -> list[dict]:
    lines = (Path(trainer.args.output_dir) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_loss_is_the_cross_entropy_of_codes_at_the_temperature(make_trainer):
    trainer = make_trainer(temperature=0.7)
    batch = next(iter(trainer.get_train_dataloader()))
    model = trainer.model.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch)).item()
        logits = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "session_ids")}).logits
    predicted, labels = logits[:, :-1].reshape(-1, logits.shape[-1]), batch["labels"][:, 1:].reshape(-1)
    assert loss == pytest.approx(cross_entropy(predicted / 0.7, labels).item(), rel=1e-5)
    assert loss != pytest.approx(cross_entropy(predicted, labels).item(), rel=1e-3)


class MasksSeen:
    """Notes at every step which mask the model's forward passes used."""

    def __init__(self, model) -> None:
        self.seen: list[bool] = []
        model.register_forward_pre_hook(lambda module, *_: self.seen.append(module.config.session_wise))


def test_a_session_wise_model_trains_causally_for_the_asked_share_of_steps(make_trainer, make_model):
    model = make_model(session_wise=True)
    masks = MasksSeen(model)
    trainer = make_trainer(model=model, causal_share=0.5, num_train_epochs=2, eval_strategy="no", save_strategy="no")
    trainer.train()
    num_steps = trainer.state.max_steps
    assert masks.seen == [step >= num_steps / 2 for step in range(num_steps)]
    assert model.config.session_wise


def test_the_causal_share_is_of_the_time_where_that_runs_out_first(make_trainer, make_model):
    """A hundred seconds at ten per step: of 1000 steps 11 are taken, and the mask changes as half the time is over."""
    model = make_model(session_wise=True)
    masks = MasksSeen(model)
    settings = {"max_steps": 1000, "max_seconds": 100.0, "eval_strategy": "no", "save_strategy": "no"}
    trainer = make_trainer(model=model, causal_share=0.5, **settings)
    seconds = iter(range(0, 1000, 10))
    trainer.time_budget.seconds_used = lambda: float(next(seconds))
    trainer.train()
    assert masks.seen == [step >= 5 for step in range(11)]


def test_validation_and_checkpoints_are_session_wise_throughout(make_trainer, make_model):
    trainer = make_trainer(model=make_model(session_wise=True), causal_share=0.9, num_train_epochs=1)
    trainer.train()
    masks = MasksSeen(trainer.model)
    trainer.evaluate()
    assert set(masks.seen) == {True}
    saved = json.loads((newest_checkpoint(Path(trainer.args.output_dir)) / "config.json").read_text())
    assert saved["session_wise"] is True


def test_a_causal_share_without_sessions_is_refused(make_trainer):
    with pytest.raises(ValueError, match="`causal_share=0.5` would be ignored: the model is causal throughout"):
        make_trainer(causal_share=0.5)


def test_behaviors_bear_loss_in_training_alone_and_only_if_the_model_weighs_them(make_trainer, make_model):
    for weight, expected in {0.0: {-100}, 0.5: {2, 3}}.items():
        trainer = make_trainer(model=make_model(behavior_loss_weight=weight))
        training, validation = next(iter(trainer.get_train_dataloader())), next(iter(trainer.get_eval_dataloader()))
        assert set(training["labels"][:, ::3][training["attention_mask"][:, ::3] == 1].tolist()) == expected
        assert set(validation["labels"][:, ::3].flatten().tolist()) == {-100}


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_accumulated_micro_batches_weigh_tokens_alike(make_trainer, accumulation):
    """The losses that one update adds up are its mean over tokens, however many micro-batches it has."""
    trainer = make_trainer(
        per_device_train_batch_size=100 // accumulation, gradient_accumulation_steps=accumulation, bucket_batches=1
    )
    trainer.model.eval()
    batches, num_tokens = trainer.get_batch_samples(
        iter(trainer.get_train_dataloader()), accumulation, trainer.args.device
    )
    with torch.no_grad():
        parts = [trainer.compute_loss(trainer.model, dict(b), num_items_in_batch=num_tokens).item() for b in batches]
        everything = trainer.data_collator([trainer.train_dataset[row] for row in range(100)])
        whole = trainer.compute_loss(trainer.model, everything).item()
    assert sum(parts) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("accumulation", "killed_at"), [(1, 4), (2, 6)])  # after an epoch of 4 steps, and within one
def test_a_killed_run_resumes_to_the_bit(make_trainer, make_model, tmp_path, accumulation, killed_at):
    settings = {
        "per_device_train_batch_size": 32 // accumulation,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": 3,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
    }
    whole = make_trainer(**settings, output_dir=str(tmp_path / "whole"))
    whole.train()
    killed = make_trainer(**settings, output_dir=str(tmp_path / "killed"), callbacks=[StopAt(killed_at + 1)])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = make_trainer(model=make_model(seed=99), **settings, output_dir=str(tmp_path / "killed"))
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step == 12
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name
    curves = [
        [(r["step"], r.get("loss"), r.get("eval_loss")) for r in metrics_of(trainer)] for trainer in (whole, resumed)
    ]
    assert curves[0] == curves[1], "a resumed run's metrics.jsonl must be that of a run in one piece"


def test_a_planted_rule_is_learned_and_the_ranking_chooses_the_checkpoint(make_trainer, planted_queries):
    """Given the item before, the next one is certain: the loss of its codes must all but vanish."""
    trainer = make_trainer(
        300, ranking_queries=planted_queries, selection_metric="ndcg@10", num_train_epochs=12, learning_rate=1e-2
    )
    before = trainer.evaluate()
    trainer.train()
    records = [record for record in metrics_of(trainer) if "eval_ndcg@10" in record]
    best = max(records, key=lambda record: record["eval_ndcg@10"])
    assert before["eval_loss"] == pytest.approx(np.log(trainer.model.config.vocab_size), rel=0.1)
    assert best["eval_loss"] < 0.2
    assert best["eval_ndcg@10"] > 0.9 > 0.6 > before["eval_ndcg@10"]
    assert trainer.report()["best_ndcg@10"] == best["eval_ndcg@10"]
    assert trainer.report()["best_epoch"] == best["epoch"]


def test_ranking_on_the_way_changes_nothing_in_the_training(make_trainer, planted_queries, tmp_path):
    weights = []
    for name, queries in {"without": None, "with": planted_queries}.items():
        trainer = make_trainer(ranking_queries=queries, output_dir=str(tmp_path / name))
        trainer.train()
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class ScriptedLosses:
    """Stands in for `trainer.evaluate`: gives these losses in turn, and remembers the weights of each."""

    def __init__(self, trainer: GenRecTrainer, losses: list[float]) -> None:
        self.trainer, self.losses, self.weights = trainer, iter(losses), []

    def __call__(self, **kwargs) -> dict[str, float]:
        trainer, metrics = self.trainer, {"eval_loss": next(self.losses)}
        self.weights.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        trainer.log(metrics)
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
        return metrics


def test_the_best_checkpoint_is_restored(make_trainer):
    trainer = make_trainer(num_train_epochs=4)
    trainer.evaluate = ScriptedLosses(trainer, [3.0, 1.0, 2.0, 1.0])
    trainer.train()
    best, last = trainer.evaluate.weights[1], trainer.evaluate.weights[3]
    assert all(torch.equal(weights, best[name]) for name, weights in trainer.model.state_dict().items())
    assert not all(torch.equal(weights, last[name]) for name, weights in trainer.model.state_dict().items())
    report = json.loads((Path(trainer.args.output_dir) / "training_report.json").read_text())
    assert (report["best_loss"], report["best_epoch"], report["best_step"]) == (1.0, 2.0, 8)
    assert report["validations_since_best"] == 2
    assert not report["still_improving"]


def test_validation_losses_that_are_not_finite_end_in_a_report_all_the_same(make_trainer):
    trainer = make_trainer(num_train_epochs=3)
    trainer.evaluate = ScriptedLosses(trainer, [3.0, float("nan"), float("nan")])
    trainer.train()
    report = json.loads((Path(trainer.args.output_dir) / "training_report.json").read_text())
    assert (report["best_loss"], report["best_epoch"], report["validations_since_best"]) == (3.0, 1.0, 2)
    assert all(
        torch.equal(trainer.evaluate.weights[0][name], part) for name, part in trainer.model.state_dict().items()
    )


@pytest.mark.parametrize("patience", [None, 2])
def test_a_run_without_a_finite_validation_loss_ends_in_a_report(make_trainer, patience):
    trainer = make_trainer(num_train_epochs=3, early_stopping_patience=patience)
    trainer.evaluate = ScriptedLosses(trainer, [float("nan")] * 3)
    trainer.train()
    report = json.loads((Path(trainer.args.output_dir) / "training_report.json").read_text())
    assert report["best_loss"] is report["best_epoch"] is None
    assert report["stopped_by"] == ("schedule" if patience is None else "patience")


def test_patience_ends_a_run_that_no_longer_improves(make_trainer):
    trainer = make_trainer(num_train_epochs=50, early_stopping_patience=2)
    trainer.evaluate = ScriptedLosses(trainer, [3.0, 2.0, 2.0, 2.5, 1.0])
    trainer.train()
    assert trainer.state.epoch == 4
    assert trainer.report()["stopped_by"] == "patience"


@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_a_used_up_time_budget_ends_the_run_with_a_validated_checkpoint(make_trainer, strategy):
    trainer = make_trainer(
        num_train_epochs=50,
        max_seconds=1e-6,
        eval_strategy=strategy,
        save_strategy=strategy,
        eval_steps=100,
        save_steps=100,
    )
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.report()["stopped_by"] == "time"
    assert trainer.report()["still_improving"]
    assert (Path(trainer.args.output_dir) / "checkpoint-1" / "model.safetensors").is_file()
    assert len([record for record in metrics_of(trainer) if "eval_loss" in record]) == 1


def test_records_hold_what_a_curve_needs(make_trainer):
    trainer = make_trainer(num_train_epochs=2)
    trainer.train()
    *records, last = metrics_of(trainer)
    training = [record for record in records if "loss" in record]
    assert [record["epoch"] for record in training] == [1.0, 2.0]
    assert all({"learning_rate", "step", "seconds", "tokens_per_second"} <= set(record) for record in training)
    assert [record["epoch"] for record in records if "eval_loss" in record] == [1.0, 2.0]
    assert last["stopped_by"] == "schedule"
    assert {"best_epoch", "best_step", "best_loss", "still_improving", "train_loss"} <= set(last)
    assert trainer.clock.tokens_per_epoch == 3 * len(trainer.train_dataset.histories.items)


def test_checkpoints_hold_no_pickled_arguments(make_trainer):
    trainer = make_trainer(num_train_epochs=1)
    trainer.train()
    files = {path.name for path in newest_checkpoint(trainer.args.output_dir).iterdir()}
    assert {"model.safetensors", "config.json", "training_arguments.json", "trainer_state.json"} <= files
    assert "training_args.bin" not in files


def test_training_leaves_the_cache_setting_as_it_was(make_trainer, make_model):
    model = make_model()
    assert model.config.use_cache
    make_trainer(model=model, num_train_epochs=1).train()
    assert model.config.use_cache


def test_a_terminal_sees_one_line_per_validation_and_nothing_else(make_trainer, capfd):
    make_trainer(num_train_epochs=2, disable_tqdm=False).train()
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  loss ")
    assert "left *" in lines[0]


def test_a_truncated_checkpoint_is_named(make_trainer):
    trainer = make_trainer(num_train_epochs=1)
    trainer.train()
    weights = newest_checkpoint(trainer.args.output_dir) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=r"checkpoint-4/model\.safetensors is truncated or corrupt .* earlier checkpoint"
    ):
        make_trainer(num_train_epochs=2).train(resume_from_checkpoint=True)


def test_another_models_checkpoint_is_refused(make_trainer, make_model):
    make_trainer(num_train_epochs=1).train()
    other = make_trainer(model=make_model(num_hidden_layers=3), num_train_epochs=2)
    with pytest.raises(ValueError, match="not of this model: .* is in only one"):
        other.train(resume_from_checkpoint=True)


def test_a_new_run_does_not_mix_with_an_earlier_one(make_trainer):
    make_trainer(num_train_epochs=1).train()
    with pytest.raises(ValueError, match=r"checkpoint-4 is of an earlier run"):
        make_trainer(num_train_epochs=1).train()


def test_there_must_be_something_to_resume(make_trainer):
    with pytest.raises(ValueError, match="no whole checkpoint in .* to resume from"):
        make_trainer().train(resume_from_checkpoint=True)


def test_a_run_that_diverges_says_so(make_trainer, make_model):
    model = make_model()
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(ValueError, match=r"loss is nan at step 1: the run diverged. Lower `learning_rate` \(0.005\)"):
        make_trainer(model=model, logging_steps=1).train()


def test_a_model_of_another_vocabulary_is_refused(make_trainer, make_model):
    model = make_model()
    model.config.vocab_size += 1
    with pytest.raises(ValueError, match="The model has 13 token ids but the item tokenizer 12"):
        make_trainer(model=model)


def test_a_model_that_would_ignore_the_temperature_is_refused(make_trainer, make_model):
    model = make_model()
    model.forward = lambda input_ids, labels=None: None
    with pytest.raises(ValueError, match=r"`temperature=0.7` would be ignored"):
        make_trainer(model=model, temperature=0.7)


def test_missing_validation_data_are_asked_for(make_model, make_args, make_trainer, tokenizer):
    train = HistoryDataset(as_histories([[(0, "view")]], item_ids=tokenizer.item_ids, ladder="view,buy"))
    with pytest.raises(ValueError, match="`eval_dataset` is needed"):
        GenRecTrainer(make_model(), make_args(), tokenizer, train)
    with pytest.raises(ValueError, match=r"`ranking_queries` are needed for `selection_metric='ndcg@10'`"):
        make_trainer(selection_metric="ndcg@10")
    assert GenRecTrainer(make_model(), make_args(eval_strategy="no"), tokenizer, train).train().global_step == 2


def test_rows_of_another_catalog_are_refused(make_trainer, make_model, make_args):
    reversed_rows = ChunkedIDTokenizer(chunk_size=4).fit(None, np.arange(16)[::-1].copy(), "view,buy")
    data = make_trainer().train_dataset
    with pytest.raises(ValueError, match="rows are not the item tokenizer's"):
        GenRecTrainer(make_model(), make_args(), reversed_rows, data, data)


def test_prepared_samples_of_another_catalog_are_refused(make_model, make_args, tokenizer, tmp_path):
    samples = pytest.importorskip("genrec.data.samples", exc_type=ImportError)
    histories = as_histories([[(0, "view"), (3, "buy")]] * 4, np.arange(16)[::-1].copy(), "view,buy")
    samples.write_samples(histories, tmp_path / "s.arrow")
    dataset, args = samples.open_samples(tmp_path / "s.arrow"), make_args(eval_strategy="no")
    with pytest.raises(ValueError, match="rows are not the item tokenizer's"):
        GenRecTrainer(make_model(), args, tokenizer, dataset)
    samples.write_samples(as_histories(histories, tokenizer.item_ids, "view,buy"), tmp_path / "right.arrow")
    GenRecTrainer(make_model(), args, tokenizer, samples.open_samples(tmp_path / "right.arrow"))


def test_interactions_of_another_catalog_are_refused(tokenizer):
    histories = as_histories([[(0, "view", 0), (3, "buy", 90_000)]], np.arange(16)[::-1].copy(), "view,buy")
    with pytest.raises(ValueError, match="rows are not the item tokenizer's"):
        check_rows(tokenizer, InteractionDataset(histories, max_history_items=5))


def test_arrow_datasets_train_like_those_in_memory(make_trainer, make_model, make_args, tokenizer, tmp_path):
    datasets = pytest.importorskip("datasets")
    in_memory = make_trainer(num_train_epochs=1, output_dir=str(tmp_path / "memory"))
    arrow = datasets.Dataset.from_list(
        [{name: column.tolist() for name, column in sample.items()} for sample in in_memory.train_dataset]
    )
    validation = datasets.Dataset.from_list(
        [{name: np.asarray(column).tolist() for name, column in sample.items()} for sample in in_memory.eval_dataset]
    )
    from_arrow = GenRecTrainer(make_model(), make_args(num_train_epochs=1), tokenizer, arrow, validation)
    for trainer in (in_memory, from_arrow):
        trainer.train()
    for name, weights in in_memory.model.state_dict().items():
        assert torch.equal(weights, from_arrow.model.state_dict()[name]), name
