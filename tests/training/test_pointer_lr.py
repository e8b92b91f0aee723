"""Pointers may learn at a rate of their own."""

import pytest

from genrec.models.gamer import GamerForCausalLM


@pytest.mark.parametrize(("factor", "rates"), [(1.0, {1e-3}), (3.0, {1e-3, 3e-3})])
def test_the_pointers_learning_rate_is_a_multiple_of_the_others(make_trainer, make_model, factor, rates):
    settings = {"learning_rate": 1e-3, "weight_decay": 0.01, "pointer_lr_factor": factor}
    trainer = make_trainer(model=make_model(copy_head=True), **settings)
    optimizer = trainer.create_optimizer()
    model: GamerForCausalLM = trainer.model
    rate_of = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert set(rate_of.values()) == rates
    assert rate_of.keys() == set(model.parameters())
    for name, parameter in model.named_parameters():
        assert rate_of[parameter] == (1e-3 * factor if name.startswith("mixture.") else 1e-3)
    decay_of = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    pointer = model.mixture.pointers["copy"].feature_proj
    assert (decay_of[pointer.weight], decay_of[pointer.bias]) == (trainer.args.weight_decay, 0.0)
    assert trainer.create_optimizer() is optimizer
