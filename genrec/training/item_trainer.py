"""`ItemTrainer`: trains a model that scores items, in the loop that all trainers share (`base_trainer.py`)."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainerCallback

from genrec.data.histories import Histories, Queries
from genrec.models.discriminative import GraphModel
from genrec.recommender.sequential import SequentialRecommender
from genrec.training.base_trainer import RecommenderTrainer
from genrec.training.item_arguments import ItemTrainingArguments
from genrec.training.item_ranking import draw_candidates, ndcg_of, ranking_tasks
from genrec.training.item_samples import ItemCollator, item_counts, item_samples
from genrec.training.samplers import LengthBucketBatchSampler
from genrec.training.samples import HistoryDataset, sample_lengths
from genrec.training.validation import ranking_subset, validation_subset


class ItemTrainer(RecommenderTrainer):
    """Trains a model with `score_items` on the training part of a split.

    Checkpoints, resuming, `metrics.jsonl`, the report and the stopping rules are those of `RecommenderTrainer`, with
    interactions for tokens. After `train` the model holds the best checkpoint's weights.

    Args:
        model: A model whose `forward` takes `items`, `behaviors`, `sessions`, `times` and `labels`, and which has
            `score_items` and `set_prior`, such as `SASRecModel`. Its prior becomes the counts of `train`, and
            the graph of a `GraphModel` is made of `train` too.
        args: How to train.
        train: The training histories.
        validation: The validation queries, needed unless `args.eval_strategy` is `"no"`.
        callbacks: Further callbacks.
        optimizers: An optimizer and a learning-rate schedule of your own, or None for those of `args`.
        augmentation_copies: Thinned copies of each history that are trained on too (`genrec.training.item_samples`),
            drawn from `args.seed`. The prior counts the histories alone.

    Raises:
        ValueError: If the model has another catalog or ladder than the histories, there is nothing to predict, or
            validation queries are missing.

    Example:
        >>> import tempfile
        >>> from genrec.data.histories import as_histories
        >>> from genrec.models.discriminative import SASRecConfig, SASRecModel
        >>> model = SASRecModel(SASRecConfig(num_items=3, num_behaviors=2, hidden_size=8))
        >>> train = as_histories([[("a", "view"), ("b", "buy")]] * 8, ["a", "b", "c"], "view,buy")
        >>> args = ItemTrainingArguments(
        ...     output_dir=tempfile.mkdtemp(), max_steps=2, eval_strategy="no", disable_tqdm=True, use_cpu=True
        ... )
        >>> ItemTrainer(model, args, train).train().global_step
        2
    """

    args: ItemTrainingArguments

    def __init__(
        self,
        model: PreTrainedModel,
        args: ItemTrainingArguments,
        train: Histories,
        validation: Queries | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        augmentation_copies: int = 0,
    ) -> None:
        if validation is None and args.eval_strategy != "no":
            raise ValueError("`validation` queries are needed to validate. Give them, or set `eval_strategy='no'`.")
        self.recommender = SequentialRecommender(  # refuses a model of another catalog or ladder
            model, train.item_ids, train.ladder, batch_size=args.per_device_eval_batch_size
        )
        model.set_prior(item_counts(train))  # type: ignore[operator]
        if isinstance(model, GraphModel):
            model.set_graph(*(torch.from_numpy(part) for part in (train.rows, train.items, train.behaviors)))
        self.max_history_items = model.config.max_history_items
        targets = [len(train.ladder.names) - 1] if args.target_behaviors_only else None
        samples = item_samples(
            train,
            args.samples,
            self.max_history_items,
            targets,
            augmentation_copies=augmentation_copies,
            seed=args.seed,
        )
        self._set_ranking(validation, args)
        super().__init__(
            model,
            args,
            data_collator=ItemCollator(),
            train_dataset=samples,
            eval_dataset=None if validation is None else self._validation_samples(validation, args),
            tokens_per_epoch=int(sample_lengths(samples).sum()),
            callbacks=callbacks,
            optimizers=optimizers,
        )

    def get_train_dataloader(self) -> DataLoader:
        """Return this process's share of the length-bucketed batches."""
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        return self._loader(self.train_dataset, args.train_batch_size, pool_batches=args.bucket_batches, seed=seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return this process's share of the validation batches, longest first."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return self._loader(dataset, self.args.eval_batch_size, shuffle=False)

    def _loader(self, dataset: Any, batch_size: int, **options: Any) -> DataLoader:
        shares = {"num_processes": self.args.world_size, "process_index": self.args.process_index}
        total = batch_size * self.args.world_size
        sampler = LengthBucketBatchSampler(sample_lengths(dataset), total, **shares, **options)
        return self._dataloader(dataset, sampler, ItemCollator())

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the model's own loss of a batch."""
        output = model(**inputs)
        return (output.loss, output) if return_outputs else output.loss

    def floating_point_ops(self, inputs: Any) -> int:
        """Return the operations of a step, those of the scores left out."""
        return self._flops_per_token * inputs["items"].numel()

    def _set_ranking(self, validation: Queries | None, args: ItemTrainingArguments) -> None:
        """Choose the queries to rank for, their records, and what each is ranked among."""
        self.ranking_queries = ranking_subset(validation, args.max_ranking_queries, args.seed)
        self._tasks: list[Any] = []
        if self.ranking_queries is None:
            return
        ladder = self.ranking_queries.targets.ladder
        behaviors = [ladder.target] if args.ranking_behaviors == "target" else list(ladder.names)
        drawn = args.ranking_candidates
        for number, task in enumerate(ranking_tasks(self.ranking_queries, behaviors)):
            candidates = None if drawn is None else draw_candidates(task, drawn, args.seed + number)
            self._tasks.append((task, candidates))

    def _validation_ndcg(self) -> float | None:
        """Return the mean over all records; the first process ranks and tells the others."""
        total = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        if self.is_world_process_zero():
            assert self.ranking_queries is not None
            values = np.concatenate([ndcg_of(self.recommender, self.ranking_queries, *task) for task in self._tasks])
            total += torch.tensor([values.sum(), len(values)], dtype=torch.float64, device=total.device)
        ndcg_sum, num_records = self.accelerator.reduce(total, reduction="sum").tolist()
        return ndcg_sum / num_records

    @torch.no_grad()
    def _validation_loss(self, batches: DataLoader) -> float:
        """Return the mean loss of the samples; a batch counts by its labels."""
        total = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        for batch in batches:
            num_labels = int((batch["labels"] >= 0).sum())
            loss = float(self.model(**batch).loss) * num_labels
            total += torch.tensor([loss, num_labels], dtype=torch.float64, device=total.device)
        loss_sum, num_labels = self.accelerator.reduce(total, reduction="sum").tolist()
        return loss_sum / max(num_labels, 1)

    def _validation_samples(self, validation: Queries, args: ItemTrainingArguments) -> Any:
        """Return one sample per target of the validation queries, after the items that the model reads before it."""
        asked = validation.select(validation.histories.lengths > 0)
        samples = HistoryDataset.from_queries(Queries(asked.histories.last(self.max_history_items), asked.targets))
        return validation_subset(samples, args.max_validation_samples, args.seed)
