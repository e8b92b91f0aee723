"""The benchmarks of training: the baseline computes what genrec does, and checks refuse what differs."""

from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.speed import attention, experts, item_softmax, train
from benchmarks.speed.baselines.dense_training import DenseTrainingModel
from benchmarks.speed.harness import Results, Settings
from benchmarks.speed.workload import random_model

QUICK = Settings(quick=True)
EXACT = {"dropout": 0.0, "attention_dropout": 0.0}


@pytest.mark.parametrize("lengths", [[5, 5], [7, 2, 1]])
def test_the_baseline_has_genrecs_loss_and_gradients(lengths):
    model = random_model("gamer-tiny", initializer_range=0.1, **EXACT).train()
    dense = DenseTrainingModel.of(model)
    batch = train.collator_of(model.config, "cpu")(train.random_samples(lengths, seed=1))
    loss, dense_loss = train._our_loss(model, _needed(batch)), train._dense_loss(dense, batch)
    torch.testing.assert_close(dense_loss, loss, rtol=1e-6, atol=0)
    for each in (loss, dense_loss):
        each.backward()
    torch.testing.assert_close(dense.embed_tokens.weight.grad, model.lm_head.weight.grad, atol=1e-6, rtol=1e-4)
    place = 2
    stacked = model.model.layers[0].mlp
    ours, theirs = stacked.gate_up_proj.grad[place], dense.layers[0].mlp.experts[place + 1]
    of_theirs = torch.cat([theirs.gate_proj.weight.grad, theirs.up_proj.weight.grad])
    torch.testing.assert_close(of_theirs, ours, atol=1e-6, rtol=1e-4)


def _needed(batch: dict) -> dict:
    return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}


def test_the_baseline_refuses_what_it_does_not_compute():
    with pytest.raises(AssertionError, match="causal"):
        DenseTrainingModel.of(random_model("gamer-tiny", session_wise=True))


def test_a_wrong_loss_or_gradient_is_not_timed():
    right = (torch.tensor(2.0), torch.ones(3))
    train.check_steps({"dense": right, "eager": right})
    for wrong in ((torch.tensor(2.01), torch.ones(3)), (torch.tensor(2.0), torch.ones(3) * 1.01)):
        with pytest.raises(ValueError, match="eager: its loss is off by .* and its gradients by"):
            train.check_steps({"dense": right, "eager": wrong})
        train.check_steps({"dense": right, "eager": wrong}, bf16=True)
    with pytest.raises(ValueError, match="The losses differ"):
        train._check_losses({"padded": 1.0, "packed": 1.1})


def test_loss_curves_lie_on_each_other():
    results = Results(QUICK)
    train.compare_curves(results, num_steps=20)
    (row,) = results.rows
    assert row["most_off"] < 1e-4
    assert row["last"] < row["first"]


@pytest.mark.slow
def test_loss_curves_lie_on_each_other_for_200_steps():
    results = Results(QUICK)
    train.compare_curves(results, num_steps=200)
    assert results.rows[0]["last"] < 0.99 * results.rows[0]["first"]


def test_curves_that_part_are_an_error(monkeypatch):
    monkeypatch.setattr(train, "CURVE_TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="The loss curves part by"):
        train.compare_curves(Results(QUICK), num_steps=1)


def test_zipf_lengths_are_skewed():
    lengths = train.zipf_lengths(10_000, 101, seed=0)
    assert (lengths.min(), lengths.max()) == (1, 101)
    assert lengths.mean() == pytest.approx(101 / sum(1 / n for n in range(1, 102)), rel=0.05)


def test_lengths_of_a_prepared_log(tmp_path, monkeypatch):
    class Prepared:
        histories = type("Histories", (), {"lengths": np.array([3, 500, 7])})

    monkeypatch.setattr("genrec.data.prepared.PreparedDataset.load", lambda folder: Prepared)
    assert sorted(train.prepared_lengths(str(tmp_path), 10, longest=101, seed=0)) == [3, 7, 101]


def test_packed_batches_are_compared_with_padded_ones():
    results = Results(QUICK)
    train.compare_packing(results, np.array([1, 2, 9, 30, 4, 4, 11, 2, 3, 1, 6, 2] * 2))
    padding = {row["name"]: row["tokens_per_real_token"] for row in results.rows if row["table"] == "padding"}
    assert padding["padded"] > padding["buckets"] > padding["packed"] >= 1
    assert {"train/buckets", "train/packing"} <= results.ratios.keys()


def test_the_parts_of_a_layer_are_compared():
    for module in (attention, experts):
        results = module.measure(QUICK)
        assert all(ratio > 0 for ratio in results.ratios.values())
        right = [torch.ones(2)]
        baseline = "dense_mask" if module is attention else "boolean_index"
        with pytest.raises(ValueError, match="ours: its output or gradient"):
            partial(module._check, tolerance=1e-4)({baseline: right, "ours": [torch.ones(2) * 1.1]})


def test_the_losses_over_a_catalog_are_compared():
    results = item_softmax.measure(QUICK)
    assert {"item_softmax/fused@3000", "item_softmax/recomputed@3000"} <= results.ratios.keys()
    with pytest.raises(ValueError, match="fused: its loss or a gradient is off by 1.0e-01"):
        item_softmax._check({"dense": (torch.ones(2),), "fused": (torch.ones(2) * 1.1,)})


def test_an_operation_that_is_not_there_is_left_out():
    def missing(states):
        raise NotImplementedError

    assert not experts._works(missing, torch.ones(1))
