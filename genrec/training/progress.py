"""What a run tells about itself: its clock, `metrics.jsonl`, the final report, and the lines on the screen."""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from genrec.files import write_atomically
from genrec.training.arguments import GenRecTrainingArguments

METRICS_FILE = "metrics.jsonl"
REPORT_FILE = "training_report.json"


class TrainingClock(TrainerCallback):
    """Counts a run's seconds and its speed, over interruptions, and keeps validation out of the speed.

    Args:
        tokens_per_epoch: Real tokens, no padding, in one pass over the training samples.
    """

    def __init__(self, tokens_per_epoch: int) -> None:
        self.tokens_per_epoch = tokens_per_epoch
        self._start(seconds=0.0, epoch=0.0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start, or go on from what the checkpoint's log says."""
        last = state.log_history[-1] if state.log_history else {}
        self._start(seconds=last.get("seconds", 0.0), epoch=state.epoch or 0.0)

    def _start(self, seconds: float, epoch: float) -> None:
        self._began = time.perf_counter() - seconds
        self._since_rate = time.perf_counter()
        self._paused = 0.0
        self._epoch = epoch

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far."""
        return time.perf_counter() - self._began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside out of the training speed."""
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    def tokens_per_second(self, epoch: float) -> float:
        """Return the training speed since this was last asked; `epoch` is a fraction such as 2.5."""
        now = time.perf_counter()
        tokens = (epoch - self._epoch) * self.tokens_per_epoch
        seconds = max(now - self._since_rate - self._paused, 1e-9)
        self._since_rate, self._paused, self._epoch = now, 0.0, epoch
        return tokens / seconds


def validations(log: Sequence[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    """Return the records of a log that hold the metric, oldest first."""
    return [record for record in log if metric in record]


def best_validation(log: Sequence[Mapping[str, Any]], metric: str, greater_is_better: bool) -> tuple[int, int]:
    """Return the position of the best validation (the first, if several tie) and how many validations there were.

    One that is not finite is never the best; the position is -1 where none is.

    >>> log = [{"loss": 3.0}, {"eval_loss": 2.0}, {"eval_loss": 1.0}, {"eval_loss": 1.5}]
    >>> best_validation(log, "eval_loss", greater_is_better=False)
    (1, 3)
    """
    values = np.array([record[metric] for record in validations(log, metric)], dtype=np.float64)
    gains = np.where(np.isfinite(values), values if greater_is_better else -values, -np.inf)
    has_best = np.isfinite(values).any()
    return int(np.argmax(gains)) if has_best else -1, len(values)


def training_report(state: TrainerState, args: GenRecTrainingArguments) -> dict[str, Any]:
    """Say how a run went: its best validation, why it stopped, and whether it was still improving.

    A run counts as still improving if its best validation is among the last tenth of them: more training might well
    have given a better model.

    Returns:
        `best_epoch`, `best_step`, `best_<metric>`, `validations`, `validations_since_best`, `still_improving`,
        `stopped_by` (`"schedule"`, `"patience"`, `"time"` or `"callback"`), `epoch` and `step`. The best ones are None
        where no validation was finite.
    """
    metric = f"eval_{args.selection_metric}"
    best, count = best_validation(state.log_history, metric, bool(args.greater_is_better))
    since_best = count - 1 - best
    report: dict[str, Any] = {
        "epoch": state.epoch,
        "step": state.global_step,
        "stopped_by": _reason(state, args, since_best),
    }
    if count == 0:
        return report
    record = validations(state.log_history, metric)[best] if best >= 0 else {}
    return report | {
        "best_epoch": record.get("epoch"),
        "best_step": record.get("step"),
        f"best_{args.selection_metric}": record.get(metric),
        "validations": count,
        "validations_since_best": since_best,
        "still_improving": since_best <= count // 10,
    }


def _reason(state: TrainerState, args: GenRecTrainingArguments, since_best: int) -> str:
    if state.global_step >= state.max_steps:
        return "schedule"
    if args.early_stopping_patience is not None and since_best >= args.early_stopping_patience:
        return "patience"
    return "callback" if args.max_seconds is None else "time"


class MetricsFile(TrainerCallback):
    """Writes every logged record as one line of `metrics.jsonl` in the output folder.

    A resumed run first cuts the file back to its checkpoint, so that no step stands in it twice.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the file with what the checkpoint remembers."""
        if state.is_world_process_zero:
            with write_atomically(self._path(args)) as temporary:
                temporary.write_text("".join(_line(record) for record in state.log_history), encoding="utf-8")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Append the newest record."""
        if state.is_world_process_zero:
            with self._path(args).open("a", encoding="utf-8") as file:
                file.write(_line(state.log_history[-1]))

    def _path(self, args: TrainingArguments) -> Path:
        return Path(args.output_dir or ".") / METRICS_FILE


def _line(record: Mapping[str, Any]) -> str:
    finite = {name: value for name, value in record.items() if not isinstance(value, float) or math.isfinite(value)}
    return json.dumps(finite, allow_nan=False) + "\n"


class ProgressLines(TrainerCallback):
    """Shows a bar with the time left on a terminal, and one line per validation everywhere.

    Silent under `disable_tqdm`. Writes to standard error, so that a program's output stays its own.
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._loss = float("nan")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar where the run stands."""
        if state.is_world_process_zero and not args.disable_tqdm:
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                unit="step",
                file=sys.stderr,
                dynamic_ncols=True,
                disable=not sys.stderr.isatty(),
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print a line for a validation, and remember the training loss for it."""
        logs = logs or {}
        self._loss = logs.get("loss", self._loss)
        if self._bar is not None and "eval_loss" in logs:
            self._bar.write(progress_line(logs, self._loss, state, args), file=sys.stderr)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def progress_line(logs: Mapping[str, Any], loss: float, state: TrainerState, args: TrainingArguments) -> str:
    """Say in one line where the run stands; `*` marks the best validation so far."""
    figures = [f"epoch {state.epoch or 0:.4g}/{state.num_train_epochs:.4g}", f"loss {loss:.4f}"]
    figures.append(f"validation loss {logs['eval_loss']:.4f}")
    if "eval_ndcg@10" in logs:
        figures.append(f"ndcg@10 {logs['eval_ndcg@10']:.4f}")
    best, count = best_validation(state.log_history, f"eval_{args.metric_for_best_model}", bool(args.greater_is_better))
    mark = " *" if count and best == count - 1 else ""
    if "seconds" in logs and state.global_step:
        left = logs["seconds"] * (state.max_steps / state.global_step - 1)
        budget = getattr(args, "max_seconds", None)
        if budget is not None:
            left = max(0.0, min(left, budget - logs["seconds"]))
        figures.append(f"{_duration(logs['seconds'])}, at most {_duration(left)} left")
    return "  ".join(figures) + mark


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
