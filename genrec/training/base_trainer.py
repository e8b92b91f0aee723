"""What all trainers of recommenders share: the run's clock and files, checkpoints, stopping rules, validation."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, set_seed
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from genrec.files import write_json
from genrec.training.arguments import GenRecTrainingArguments
from genrec.training.averaging import WeightAverage
from genrec.training.callbacks import EarlyStopping, EpochLog, TimeBudget
from genrec.training.checkpoints import check_checkpoint, check_folder_is_free, newest_checkpoint_or_raise
from genrec.training.device_dataset import DeviceDataset
from genrec.training.progress import REPORT_FILE, MetricsFile, ProgressLines, TrainingClock, training_report
from genrec.training.samplers import LengthBucketBatchSampler
from genrec.training.schedule import keep_to_budget

ARGUMENTS_FILE = "training_arguments.json"


class RecommenderTrainer(Trainer):
    """transformers' `Trainer` with validation by ranking, a run that can be followed, stopped and gone on with.

    A subclass makes samples and batches and says what validation measures (`_validation_loss`, `_validation_ndcg`).

    Args:
        model: The model.
        args: How to train.
        data_collator: Makes training batches.
        train_dataset: Training samples.
        eval_dataset: Validation samples.
        tokens_per_epoch: What one pass over the training samples counts, for the speed in the log.
        callbacks: Further callbacks.
        optimizers: An optimizer and a learning-rate schedule of your own, or None for those of `args`.
    """

    args: GenRecTrainingArguments
    model: Any  # what accelerate makes of the model keeps its attributes

    def __init__(
        self,
        model: PreTrainedModel,
        args: GenRecTrainingArguments,
        *,
        data_collator: Callable[..., Any],
        train_dataset: Any,
        eval_dataset: Any,
        tokens_per_epoch: int,
        callbacks: list[TrainerCallback] | None,
        optimizers: tuple[Any, Any],
    ) -> None:
        self._flops_per_token = 6 * model.num_parameters(exclude_embeddings=True)
        self._use_cache = getattr(model.config, "use_cache", False)
        self.average = WeightAverage(model, args.ema_decay) if args.ema_decay else None
        self.clock = TrainingClock(tokens_per_epoch)
        self.time_budget = None if args.max_seconds is None else TimeBudget(args.max_seconds, self._seconds_used)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=[*self._own_callbacks(args), *(callbacks or [])],
            optimizers=optimizers,
        )
        for callback in (PrinterCallback, DEFAULT_PROGRESS_CALLBACK):
            self.remove_callback(callback)
        self.add_callback(ProgressLines())

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, restore the best checkpoint, and write `training_report.json`.

        Args:
            resume_from_checkpoint: A checkpoint folder to go on from, or True for the newest whole one in the output
                folder. The result is then, to the bit, that of a run that was never interrupted, unless `max_seconds`
                cuts it short.
            trial: As in `Trainer.train`.
            ignore_keys_for_eval: Not used; here for `Trainer`.

        Raises:
            ValueError: If there is no such checkpoint, it is corrupt or another model's, if a new run would write into
                the folder of another, or if the loss stops being finite.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = newest_checkpoint_or_raise(self.args.output_dir)
        if resume_from_checkpoint:
            check_checkpoint(resume_from_checkpoint)
        else:
            check_folder_is_free(self.args.output_dir)
        set_seed(self.args.seed + self.args.process_index)  # processes must not drop the same units
        try:
            output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        finally:
            self.model.config.use_cache = self._use_cache  # transformers turns it off for training
        if self.average is not None and self.average.is_kept:  # no best checkpoint was asked for
            self.average.take_over()
        if self.is_world_process_zero():
            write_json(Path(self.args.output_dir or ".") / REPORT_FILE, self.report())
        return output

    def report(self) -> dict[str, Any]:
        """Say how the run went so far (see `training_report`), with its `seconds`."""
        return {**training_report(self.state, self.args), "seconds": round(self.clock.seconds, 3)}

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Return the learning-rate schedule; under `max_seconds` it ends when the time does (`training.schedule`)."""
        is_new = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        budget = self.time_budget
        if is_new and budget is not None and isinstance(scheduler, LambdaLR):
            keep_to_budget(scheduler, num_training_steps, lambda: budget.share_used)
        return scheduler

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return and log the validation loss and, with validation queries to rank for, NDCG@10.

        Args:
            eval_dataset: Other samples than those given to the trainer; there is then no ranking.
            ignore_keys: Not used; here for `Trainer`.
            metric_key_prefix: What the metrics' names begin with.
        """
        self.model.eval()
        with self.clock.paused(), self._averaged():
            metrics = {f"{metric_key_prefix}_loss": self._validation_loss(self.get_eval_dataloader(eval_dataset))}
            ndcg = self._validation_ndcg() if eval_dataset is None else None
        if ndcg is not None:
            metrics[f"{metric_key_prefix}_ndcg@10"] = ndcg
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _validation_loss(self, batches: DataLoader) -> float:
        """Return the mean loss over batches of validation samples."""
        raise NotImplementedError

    def _validation_ndcg(self) -> float | None:
        """Return NDCG@10 of the validation queries, None if there are none to rank for."""
        raise NotImplementedError

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Log a record, with the run's seconds and speed; the last one says how the run went.

        Raises:
            ValueError: If the training loss is not finite.
        """
        if "train_loss" in logs:  # transformers' closing record
            logs = {"train_loss": logs["train_loss"], **training_report(self.state, self.args)}
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise ValueError(
                    f"The training loss is {logs['loss']} at step {self.state.global_step}: the run diverged. Lower "
                    f"`learning_rate` ({self.args.learning_rate}) or raise `warmup_steps` ({self.args.warmup_steps})."
                )
            logs["tokens_per_second"] = round(self.clock.tokens_per_second(self.state.epoch or 0.0), 1)
        logs["seconds"] = round(self.clock.seconds, 3)
        super().log(logs, start_time)

    def _dataloader(self, dataset: Any, sampler: LengthBucketBatchSampler, collator: Callable[..., Any]) -> DataLoader:
        loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self._pins_memory(dataset),
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        # The sampler has dealt the batches out already: one process, as far as accelerate is concerned.
        return prepare_data_loader(
            loader, device=self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def _pins_memory(self, dataset: Any) -> bool:
        is_on_host = not isinstance(dataset, DeviceDataset)
        return is_on_host and self.args.dataloader_pin_memory and torch.cuda.is_available()

    def _own_callbacks(self, args: GenRecTrainingArguments) -> list[TrainerCallback]:
        averages = [] if self.average is None else [self.average]
        return [self.clock, *averages, EpochLog(), *self._stopping_rules(args), MetricsFile()]

    def _stopping_rules(self, args: GenRecTrainingArguments) -> list[TrainerCallback]:
        rules: list[TrainerCallback] = []
        if args.early_stopping_patience is not None and args.eval_strategy != "no":
            rules.append(EarlyStopping(args.early_stopping_patience))
        if self.time_budget is not None:
            rules.append(self.time_budget)
        return rules

    def _share_done(self) -> float:
        """Return how much of the run is over, 0 to 1: of its steps, or of its time budget where that is further."""
        of_steps = self.state.global_step / self.state.max_steps if self.state.max_steps else 1.0  # 0 before a run
        return of_steps if self.time_budget is None else max(of_steps, min(self.time_budget.share_used, 1.0))

    def _seconds_used(self) -> float:
        """Return how long the run has taken, as the first process's clock says it to all."""
        if self.args.world_size == 1:
            return self.clock.seconds
        seconds = torch.tensor(self.clock.seconds, device=self.accelerator.device)
        torch.distributed.broadcast(seconds, src=0)
        return float(seconds)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save weights, config and arguments; `Trainer` would pickle the arguments."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir or ".")
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if self.average is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.average.save_step_weights(folder)
            state_dict = None  # it would be that of the step
        with self._averaged():
            model.save_pretrained(folder, state_dict=state_dict)
        write_json(folder / ARGUMENTS_FILE, json.loads(self.args.to_json_string()))

    def _averaged(self) -> AbstractContextManager[None]:
        """Put the average of the weights, if there is one, into the model for a while."""
        return nullcontext() if self.average is None else self.average.in_place()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average is not None:
            self.average.resume(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.average is not None:
            self.average.drop()  # the best checkpoint holds an average already
        super()._load_best_model()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with _quiet():  # no bar over one file, no word about the clock of the file system
            super()._save_checkpoint(*args, **kwargs)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse weights of another model; tied weights are stored once and so always missing."""
        tied = set(self.model.all_tied_weights_keys)
        strange = sorted((set(load_result.missing_keys) - tied) | set(load_result.unexpected_keys))
        if strange:
            raise ValueError(
                f"The checkpoint is not of this model: {strange[0]!r} is in only one of them. Resume with the config "
                "that the run was started with."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own progress bars and warnings off the screen for a while."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()
