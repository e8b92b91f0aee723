"""When a run ends before its schedule does: patience, and a budget of time. And when it logs beside its steps.

Neither rule has a state to save: both read the log that every checkpoint carries, so a resumed run stops where the
uninterrupted one would have.
"""

from collections.abc import Callable
from typing import Any

from transformers import IntervalStrategy, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from genrec.training.progress import best_validation


class EarlyStopping(TrainerCallback):
    """Stops after `patience` validations without a new best."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the validations since the best one."""
        metric = f"eval_{args.metric_for_best_model}"
        best, count = best_validation(state.log_history, metric, bool(args.greater_is_better))
        if count - 1 - best >= self.patience:
            control.should_training_stop = True


class TimeBudget(TrainerCallback):
    """Stops after the step in which the run's time is used up; validation and saving still follow.

    Args:
        max_seconds: How long the run may take.
        seconds_used: How long it has taken so far, the same answer in every process.
    """

    def __init__(self, max_seconds: float, seconds_used: Callable[[], float]) -> None:
        self.max_seconds = max_seconds
        self.seconds_used = seconds_used
        self.share_used = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start, or go on from what a stopped run had used."""
        self.share_used = self.seconds_used() / self.max_seconds

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the clock."""
        self.share_used = self.seconds_used() / self.max_seconds
        if control.should_training_stop or self.share_used <= 1:
            return
        control.should_training_stop = True
        # By epoch, transformers validates and saves after the loop that this ends; by steps it would not.
        control.should_evaluate |= args.eval_strategy == IntervalStrategy.STEPS
        control.should_save |= args.save_strategy == IntervalStrategy.STEPS.value


class EpochLog(TrainerCallback):
    """Logs the training loss at the end of each epoch too, so that short epochs have a curve."""

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a record."""
        control.should_log = args.logging_strategy != IntervalStrategy.NO
