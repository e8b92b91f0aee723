import math

import pytest
from transformers import TrainerCallback


class RatesSeen(TrainerCallback):
    """Notes the learning rate that each step is taken with."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_pre_optimizer_step(self, args, state, control, optimizer, **kwargs):
        self.seen.append(optimizer.param_groups[0]["lr"])


class SteadyClock:
    """Says that every step takes as long."""

    def __init__(self, seconds_per_step: float) -> None:
        self.seconds_per_step, self.steps = seconds_per_step, -1

    def __call__(self) -> float:
        self.steps += 1
        return self.seconds_per_step * self.steps


def rates_of(make_trainer, seconds_per_step: float | None, **settings) -> tuple[list[float], int]:
    rates = RatesSeen()
    trainer = make_trainer(
        learning_rate=1e-3, warmup_steps=0, eval_strategy="no", save_strategy="no", callbacks=[rates], **settings
    )
    if seconds_per_step is not None:
        trainer.time_budget.seconds_used = SteadyClock(seconds_per_step)
    trainer.train()
    return rates.seen, trainer.state.max_steps


def test_a_run_that_its_budget_cuts_short_ends_at_the_end_of_its_schedule(make_trainer):
    rates, planned = rates_of(make_trainer, 10.0, max_steps=1000, max_seconds=100.0)
    assert planned == 1000
    shares = [0.0, 0.001, *(step / 10 for step in range(1, 10))]  # the clock is read after a step, for the next but one
    assert rates == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * share)) for share in shares], abs=1e-9)


def test_a_run_well_within_its_budget_keeps_its_schedule(make_trainer):
    rates, _ = rates_of(make_trainer, 1.0, max_steps=20, max_seconds=1000.0)
    assert rates == rates_of(make_trainer, None, max_steps=20)[0]


def test_a_budget_read_from_a_stopped_run_counts_from_the_first_step(make_trainer):
    trainer = make_trainer(max_steps=1000, max_seconds=100.0)
    trainer.time_budget.seconds_used = lambda: 60.0
    trainer.time_budget.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert trainer.time_budget.share_used == 0.6
