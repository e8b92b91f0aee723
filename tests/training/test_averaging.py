"""The moving average of the weights, against a naive one kept beside the training, and through a resumed run."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from genrec.training.averaging import STEP_WEIGHTS_FILE, WeightAverage

BY_STEPS = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2, "logging_steps": 1}


class Naive(TrainerCallback):
    """Averages the weights of all steps by the definition, with Python numbers as factors."""

    def __init__(self, decay):
        self.decay, self.average, self.after = decay, None, {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.average = {name: weight.detach().double().clone() for name, weight in model.named_parameters()}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        step = state.global_step
        kept = min(self.decay, (1 + step) / (10 + step))
        self.average = {
            name: kept * self.average[name] + (1 - kept) * weight.detach().double()
            for name, weight in model.named_parameters()
        }
        self.after[step] = self.average


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def assert_close(model, average):
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.double(), average[name], rtol=1e-5, atol=1e-6, msg=name)


def test_the_first_updates_forget_faster():
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 0.0)
    average = WeightAverage(layer, decay=0.9)
    torch.nn.init.constant_(layer.weight, 1.0)
    average.update(num_steps=1)  # 2 / 11 of the old one stays
    with average.in_place():
        assert layer.weight.item() == pytest.approx(9 / 11)
    average.update(num_steps=1000)  # 0.9 of it
    with average.in_place():
        assert layer.weight.item() == pytest.approx(0.9 * 9 / 11 + 0.1)


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_without_a_best_checkpoint_the_average_of_all_steps_is_what_remains(make_trainer, decay):
    naive = Naive(decay)
    trainer = make_trainer(ema_decay=decay, eval_strategy="no", num_train_epochs=3, callbacks=[naive])
    trainer.train()
    assert len(naive.after) == 12
    assert_close(trainer.model, naive.after[12])
    assert not trainer.average.is_kept


def test_checkpoints_hold_the_average_of_their_step_and_the_best_one_remains(make_trainer, tmp_path):
    naive = Naive(0.8)
    trainer = make_trainer(ema_decay=0.8, num_train_epochs=2, callbacks=[naive], **BY_STEPS, save_total_limit=None)
    trainer.train()
    best = trainer.report()["best_step"]
    assert_close(trainer.model, naive.after[best])
    for step in (2, 4, 6, 8):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        saved = load_file(folder / "model.safetensors")
        for name, average in naive.after[step].items():
            if name in saved:  # tied weights are stored once
                torch.testing.assert_close(saved[name].double(), average, rtol=1e-5, atol=1e-6)
        of_step = load_file(folder / STEP_WEIGHTS_FILE)
        assert any((of_step[name] != saved[name]).any() for name in saved if name in of_step)


def test_validation_sees_the_average_and_training_goes_on_without_it(make_trainer, tmp_path):
    """The steps of a run are the same with and without; its validation losses are not."""
    curves, weights = {}, {}
    for decay in (0.0, 0.9):
        trainer = make_trainer(ema_decay=decay, output_dir=str(tmp_path / str(decay)), **BY_STEPS)
        trainer.train()
        history = trainer.state.log_history
        curves[decay] = [record["loss"] for record in history if "loss" in record]
        weights[decay] = [record["eval_loss"] for record in history if "eval_loss" in record]
    assert curves[0.0] == curves[0.9]
    assert weights[0.0] != weights[0.9]


def test_a_killed_run_resumes_to_the_bit(make_trainer, make_model, tmp_path):
    settings = {"ema_decay": 0.8, "num_train_epochs": 3, **BY_STEPS}
    whole = make_trainer(**settings, output_dir=str(tmp_path / "whole"))
    whole.train()
    killed = make_trainer(**settings, output_dir=str(tmp_path / "killed"), callbacks=[StopAt(7)])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = make_trainer(model=make_model(seed=99), **settings, output_dir=str(tmp_path / "killed"))
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 12
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_a_checkpoint_without_an_average_is_refused(make_trainer):
    make_trainer(num_train_epochs=1).train()
    with pytest.raises(ValueError, match="saved by a training without `ema_decay`"):
        make_trainer(num_train_epochs=2, ema_decay=0.9).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(make_args, decay):
    with pytest.raises(ValueError, match="`ema_decay` must be at least 0 and below 1"):
        make_args(ema_decay=decay)
