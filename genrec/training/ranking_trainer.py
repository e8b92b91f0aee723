"""`RankingTrainer`: trains a model that says how likely a shown item converts, with transformers' own `Trainer`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import SchedulerType

from genrec.evaluation.ranking_metrics import auroc, gauc
from genrec.training.ranking_samples import CONVERSION, IGNORED_LABEL, RankingCollator, RankingDataset


@dataclass
class RankingTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with other defaults: AdamW at a constant 1e-3, the best epoch by AUROC is kept.

    Example:
        >>> args = RankingTrainingArguments(output_dir="runs/din", use_cpu=True)
        >>> args.learning_rate, args.metric_for_best_model
        (0.001, 'eval_auroc')
    """

    learning_rate: float = 1e-3
    lr_scheduler_type: SchedulerType | str = "constant"
    weight_decay: float = 0.01
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    num_train_epochs: float = 10
    eval_strategy: str = "epoch"
    save_strategy: str = "best"
    save_total_limit: int | None = 1
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "eval_auroc"
    greater_is_better: bool | None = True
    remove_unused_columns: bool = False
    dataloader_pin_memory: bool = False
    label_names: list[str] | None = field(default_factory=lambda: ["labels"])
    report_to: str | list[str] | None = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class ScoredImpressions:
    """What a model says of shown items, and what came of them.

    Args:
        labels: 1 for conversions, 0 for exposures `[impressions]`.
        scores: Log-odds of a conversion `[impressions]`.
        users: Whose they were `[impressions]`.
    """

    labels: np.ndarray
    scores: np.ndarray
    users: np.ndarray

    def auroc(self) -> float:
        """Return the AUROC over all impressions."""
        return auroc(self.labels, self.scores)

    def gauc(self, is_weighted: bool = False) -> float:
        """Return the mean AUROC per user."""
        return gauc(self.labels, self.scores, self.users, is_weighted)


class RankingTrainer(Trainer):
    """Trains a ranking model and measures AUROC and GAUC.

    Args:
        model: `GamerForRanking`, or a model of `genrec.models.ranking`.
        args: How to train.
        train: The training samples: `RankingDataset.of_users` for `GamerForRanking`, which learns from whole histories,
            else `of_sessions`.
        validation: What chooses the epoch, needed unless `args.eval_strategy` is `"no"`.
        item_codes: The code of each item `[items, levels]`, for models that read codes and only for them.
        callbacks: Further callbacks, such as transformers' `EarlyStoppingCallback`.

    Raises:
        ValueError: If `item_codes` are missing, or would be ignored.

    Example:
        >>> import tempfile
        >>> from genrec.data.histories import as_histories
        >>> from genrec.models.ranking import DINConfig, DINModel
        >>> from genrec.training.ranking_samples import exposures_and_conversions
        >>> log = as_histories([[("a", "view"), ("b", "buy"), ("c", "view")]] * 8, ["a", "b", "c"], "view,buy")
        >>> train = RankingDataset.of_sessions(exposures_and_conversions(log, ["buy"]), max_history_items=50)
        >>> args = RankingTrainingArguments(
        ...     output_dir=tempfile.mkdtemp(), max_steps=2, eval_strategy="no", save_strategy="no",
        ...     load_best_model_at_end=False, disable_tqdm=True, use_cpu=True,
        ... )
        >>> trainer = RankingTrainer(DINModel(DINConfig(num_items=3)), args, train)
        >>> trainer.train().global_step, len(trainer.scored(train).scores)
        (2, 24)
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        train: RankingDataset | None = None,
        validation: RankingDataset | None = None,
        item_codes: Tensor | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        if (model.main_input_name == "codes") != (item_codes is not None):
            rule = (
                "reads codes: give `item_codes`" if item_codes is None else "reads catalog rows: leave `item_codes` out"
            )
            raise ValueError(f"{type(model).__name__} {rule}.")
        super().__init__(
            model=model,
            args=args,
            data_collator=RankingCollator(item_codes),
            train_dataset=train,
            eval_dataset=validation,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)

    def scored(self, dataset: RankingDataset) -> ScoredImpressions:
        """Return the scores of all candidates of a dataset."""
        output = self.predict(dataset)
        labels = np.asarray(output.label_ids)
        is_label = labels != IGNORED_LABEL
        users = np.broadcast_to(dataset.users[:, None], labels.shape)
        return ScoredImpressions(
            labels=(labels[is_label] == CONVERSION).astype(np.int64),
            scores=np.asarray(output.predictions)[is_label],
            users=users[is_label],
        )

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return and log AUROC and GAUC.

        Args:
            eval_dataset: Other samples than the validation ones.
            ignore_keys: Not used; here for `Trainer`.
            metric_key_prefix: What the metrics' names begin with.
        """
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        scored = self.scored(dataset)
        metrics = {f"{metric_key_prefix}_auroc": scored.auroc(), f"{metric_key_prefix}_gauc": scored.gauc()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
