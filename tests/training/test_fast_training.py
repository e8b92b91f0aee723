"""Packing, token budgets, data on the device, bf16 and compilation: how a run is computed, not what it computes."""

import pytest
import torch

from genrec.training.device_dataset import DeviceDataset


def gradients_of(trainer, inputs, num_labels) -> tuple[float, torch.Tensor]:
    trainer.model.zero_grad()
    trainer.model.config.dropout = 0.0
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters())
    loss = trainer.training_step(trainer.model, inputs, num_labels)
    return loss.item(), torch.cat([parameter.grad.flatten().clone() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("fields", [{}, {"session_wise": True}, {"softmax": "level", "behavior_loss_weight": 0.5}])
@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("budget", [None, 100])
def test_an_update_is_the_same_however_it_is_cut(make_trainer, make_model, fields, packing, budget):
    """One row per user at once, packed rows, and micro-batches under a budget: same loss and gradients."""
    results = []
    for settings in ({}, {"packing": packing, "max_tokens_per_micro_batch": budget}):
        trainer = make_trainer(
            40, model=make_model(**fields), max_history_items=12, per_device_train_batch_size=64, **settings
        )
        batches, num_labels = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
        if settings.get("max_tokens_per_micro_batch"):
            assert len(batches[0]) > 3
            assert all(part["input_ids"].numel() <= budget for part in batches[0])
        results.append((num_labels.item(), *gradients_of(trainer, batches[0], num_labels)))
    assert results[0][0] == results[1][0]
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-5)
    torch.testing.assert_close(results[1][2], results[0][2], atol=1e-5, rtol=1e-4)


def test_data_on_the_device_trains_to_the_same_weights(make_trainer, tmp_path):
    weights = []
    for on_device in (True, False):
        trainer = make_trainer(data_on_device=on_device, output_dir=str(tmp_path / str(on_device)))
        trainer.train()
        weights.append(trainer.model.state_dict())
        loader = trainer.get_train_dataloader()
        assert isinstance(loader.dataset, DeviceDataset) == on_device
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_workers_read_samples_on_the_host(make_trainer):
    loader = make_trainer(dataloader_num_workers=1).get_train_dataloader()
    assert not isinstance(loader.dataset, DeviceDataset)


def test_a_token_budget_takes_a_batch_of_any_size(make_trainer):
    trainer = make_trainer(
        70,
        max_history_items=12,
        total_batch_size=70,
        max_tokens_per_micro_batch=60,
        packing=True,
        num_train_epochs=3,
        logging_steps=1,
    )
    trainer.train()
    assert trainer.state.global_step == 3
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert losses[-1] < losses[0]
    assert trainer.state.total_flos > 0


def test_packing_and_a_budget_learn_the_planted_rule(make_trainer):
    trainer = make_trainer(300, packing=True, max_tokens_per_micro_batch=400, num_train_epochs=12, learning_rate=1e-2)
    trainer.train()
    assert min(record["eval_loss"] for record in trainer.state.log_history if "eval_loss" in record) < 0.2


def test_bf16_training_runs_and_learns(make_trainer):
    trainer = make_trainer(300, bf16=True, num_train_epochs=6, learning_rate=1e-2)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.5 * before


def test_the_optimizer_is_fused(make_trainer):
    trainer = make_trainer()
    assert trainer.args.optim == "adamw_torch_fused"
    assert trainer.create_optimizer().defaults["fused"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"copy_head": True}, "`packing=True` is not possible for a model with `has_mixture`"),
        ({"time_context": True}, "`packing=True` is not possible for a model with `time_context`"),
    ],
)
def test_a_model_that_needs_a_row_per_user_cannot_be_packed(make_trainer, make_model, fields, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(model=make_model(**fields), packing=True)


def test_a_model_that_would_mix_users_cannot_be_packed(make_trainer, make_model):
    model = make_model()
    model.forward = lambda input_ids, labels=None, temperature=1.0: None
    with pytest.raises(ValueError, match="`packing=True` would mix users: .* takes no `segment_ids`"):
        make_trainer(model=model, packing=True)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"packing": True, "max_tokens_per_micro_batch": 400}])
def test_compiled_epochs_have_no_graph_break_and_hardly_a_recompilation(make_trainer, settings):
    """One graph for the first shapes, one for all others, and one for rows too short to attend in blocks."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    trainer = make_trainer(
        200,
        torch_compile=True,
        torch_compile_backend="aot_eager",
        num_train_epochs=3,
        eval_strategy="no",
        save_strategy="no",
        logging_steps=1,
        bucket_batches=4,
        **settings,
    )
    trainer.train()
    assert 1 <= counters["stats"]["unique_graphs"] <= 3
    assert not counters["graph_break"]
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert losses[-1] < losses[0]
