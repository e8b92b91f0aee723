"""`EncoderDecoderTrainer`: TIGER and its like, with the loop, checkpoints and stopping rules of `GenRecTrainer`."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from genrec.data.histories import Queries
from genrec.evaluation import evaluate
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.recommender.encoder_decoder import Seq2SeqRecommender
from genrec.training.arguments import GenRecTrainingArguments
from genrec.training.encoder_decoder_collator import EncoderDecoderCollator
from genrec.training.trainer import GenRecTrainer
from genrec.training.validation import METRIC, validation_loss

IGNORED_FIELDS = (  # of those that `GenRecTrainingArguments` adds: they are about rows that hold a user's whole history
    "causal_share",
    "data_on_device",
    "max_tokens_per_micro_batch",
    "packing",
    "pad_to_multiple_of",
    "pointer_lr_factor",
)


class EncoderDecoderTrainer(GenRecTrainer):
    """Trains an encoder-decoder model over item codes, such as `TigerForConditionalGeneration`.

    Samples have one target each: `InteractionDataset` for training (one sample per interaction, its history the earlier
    sessions), `HistoryDataset.from_queries` for validation.

    Args:
        model: The model.
        args: How to train; the fields in `IGNORED_FIELDS` must have their defaults.
        tokenizer: The fitted item tokenizer whose codes the model predicts.
        train_dataset: Training samples.
        eval_dataset: Validation samples, needed unless `args.eval_strategy` is `"no"`.
        ranking_queries: Validation queries to rank for, needed if `args.selection_metric` is `"ndcg@10"`.
        **settings: `callbacks` and `optimizers` of `GenRecTrainer`.

    Raises:
        ValueError: If the model has another vocabulary than the tokenizer, a setting would be ignored, or a dataset
            that the arguments need is missing or has other item rows than the tokenizer.

    Example:
        >>> import tempfile
        >>> from genrec.data.histories import as_histories
        >>> from genrec.item_tokenizers import ChunkedIDTokenizer
        >>> from genrec.models.encoder_decoder import TigerConfig, TigerForConditionalGeneration
        >>> from genrec.training.item_samples import InteractionDataset
        >>> tokenizer = ChunkedIDTokenizer(chunk_size=2).fit(None, ["a", "b", "c"], "view,buy")
        >>> shape = dict(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        >>> config = TigerConfig(**shape, behavior_tokens=True, **tokenizer.model_config_fields())
        >>> events = [[("a", "view", 0), ("b", "buy", 90_000)]] * 8
        >>> train = InteractionDataset(as_histories(events, tokenizer.item_ids, tokenizer.ladder), 50)
        >>> args = GenRecTrainingArguments(
        ...     output_dir=tempfile.mkdtemp(), max_steps=2, eval_strategy="no", disable_tqdm=True, use_cpu=True
        ... )
        >>> EncoderDecoderTrainer(TigerForConditionalGeneration(config), args, tokenizer, train).train().global_step
        2
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: GenRecTrainingArguments,
        tokenizer: ItemTokenizer,
        train_dataset: Any,
        eval_dataset: Any = None,
        ranking_queries: Queries | None = None,
        **settings: Any,
    ) -> None:
        _check_arguments(args)
        super().__init__(model, args, tokenizer, train_dataset, eval_dataset, ranking_queries, **settings)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return and log the validation loss and, with ranking queries, the merged NDCG@10.

        Args:
            eval_dataset: Other samples than those given to the trainer; there is then no ranking.
            ignore_keys: Not used; here for `Trainer`.
            metric_key_prefix: What the metrics' names begin with.
        """
        self.model.eval()
        with self.clock.paused():
            batches = self.get_eval_dataloader(eval_dataset)
            loss = validation_loss(self.model, batches, self.args.temperature, self.accelerator)
            metrics = {f"{metric_key_prefix}_loss": loss}
            if self.ranking_queries is not None and eval_dataset is None:
                metrics[f"{metric_key_prefix}_{METRIC}"] = self._merged_ndcg(self.ranking_queries)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _merged_ndcg(self, queries: Queries) -> float:
        """Return NDCG@10 over all records, each process ranking for its share of users."""
        share = queries.select(np.arange(self.accelerator.process_index, len(queries), self.accelerator.num_processes))
        total = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        if len(share):
            recommender = Seq2SeqRecommender(
                self.accelerator.unwrap_model(self.model),
                self.item_tokenizer,
                num_beams=self.args.ranking_num_beams,
                batch_size=self.args.per_device_eval_batch_size,
            )
            values = evaluate(recommender, share, metrics=[METRIC], num_bootstrap=1).records_of().values[METRIC]
            total += torch.tensor([values.sum(), len(values)], dtype=torch.float64, device=total.device)
        ndcg_sum, num_records = self.accelerator.reduce(total, reduction="sum").tolist()
        return float(ndcg_sum / num_records)

    def _train_collator(self, model: PreTrainedModel, args: GenRecTrainingArguments) -> Any:
        return self._collator(args, model.config)

    def _collator(self, args: GenRecTrainingArguments, config: Any, **options: Any) -> Any:
        return EncoderDecoderCollator(
            self.item_tokenizer.item_tokens,
            self.item_tokenizer.vocabulary.num_behaviors,
            self.max_history_items,
            writes_behaviors=config.writes_behaviors,
        )


def _check_arguments(args: GenRecTrainingArguments) -> None:
    defaults = {field.name: field.default for field in fields(GenRecTrainingArguments)}
    for name in IGNORED_FIELDS:
        if getattr(args, name) != defaults[name]:
            raise ValueError(
                f"`{name}={getattr(args, name)!r}` would be ignored: it is about decoder-only models. Remove it."
            )
