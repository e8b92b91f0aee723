"""What a trainer refuses before it starts: parts that do not belong together, and settings that would be ignored."""

import inspect
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from genrec.data.histories import Queries
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.training.arguments import GenRecTrainingArguments


def check_model(model: PreTrainedModel, args: GenRecTrainingArguments, tokenizer: ItemTokenizer) -> None:
    """Refuse a model of another vocabulary, or one that training arguments would have no effect on.

    Raises:
        ValueError: If so.
    """
    num_tokens = tokenizer.vocabulary.vocab_size
    if model.config.vocab_size != num_tokens:
        raise ValueError(
            f"The model has {model.config.vocab_size} token ids but the item tokenizer {num_tokens}. Build the "
            "model's config with `**tokenizer.model_config_fields()`."
        )
    if args.temperature != 1.0 and "temperature" not in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"`temperature={args.temperature}` would be ignored: the `forward` of {type(model).__name__} does not take "
            "it. Leave it at 1."
        )
    if args.causal_share > 0 and not getattr(model.config, "session_wise", False):
        raise ValueError(
            f"`causal_share={args.causal_share}` would be ignored: the model is causal throughout. Set "
            "`session_wise=True` in its config, or leave it out."
        )


def check_packing(model: PreTrainedModel) -> None:
    """Refuse packing where users of one row would be mixed.

    Raises:
        ValueError: If so.
    """
    if "segment_ids" not in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"`packing=True` would mix users: the `forward` of {type(model).__name__} takes no `segment_ids`. Set "
            "`packing=False`."
        )
    for name in ("has_mixture", "time_context"):
        if getattr(model.config, name, False):
            raise ValueError(
                f"`packing=True` is not possible for a model with `{name}`, which needs each user in a row of their "
                "own. Set `packing=False`."
            )


def check_validation_data(args: GenRecTrainingArguments, eval_dataset: Any, ranking_queries: Queries | None) -> None:
    """Refuse validation without data, or a choice of checkpoints without queries.

    Raises:
        ValueError: If so.
    """
    if args.eval_strategy == "no":
        return
    if eval_dataset is None:
        raise ValueError("`eval_dataset` is needed to validate. Give it, or set `eval_strategy='no'`.")
    if args.selection_metric != "loss" and not ranking_queries:
        raise ValueError(
            f"`ranking_queries` are needed for `selection_metric={args.selection_metric!r}`. Give the validation "
            "queries of the split, or set `selection_metric='loss'`."
        )


def check_rows(tokenizer: ItemTokenizer, *datasets: Any) -> None:
    """Refuse samples whose catalog rows are not the item tokenizer's, where they tell whose they are.

    Those of histories do, and those that `PreparedDataset` wrote.

    Raises:
        ValueError: If so.
    """
    for dataset in datasets:
        if not _has_rows_of(tokenizer.item_ids, dataset):
            raise ValueError(
                "The dataset's rows are not the item tokenizer's: their `item_ids` differ. Read the histories with "
                "`as_histories(..., item_ids=tokenizer.item_ids)`, or fit the tokenizer on the dataset's catalog."
            )


def _has_rows_of(item_ids: np.ndarray, dataset: Any) -> bool:
    if hasattr(dataset, "histories"):
        return np.array_equal(dataset.histories.item_ids, item_ids)
    if not hasattr(dataset, "cache_files"):
        return True
    from genrec.data.samples import catalog_fingerprint, noted_catalogs  # needs pyarrow, as `datasets` does

    noted = noted_catalogs(dataset)
    return not noted or noted == {catalog_fingerprint(item_ids)}
