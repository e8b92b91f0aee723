import dataclasses

import pytest

from genrec.training.arguments import PRESETS, GenRecTrainingArguments


def arguments(**fields):
    return GenRecTrainingArguments(**{"output_dir": "unused", "use_cpu": True} | fields)


def test_the_paper_preset_holds_the_papers_values():
    args = GenRecTrainingArguments.preset("paper", output_dir="unused", use_cpu=True)
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size == 4096
    assert args.learning_rate == 5e-4
    assert args.warmup_steps == 0.04  # a share, not a number of steps
    assert args.num_train_epochs == 200
    assert args.early_stopping_patience == 20
    assert args.temperature == 0.7
    assert (args.metric_for_best_model, args.greater_is_better) == ("loss", False)
    assert args.lr_scheduler_type == "cosine_with_min_lr"
    assert args.lr_scheduler_kwargs == {"min_lr": 0.0}
    assert args.load_best_model_at_end


def test_presets_take_overrides():
    args = GenRecTrainingArguments.preset("paper", output_dir="unused", use_cpu=True, min_lr=1e-5, num_train_epochs=3)
    assert args.lr_scheduler_kwargs == {"min_lr": 1e-5}
    assert args.num_train_epochs == 3


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_what_it_says(name):
    args = GenRecTrainingArguments.preset(name, output_dir="unused", use_cpu=True)
    assert {field: getattr(args, field) for field in PRESETS[name]} == PRESETS[name]


def test_the_default_chooses_by_ranking_and_checks_once_per_epoch():
    args = arguments()
    assert (args.metric_for_best_model, args.greater_is_better) == ("ndcg@10", True)
    assert (args.eval_strategy, args.save_strategy, args.save_total_limit) == ("epoch", "epoch", 2)
    assert args.report_to == []
    assert not args.remove_unused_columns
    assert not args.logging_nan_inf_filter


def test_arguments_survive_a_copy():
    args = arguments(total_batch_size=256, min_lr=1e-5, selection_metric="loss")
    assert dataclasses.replace(args, seed=7).gradient_accumulation_steps == 4


def test_a_token_budget_takes_the_whole_update_at_once():
    args = arguments(total_batch_size=1000, max_tokens_per_micro_batch=4096)
    assert (args.samples_per_step, args.gradient_accumulation_steps) == (1000, 1)
    assert arguments(max_tokens_per_micro_batch=4096).samples_per_step == 64
    assert arguments(total_batch_size=128).samples_per_step == 64


def test_without_validation_there_is_no_best_checkpoint():
    assert not arguments(eval_strategy="no").load_best_model_at_end


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"causal_share": 1.0}, "`causal_share` must be at least 0 and below 1, got 1.0"),
        ({"temperature": 0.0}, "`temperature` must be positive and finite, got 0.0"),
        ({"temperature": float("inf")}, "`temperature` must be positive"),
        ({"pointer_lr_factor": 0.0}, "`pointer_lr_factor` must be above 0, got 0.0"),
        ({"min_lr": 1e-2}, r"`min_lr` must be from 0 to `learning_rate` \(0.0005\), got 0.01"),
        ({"selection_metric": "ndcg@5"}, "`selection_metric` must be one of ndcg@10, loss, got 'ndcg@5'"),
        ({"early_stopping_patience": 0}, "`early_stopping_patience` must be at least 1, or None"),
        ({"max_history_items": 0}, "`max_history_items` must be at least 1, or None"),
        ({"max_ranking_queries": 0}, "`max_ranking_queries` must be at least 1, or None"),
        ({"max_seconds": 0.0}, "`max_seconds` must be positive, or None"),
        ({"bucket_batches": 0}, "`bucket_batches` must be at least 1"),
        ({"pad_to_multiple_of": 0}, "`pad_to_multiple_of` must be at least 1"),
        ({"ranking_num_beams": 5}, "`ranking_num_beams` must be at least 10"),
        ({"metric_for_best_model": "loss"}, "`metric_for_best_model` follows from `selection_metric='ndcg@10'`"),
        ({"greater_is_better": False}, "`greater_is_better` follows from"),
        ({"lr_scheduler_type": "linear", "min_lr": 1e-5}, "`min_lr=1e-05` would be ignored"),
        ({"total_batch_size": 100}, r"`total_batch_size` \(100\) must be a multiple .* 64"),
        ({"max_tokens_per_micro_batch": 0}, "`max_tokens_per_micro_batch` must be at least 1, or None"),
        (
            {"max_tokens_per_micro_batch": 1000, "gradient_accumulation_steps": 2},
            "`gradient_accumulation_steps=2` contradicts `max_tokens_per_micro_batch`.* Set `total_batch_size`",
        ),
        (
            {"total_batch_size": 128, "gradient_accumulation_steps": 4},
            "`gradient_accumulation_steps=4` contradicts `total_batch_size=128`, which needs 2",
        ),
    ],
)
def test_bad_values_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        arguments(**fields)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"no training argument `learning_rat`. Did you mean `learning_rate`\?"):
        GenRecTrainingArguments.preset("small", learning_rat=1)
    with pytest.raises(ValueError, match=r"no training argument `xyzzy`.$"):
        GenRecTrainingArguments.preset("small", xyzzy=1)
    with pytest.raises(ValueError, match="no training preset 'papers'. Choose one of: paper, small"):
        GenRecTrainingArguments.preset("papers")
