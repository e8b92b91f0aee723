"""`GenRecTrainer`: transformers' `Trainer` for histories, with length-bucketed batches and validation by ranking.

Trains on user-level samples with the loss on code tokens only (Wang et al., GAMER, section 3.2 and appendix), validates
on session-wise samples, and chooses the checkpoint by validation NDCG@10 or loss. Runs unchanged under `accelerate
launch`: any number of processes step through the same batches, and the loss is the mean over the label tokens of all.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainerCallback

from genrec.data.candidates import QueryContext, check_context
from genrec.data.histories import Queries
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.recommender import GenerativeRecommender
from genrec.training.arguments import GenRecTrainingArguments
from genrec.training.base_trainer import RecommenderTrainer
from genrec.training.collators import HistoryCollator, MicroBatchCollator
from genrec.training.context_collator import ContextCollator, prepared_context, reads_times
from genrec.training.device_dataset import DeviceDataset
from genrec.training.samplers import LengthBucketBatchSampler
from genrec.training.samples import sample_lengths
from genrec.training.trainer_checks import check_model, check_packing, check_rows, check_validation_data
from genrec.training.validation import merged_ndcg, ranking_subset, validation_loss, validation_subset


class GenRecTrainer(RecommenderTrainer):
    """Trains a generative recommender.

    The output folder gets `checkpoint-<step>/` folders to resume from, `metrics.jsonl` with every logged record and
    `training_report.json`. After `train` the model holds the best checkpoint's weights.

    On two CPU processes: `accelerate launch --multi_gpu --num_machines 1 --num_processes 2 train.py`, with
    `use_cpu=True` in the arguments. (`--cpu` alone starts one process, whatever the number asked for.)

    Args:
        model: A model whose `forward` takes `input_ids`, `attention_mask`, `labels`, `session_ids` and `temperature`,
            such as `GamerForCausalLM`.
        args: How to train.
        tokenizer: The fitted item tokenizer whose codes the model predicts.
        train_dataset: Samples by row number (see `genrec.training.samples`): `HistoryDataset`, or what
            `PreparedDataset.train_dataset` gives.
        eval_dataset: Validation samples, usually one target each; needed unless `args.eval_strategy` is `"no"`.
        ranking_queries: Validation queries to rank for, needed if `args.selection_metric` is `"ndcg@10"`. Without that
            metric they may still be given; their NDCG@10 is then recorded only.
        callbacks: Further callbacks.
        context: What all users did, for models with `trend_head` or `neighbor_head`.
        optimizers: An optimizer and a learning-rate schedule of your own, or None for those of `args`.

    Raises:
        ValueError: If the model has another vocabulary than the tokenizer or cannot apply the temperature, or a
            dataset that the arguments need is missing or has other item rows than the tokenizer.

    Example:
        >>> import tempfile
        >>> from genrec.data.histories import as_histories
        >>> from genrec.item_tokenizers import ChunkedIDTokenizer
        >>> from genrec.models.gamer import GamerConfig, GamerForCausalLM
        >>> from genrec.training.samples import HistoryDataset
        >>> tokenizer = ChunkedIDTokenizer(chunk_size=2).fit(None, ["a", "b", "c"], "view,buy")
        >>> shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, head_dim=8)
        >>> config = GamerConfig(**shape, num_key_value_heads=1, **tokenizer.model_config_fields())
        >>> histories = as_histories([[("a", "view"), ("b", "buy")]] * 8, tokenizer.item_ids, tokenizer.ladder)
        >>> args = GenRecTrainingArguments(
        ...     output_dir=tempfile.mkdtemp(), max_steps=2, eval_strategy="no", disable_tqdm=True, use_cpu=True
        ... )
        >>> trainer = GenRecTrainer(GamerForCausalLM(config), args, tokenizer, HistoryDataset(histories))
        >>> trainer.train().global_step
        2
    """

    data_collator: Any
    _device_data: DeviceDataset | None = None

    def __init__(
        self,
        model: PreTrainedModel,
        args: GenRecTrainingArguments,
        tokenizer: ItemTokenizer,
        train_dataset: Any,
        eval_dataset: Any = None,
        ranking_queries: Queries | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        context: QueryContext | None = None,
    ) -> None:
        check_model(model, args, tokenizer)
        check_context(model.config, context, len(tokenizer))
        if args.packing:
            check_packing(model)
        check_validation_data(args, eval_dataset, ranking_queries)
        check_rows(tokenizer, train_dataset, eval_dataset)
        self.item_tokenizer = tokenizer
        self.ranking_queries = ranking_subset(ranking_queries, args.max_ranking_queries, args.seed)
        self.max_history_items = args.max_history_items or model.config.max_history_items
        self._train_lengths = sample_lengths(train_dataset).clip(max=self.max_history_items + 1)
        self.context = context
        if context is not None and getattr(model.config, "trend_head", False):
            self.context = prepared_context(context, train_dataset, eval_dataset)
        self._takes_padding_side = "padding_side" in inspect.signature(model.forward).parameters
        super().__init__(
            model,
            args,
            data_collator=self._train_collator(model, args),
            train_dataset=train_dataset,
            eval_dataset=validation_subset(eval_dataset, args.max_validation_samples, args.seed),
            tokens_per_epoch=int(self._train_lengths.sum()) * tokenizer.vocabulary.tokens_per_item,
            callbacks=callbacks,
            optimizers=optimizers,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return the optimizer, with the pointers of a mixture in groups of their own learning rate."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        mixture = getattr(self.accelerator.unwrap_model(self.model), "mixture", None)
        if is_new and mixture is not None and self.args.pointer_lr_factor != 1:
            _split_groups(optimizer, set(mixture.parameters()), self.args.pointer_lr_factor)
        return optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Return this process's share of the length-bucketed batches, or with a token budget lists of micro-batches."""
        args = self.args
        sampler = LengthBucketBatchSampler(
            self._train_lengths,
            args.samples_per_step,
            num_processes=args.world_size,
            process_index=args.process_index,
            pool_batches=1 if args.packing else args.bucket_batches,
            seed=args.seed if args.data_seed is None else args.data_seed,
        )
        collate = self.data_collator
        if args.max_tokens_per_micro_batch is not None:
            collate = MicroBatchCollator(self.data_collator, args.max_tokens_per_micro_batch)
        return self._dataloader(self._train_data(), sampler, collate)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return this process's share of the validation batches, longest first."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        sampler = LengthBucketBatchSampler(
            sample_lengths(dataset).clip(max=self.max_history_items + 1),
            self.args.eval_batch_size * self.args.world_size,
            num_processes=self.args.world_size,
            process_index=self.args.process_index,
            shuffle=False,
        )
        return self._dataloader(
            dataset, sampler, self._collator(self.args, self.accelerator.unwrap_model(self.model).config)
        )

    def _validation_loss(self, batches: DataLoader) -> float:
        return validation_loss(self.model, batches, self.args.temperature, self.accelerator)

    def _validation_ndcg(self) -> float | None:
        if self.ranking_queries is None:
            return None
        return merged_ndcg(self._ranking_recommender(), self.ranking_queries, self.accelerator)

    def _ranking_recommender(self) -> GenerativeRecommender:
        """Return the model as validation asks it."""
        sizes = {"num_beams": self.args.ranking_num_beams, "batch_size": self.args.per_device_eval_batch_size}
        return GenerativeRecommender(self.model, self.item_tokenizer, context=self.context, **sizes)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch at the arguments' temperature, with the causal mask for a first share if asked.

        The model's config says whether it is session-wise. It is changed for this call only, so that validation, and
        every checkpoint, is of the model as it will be used.
        """
        inputs = {**inputs, "temperature": self.args.temperature}
        if self._takes_padding_side:
            inputs["padding_side"] = "right"
        config = self.accelerator.unwrap_model(model).config
        is_session_wise = getattr(config, "session_wise", False)
        if self._share_done() < self.args.causal_share:
            config.session_wise = False
        try:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            config.session_wise = is_session_wise

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Return the loss of a batch and add its gradients, those of micro-batches one by one.

        Processes exchange gradients in the last micro-batch only; they need not have equally many.
        """
        *earlier, last = _micro_batches(inputs)
        loss = torch.zeros((), device=self.args.device)
        with self.accelerator.no_sync(model):
            for micro_batch in earlier:
                loss += super().training_step(model, micro_batch, num_items_in_batch)
        return loss + super().training_step(model, last, num_items_in_batch)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | int | None:
        """Count the labels of all micro-batches of an update, in all processes."""
        return super()._get_num_items_in_batch(
            [part for batch in batch_samples for part in _micro_batches(batch)], device
        )

    def floating_point_ops(self, inputs: Any) -> int:
        """Return the operations of a step, without walking over all parameters each time."""
        return self._flops_per_token * sum(part["input_ids"].numel() for part in _micro_batches(inputs))

    def _train_data(self) -> Any:
        """Return the training samples, on the device if they are to be there."""
        if not (_is_data_on_device(self.args) and isinstance(self.data_collator, HistoryCollator)):
            return self.train_dataset
        if self._device_data is None:
            self._device_data = DeviceDataset(self.train_dataset, self.data_collator)
        return self._device_data

    def _train_collator(self, model: PreTrainedModel, args: GenRecTrainingArguments) -> HistoryCollator:
        behavior_loss = getattr(model.config, "behavior_loss_weight", 0) > 0
        device = args.device if _is_data_on_device(args) else torch.device("cpu")
        return self._collator(args, model.config, device=device, behavior_loss=behavior_loss, packing=args.packing)

    def _collator(self, args: GenRecTrainingArguments, config: Any, **options: Any) -> HistoryCollator:
        """Return what makes batches; one that adds times and candidates for a model that reads them."""
        collator: type[HistoryCollator] = HistoryCollator
        if reads_times(config):
            collator = ContextCollator
            options |= {"context": self.context, "has_trend": config.trend_head, "has_neighbors": config.neighbor_head}
        return collator(
            self.item_tokenizer.item_tokens.to(options.pop("device", "cpu")),
            self.item_tokenizer.vocabulary,
            self.max_history_items,
            pad_to_multiple_of=args.pad_to_multiple_of,
            **options,
        )


def _split_groups(optimizer: torch.optim.Optimizer, chosen: set[torch.Tensor], lr_factor: float) -> None:
    """Move some parameters into groups like their own, with another learning rate."""
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if parameter in chosen]
        group["params"] = [parameter for parameter in group["params"] if parameter not in chosen]
        if moved:
            optimizer.add_param_group({**group, "params": moved, "lr": lr_factor * group["lr"]})


def _is_data_on_device(args: GenRecTrainingArguments) -> bool:
    return args.data_on_device and args.dataloader_num_workers == 0


def _micro_batches(inputs: Any) -> Sequence[dict[str, Any]]:
    """Return a batch's micro-batches, which with no token budget is the batch itself."""
    return inputs if isinstance(inputs, list) else [inputs]
