"""`EncoderDecoderTrainer`: TIGER and its like, with the loop, checkpoints and stopping rules of `GenRecTrainer`."""

from dataclasses import fields
from typing import Any

from transformers import PreTrainedModel

from genrec.data.histories import Queries
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.recommender.encoder_decoder import Seq2SeqRecommender
from genrec.training.arguments import GenRecTrainingArguments
from genrec.training.encoder_decoder_collator import EncoderDecoderCollator
from genrec.training.trainer import GenRecTrainer

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

    Training samples are `InteractionDataset`'s, best with `joins_sessions`, so that the encoder reads a history once
    for all interactions of a session; the batch size then counts sessions. Validation samples are
    `HistoryDataset.from_queries`.

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
        >>> histories = as_histories(events, tokenizer.item_ids, tokenizer.ladder)
        >>> train = InteractionDataset(histories, 50, joins_sessions=True)
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

    def _ranking_recommender(self) -> Seq2SeqRecommender:
        return Seq2SeqRecommender(
            self.model,
            self.item_tokenizer,
            num_beams=self.args.ranking_num_beams,
            batch_size=self.args.per_device_eval_batch_size,
        )

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
