"""`GenRecTrainingArguments`: transformers' training arguments with what generative recommendation adds, and presets."""

import difflib
import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from transformers import IntervalStrategy, SchedulerType, TrainingArguments

SELECTION_METRICS = ("ndcg@10", "loss")

# Wang et al., GAMER; learning rate, warm-up, epochs and selection are the paper's, temperature, patience and weight
# decay those of its released code.
PAPER = {
    "total_batch_size": 4096,
    "per_device_train_batch_size": 128,
    "per_device_eval_batch_size": 128,
    "learning_rate": 5e-4,
    "warmup_steps": 0.04,
    "lr_scheduler_type": "cosine_with_min_lr",
    "weight_decay": 0.01,
    "num_train_epochs": 200,
    "early_stopping_patience": 20,
    "temperature": 0.7,
    "selection_metric": "loss",
}

# A few minutes on a few cores: small batches, because the number of updates is what limits such a run.
SMALL = {
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 256,
    "learning_rate": 2e-3,
    "warmup_steps": 0.04,
    "num_train_epochs": 20,
    "early_stopping_patience": 5,
    "max_ranking_queries": 500,
    "max_validation_samples": 2000,
}

PRESETS: dict[str, dict[str, Any]] = {"paper": PAPER, "small": SMALL}


@dataclass
class GenRecTrainingArguments(TrainingArguments):
    """How `GenRecTrainer` trains: every field of `transformers.TrainingArguments`, and those below.

    Differs from transformers' defaults: validates and saves once per epoch, keeps the last and the best checkpoint and
    restores the best at the end (unless `eval_strategy="no"`), decays the learning rate along a cosine to `min_lr`, and
    stops on a loss that is not finite instead of hiding it in an average.

    Args:
        temperature: Divides the logits in the loss, in training and validation.
        max_history_items: Rows hold a user's last so many interactions and one more; None takes the model's own
            `max_history_items`.
        causal_share: Train a session-wise model with the plain causal mask and positions for this share of the steps
            first, or of `max_seconds` where that is used up sooner, in [0, 1). Inside a session the next behavior often
            goes to the same item, so the causal mask soon teaches to repeat an item's code; the session mask alone,
            which hides that, learns it late. Validation is session-wise throughout.
        min_lr: The learning rate at the end of the cosine.
        pointer_lr_factor: The pointers of a mixture (`copy_head` and the like) learn at `learning_rate` times this.
            They have few weights and learn from the few items that are met again, so more than 1 pays.
        ema_decay: Validate and save an exponential moving average of the weights, of which so much stays at each step
            (see `genrec.training.averaging`); 0 takes the weights themselves.
        total_batch_size: Samples per update over all processes; sets `gradient_accumulation_steps`. None leaves
            that to you.
        max_tokens_per_micro_batch: Cut each process's share of an update into micro-batches of nearly equal size, with
            at most so many tokens each, padding included, whose gradients add up. An update then holds
            `total_batch_size` samples, or without it `per_device_train_batch_size` per process. None passes
            `per_device_train_batch_size` samples through the model at once.
        packing: Whether several users share a row, as many as fit; they do not see each other, and the loss is the
            same. Batches are then drawn regardless of length.
        selection_metric: Which validation figure chooses the checkpoint and stops the run: `"ndcg@10"` (merged over
            behaviors) or `"loss"`.
        early_stopping_patience: Stop after so many validations without a new best; None never does.
        max_seconds: Wall-clock budget of the whole run, resumed parts included; the step in which it ends is the last,
            then follow validation and saving. The learning rate falls to its end within it: it follows the clock where
            that is further than the steps, and the result then depends on the machine's speed.
        max_validation_samples: Compute the validation loss on at most so many samples, the same ones each time; None
            takes all.
        max_ranking_queries: Rank for at most so many validation queries, the same ones each time; None takes all.
        ranking_num_beams: Beam width of that ranking.
        bucket_batches: Batches per pool that is sorted by length; 1 draws batches regardless of length.
        pad_to_multiple_of: Round the interactions per row up to a multiple, for fewer shapes to compile.
        data_on_device: Whether all training samples lie on the model's device as integers (20 bytes per interaction)
            and batches are made there. With `dataloader_num_workers` the workers read samples on the host instead.

    Raises:
        ValueError: If a value is out of range, or two settings contradict each other.

    Example:
        >>> args = GenRecTrainingArguments(output_dir="runs/mine", selection_metric="loss", use_cpu=True)
        >>> args.metric_for_best_model, args.greater_is_better, args.eval_strategy.value
        ('loss', False, 'epoch')
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    temperature: float = 1.0
    causal_share: float = 0.0
    max_history_items: int | None = None
    min_lr: float = 0.0
    pointer_lr_factor: float = 1.0
    ema_decay: float = 0.0
    total_batch_size: int | None = None
    max_tokens_per_micro_batch: int | None = None
    packing: bool = False
    selection_metric: str = "ndcg@10"
    early_stopping_patience: int | None = 10
    max_seconds: float | None = None
    max_validation_samples: int | None = None
    max_ranking_queries: int | None = 1000
    ranking_num_beams: int = 20
    bucket_batches: int = 16
    pad_to_multiple_of: int = 1
    data_on_device: bool = True

    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 128
    learning_rate: float = 5e-4
    lr_scheduler_type: SchedulerType | str = "cosine_with_min_lr"
    warmup_steps: float = 0.04
    weight_decay: float = 0.01
    num_train_epochs: float = 20
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 2
    load_best_model_at_end: bool = True
    logging_steps: float = 50
    logging_nan_inf_filter: bool = False
    remove_unused_columns: bool = False
    ddp_find_unused_parameters: bool | None = False
    report_to: str | list[str] | None = field(default_factory=list)

    def __post_init__(self) -> None:
        self._check_ranges()
        self._derive_selection()
        self._derive_schedule()
        super().__post_init__()
        self._derive_accumulation()

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "GenRecTrainingArguments":
        """Return the arguments of a named preset.

        Args:
            name: `"paper"`, the values of GAMER (4096 samples per update, 200 epochs, lowest validation loss), or
                `"small"`, a few minutes on a CPU.
            overrides: Fields to set otherwise.

        Raises:
            ValueError: If there is no such preset or no such field.

        Example:
            >>> args = GenRecTrainingArguments.preset("paper", output_dir="runs/paper", min_lr=1e-5, use_cpu=True)
            >>> args.gradient_accumulation_steps, args.learning_rate, args.temperature
            (32, 0.0005, 0.7)
        """
        if name not in cls.PRESETS:
            raise ValueError(f"There is no training preset {name!r}. Choose one of: {', '.join(cls.PRESETS)}.")
        valid = [argument.name for argument in fields(cls) if argument.init]
        for key in overrides:
            if key not in valid:
                nearest = difflib.get_close_matches(key, valid, n=1)
                hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
                raise ValueError(f"There is no training argument `{key}`.{hint}")
        return cls(**{**cls.PRESETS[name], **overrides})

    @property
    def samples_per_step(self) -> int:
        """Samples that all processes together take from the data at once: a batch, or with a token budget an update."""
        if self.max_tokens_per_micro_batch is not None and self.total_batch_size is not None:
            return self.total_batch_size
        return self.train_batch_size * self.world_size

    def _check_ranges(self) -> None:
        def require(is_met: bool, name: str, rule: str) -> None:
            if not is_met:
                raise ValueError(f"`{name}` must be {rule}, got {getattr(self, name)!r}.")

        require(self.temperature > 0 and math.isfinite(self.temperature), "temperature", "positive and finite")
        require(0 <= self.causal_share < 1, "causal_share", "at least 0 and below 1")
        require(self.pointer_lr_factor > 0, "pointer_lr_factor", "above 0")
        require(0 <= self.ema_decay < 1, "ema_decay", "at least 0 and below 1")
        require(0 <= self.min_lr <= self.learning_rate, "min_lr", f"from 0 to `learning_rate` ({self.learning_rate})")
        require(
            self.selection_metric in SELECTION_METRICS, "selection_metric", f"one of {', '.join(SELECTION_METRICS)}"
        )
        for name in (
            "max_history_items",
            "total_batch_size",
            "max_tokens_per_micro_batch",
            "early_stopping_patience",
            "max_validation_samples",
            "max_ranking_queries",
        ):
            require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1, or None")
        require(self.max_seconds is None or self.max_seconds > 0, "max_seconds", "positive, or None")
        for name in ("bucket_batches", "pad_to_multiple_of"):
            require(getattr(self, name) >= 1, name, "at least 1")
        require(self.ranking_num_beams >= 10, "ranking_num_beams", "at least 10, the cut-off of NDCG@10")

    def _derive_selection(self) -> None:
        for name, value in (
            ("metric_for_best_model", self.selection_metric),
            ("greater_is_better", self.selection_metric != "loss"),
        ):
            if getattr(self, name) not in (None, value):
                raise ValueError(
                    f"`{name}` follows from `selection_metric={self.selection_metric!r}` and would be {value!r}, got "
                    f"{getattr(self, name)!r}. Set only `selection_metric`."
                )
            setattr(self, name, value)
        if self.eval_strategy in ("no", IntervalStrategy.NO):
            self.load_best_model_at_end = False

    def _derive_schedule(self) -> None:
        if SchedulerType(self.lr_scheduler_type) == SchedulerType.COSINE_WITH_MIN_LR:
            self.lr_scheduler_kwargs = {"min_lr": self.min_lr}
        elif self.min_lr > 0:
            raise ValueError(
                f"`min_lr={self.min_lr}` would be ignored by `lr_scheduler_type={self.lr_scheduler_type!r}`. Use "
                "'cosine_with_min_lr', or leave `min_lr` out."
            )

    def _derive_accumulation(self) -> None:
        if self.max_tokens_per_micro_batch is not None:
            if self.gradient_accumulation_steps != 1:
                raise ValueError(
                    f"`gradient_accumulation_steps={self.gradient_accumulation_steps}` contradicts "
                    "`max_tokens_per_micro_batch`, which decides how often gradients are added up. Set "
                    "`total_batch_size` to the samples per update instead."
                )
            return
        if self.total_batch_size is None:
            return
        per_step = self.train_batch_size * self.world_size
        if self.total_batch_size % per_step != 0:
            raise ValueError(
                f"`total_batch_size` ({self.total_batch_size}) must be a multiple of what all processes take at once, "
                f"{per_step} ({self.train_batch_size} per process). Lower `per_device_train_batch_size`."
            )
        steps = self.total_batch_size // per_step
        if self.gradient_accumulation_steps not in (1, steps):
            raise ValueError(
                f"`gradient_accumulation_steps={self.gradient_accumulation_steps}` contradicts "
                f"`total_batch_size={self.total_batch_size}`, which needs {steps}. Set only one of them."
            )
        self.gradient_accumulation_steps = steps
