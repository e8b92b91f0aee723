"""`ItemTrainingArguments`: how a model that scores items is trained, and presets."""

from dataclasses import dataclass, fields
from typing import Any

from transformers import SchedulerType, TrainingArguments

from genrec.training.arguments import GenRecTrainingArguments
from genrec.training.item_samples import LEVELS

RANKED_BEHAVIORS = ("merged", "target")
SHARED_FIELDS = (  # of those that `GenRecTrainingArguments` adds; the others are about generating codes
    "min_lr",
    "ema_decay",
    "total_batch_size",
    "selection_metric",
    "early_stopping_patience",
    "max_seconds",
    "max_validation_samples",
    "max_ranking_queries",
    "bucket_batches",
)

# Wang et al., GAMER, appendix A, as its released code trains the discriminative baselines.
ITEM_PAPER = {
    "samples": "interaction",
    "total_batch_size": 4096,
    "per_device_train_batch_size": 512,
    "num_train_epochs": 200,
    "ranking_candidates": 1000,
    "ranking_behaviors": "target",
    "max_ranking_queries": None,
}

ITEM_SMALL = {"num_train_epochs": 60, "max_ranking_queries": 500}

ITEM_PRESETS: dict[str, dict[str, Any]] = {"paper": ITEM_PAPER, "small": ITEM_SMALL}


@dataclass
class ItemTrainingArguments(GenRecTrainingArguments):
    """How `ItemTrainer` trains: the fields of `transformers.TrainingArguments`, those of `GenRecTrainingArguments` that
    are not about codes (`min_lr`, `ema_decay`, `total_batch_size`, `selection_metric`, `early_stopping_patience`,
    `max_seconds`, `max_validation_samples`, `max_ranking_queries`, `bucket_batches`), and those below.

    By default AdamW with a constant learning rate of 1e-3 and weight decay 0.01, patience 10.

    Args:
        samples: `"window"`, all of a user's interactions, cut into as many samples as it takes, `"user"`, the last ones
            alone, or `"interaction"`, one sample per interaction with the history of earlier sessions (see
            `genrec.training.item_samples`).
        target_behaviors_only: Whether only the target behavior's interactions are targets; needs
            `samples="interaction"`.
        ranking_candidates: Rank each validation query among so many items, its targets and random ones; None ranks the
            whole catalog.
        ranking_behaviors: Which behaviors' validation NDCG@10 chooses the checkpoint: `"merged"`, all of them, or
            `"target"`.

    Raises:
        ValueError: If a value is out of range, two settings contradict each other, or a setting of generative models
            would be ignored.

    Example:
        >>> args = ItemTrainingArguments.preset("paper", output_dir="runs/sasrec", use_cpu=True)
        >>> args.samples, args.ranking_candidates, args.early_stopping_patience, args.learning_rate
        ('interaction', 1000, 10, 0.001)
    """

    samples: str = "window"
    target_behaviors_only: bool = False
    ranking_candidates: int | None = None
    ranking_behaviors: str = "merged"

    learning_rate: float = 1e-3
    lr_scheduler_type: SchedulerType | str = "constant"
    warmup_steps: float = 0
    num_train_epochs: float = 200
    per_device_eval_batch_size: int = 256

    PRESETS = ITEM_PRESETS

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("samples", LEVELS)
        self._check_choice("ranking_behaviors", RANKED_BEHAVIORS)
        if self.ranking_candidates is not None and self.ranking_candidates < 2:
            raise ValueError(f"`ranking_candidates` must be at least 2, or None, got {self.ranking_candidates}.")
        if self.target_behaviors_only and self.samples != "interaction":
            raise ValueError(
                f"`target_behaviors_only` would be ignored with `samples={self.samples!r}`. Set 'interaction'."
            )
        for name in ignored_fields():
            if getattr(self, name) != _default_of(name):
                raise ValueError(
                    f"`{name}={getattr(self, name)!r}` would be ignored: it is about generating codes. Remove it."
                )

    def _check_choice(self, name: str, known: tuple[str, ...]) -> None:
        if getattr(self, name) not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {getattr(self, name)!r}.")


def ignored_fields() -> tuple[str, ...]:
    """Return the fields of `GenRecTrainingArguments` that mean nothing for a model that scores items."""
    own = {field.name for field in fields(GenRecTrainingArguments) if field.init}
    added = own - {field.name for field in fields(TrainingArguments)} - set(SHARED_FIELDS)
    return tuple(sorted(added))


def _default_of(name: str) -> Any:
    return next(field.default for field in fields(GenRecTrainingArguments) if field.name == name)
