import json
import time

import pytest
from transformers import TrainerControl, TrainerState

from genrec.files import read_json, write_json
from genrec.training.progress import MetricsFile, TrainingClock, best_validation, progress_line, training_report

CONTROL, NAN = TrainerControl(), float("nan")


def state_of(losses: list[float], step: int = 0, max_steps: int = 100) -> TrainerState:
    state = TrainerState(epoch=float(len(losses)), global_step=step, max_steps=max_steps, num_train_epochs=10)
    state.log_history = [
        {"eval_loss": loss, "epoch": float(number), "step": 10 * number, "seconds": 3.0 * number}
        for number, loss in enumerate(losses, start=1)
    ]
    return state


@pytest.mark.parametrize(
    ("losses", "best_epoch", "still_improving"),
    [
        ([1.0], 1.0, True),
        ([3.0, 2.0, 1.0], 3.0, True),
        ([3.0, 1.0, 2.0], 2.0, False),
        ([2.0] * 8 + [1.0, 1.5], 9.0, True),  # the last tenth of ten
        ([2.0] * 7 + [1.0, 1.5, 1.5], 8.0, False),
    ],
)
def test_the_report_names_the_best_epoch_and_says_whether_more_might_help(
    make_args, losses, best_epoch, still_improving
):
    report = training_report(state_of(losses), make_args())
    assert report["best_epoch"] == best_epoch
    assert report["best_step"] == 10 * best_epoch
    assert report["best_loss"] == min(losses)
    assert report["still_improving"] == still_improving


@pytest.mark.parametrize(
    ("step", "losses", "limits", "reason"),
    [
        (100, [1.0, 2.0], {"max_seconds": 5.0}, "schedule"),
        (20, [1.0, 2.0, 2.0], {"early_stopping_patience": 2, "max_seconds": 5.0}, "patience"),
        (20, [1.0, 2.0], {"early_stopping_patience": 2, "max_seconds": 5.0}, "time"),
        (20, [1.0, 2.0], {"early_stopping_patience": None}, "callback"),
    ],
)
def test_the_report_says_why_the_run_stopped(make_args, step, losses, limits, reason):
    assert training_report(state_of(losses, step), make_args(**limits))["stopped_by"] == reason


def test_a_run_without_validation_has_a_short_report(make_args):
    state = TrainerState(epoch=1.0, global_step=4, max_steps=4)
    report = training_report(state, make_args(eval_strategy="no"))
    assert report == {"epoch": 1.0, "step": 4, "stopped_by": "schedule"}


@pytest.mark.parametrize("losses", [[2.0, NAN], [NAN, 2.0], [2.0, float("-inf")], [3.0, NAN, 2.0, 4.0]])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_validation_that_is_not_finite_is_never_the_best(losses, sign):
    log = [{"eval_loss": sign * loss} for loss in losses]
    assert best_validation(log, "eval_loss", greater_is_better=sign < 0) == (losses.index(2.0), len(losses))


def test_the_report_of_a_run_without_a_finite_validation_can_be_written(make_args, tmp_path):
    report = training_report(state_of([NAN, NAN]), make_args())
    best = {name: report[name] for name in ("best_epoch", "best_step", "best_loss")}
    assert best == {"best_epoch": None, "best_step": None, "best_loss": None}
    assert (report["validations"], report["validations_since_best"], report["still_improving"]) == (2, 2, False)
    write_json(tmp_path / "report.json", report)
    assert read_json(tmp_path / "report.json") == report


def test_the_clock_goes_on_where_the_log_left_off(make_args):
    clock = TrainingClock(tokens_per_epoch=1000)
    clock.on_train_begin(make_args(), state_of([1.0, 1.0]), CONTROL)
    assert 6.0 <= clock.seconds < 7.0


def test_speed_leaves_out_what_is_paused(make_args):
    clock = TrainingClock(tokens_per_epoch=1000)
    began = time.perf_counter()
    time.sleep(0.05)
    pause_began = time.perf_counter()
    with clock.paused():
        time.sleep(0.2)
    paused = time.perf_counter() - pause_began
    spent = time.perf_counter() - began
    assert clock.tokens_per_second(epoch=0.5) == pytest.approx(500 / (spent - paused), rel=0.2)
    assert clock.seconds >= spent


def test_the_metrics_file_is_cut_back_to_the_checkpoint(make_args):
    args, state = make_args(), state_of([3.0, 2.0])
    state.is_world_process_zero = True
    file = MetricsFile()
    file.on_train_begin(args, state, CONTROL)
    state.log_history.append({"loss": float("nan"), "step": 21})
    file.on_log(args, state, CONTROL)
    with open(f"{args.output_dir}/metrics.jsonl") as lines:
        records = [json.loads(line) for line in lines]
    assert records == [*state_of([3.0, 2.0]).log_history, {"step": 21}]  # JSON has no NaN
    file.on_train_begin(args, state_of([3.0]), CONTROL)
    state.is_world_process_zero = False
    file.on_log(args, state, CONTROL)
    with open(f"{args.output_dir}/metrics.jsonl") as lines:
        assert len(list(lines)) == 1, "only the first process writes"


def test_a_line_says_where_the_run_stands_and_marks_the_best(make_args):
    logs = {"eval_loss": 2.0, "eval_ndcg@10": 0.125, "seconds": 3725.0}
    line = progress_line(logs, 1.5, state_of([3.0, 2.0], step=50), make_args())
    assert line == ("epoch 2/10  loss 1.5000  validation loss 2.0000  ndcg@10 0.1250  1:02:05, at most 1:02:05 left *")
    assert progress_line({"eval_loss": 3.0}, 1.5, state_of([2.0, 3.0]), make_args()).endswith("validation loss 3.0000")


def test_what_is_left_is_no_more_than_the_time_budget_leaves(make_args):
    logs = {"eval_loss": 2.0, "seconds": 50.0}
    line = progress_line(logs, 1.5, state_of([3.0, 2.0], step=50), make_args(max_seconds=60.0))
    assert "0:50, at most 0:10 left" in line
