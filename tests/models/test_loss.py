"""Where logits are computed for a loss, and that compiled models get the same. (Its value: test_modeling_gamer.)"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genrec.models.gamer import GamerForCausalLM
from genrec.models.gamer.loss import label_blocks

ModelOf = Callable[..., GamerForCausalLM]


def one_target_each(input_ids: Tensor) -> Tensor:
    labels = torch.full_like(input_ids, -100)
    labels[:, -3:] = input_ids[:, -3:]
    return labels


@pytest.mark.parametrize(("all_bear_loss", "num_rows"), [(True, 2 * 4 * 3), (False, 2 * 3)])
def test_logits_are_computed_only_where_the_next_token_bears_loss(
    model_of: ModelOf, histories_of: Callable, all_bear_loss: bool, num_rows: int
):
    model = model_of()
    input_ids, _ = histories_of(2, 4)
    rows: list[int] = []
    model.lm_head.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[:-1].numel()))
    output = model(input_ids, labels=input_ids if all_bear_loss else one_target_each(input_ids))
    assert rows == [num_rows]
    assert output.logits is None


def test_a_level_softmax_computes_the_logits_of_a_level_alone(model_of: ModelOf):
    blocks = label_blocks(model_of(softmax="level", behavior_loss_weight=0.5).config)
    assert [block.softmax for block in blocks] == [(6, 11), (11, 15), (15, 21), (2, 6)]
    assert [block.labels for block in blocks] == [block.softmax for block in blocks]
    full = label_blocks(model_of(behavior_loss_weight=0.5).config)
    assert [(block.labels, block.softmax, block.weight) for block in full] == [
        ((6, 21), (0, 21), 1.0),
        ((2, 6), (0, 21), 0.5),
    ]


@pytest.mark.parametrize("return_logits", [None, True, False])
@pytest.mark.parametrize("has_labels", [True, False])
def test_logits_come_if_asked_for_and_without_labels(
    model_of: ModelOf, histories_of: Callable, return_logits: bool | None, has_labels: bool
):
    model, (input_ids, _) = model_of(), histories_of(2, 4)
    output = model(input_ids, labels=input_ids if has_labels else None, return_logits=return_logits)
    expected = return_logits if return_logits is not None else not has_labels
    assert (output.logits is not None) == expected
    assert (output.loss is not None) == has_labels
    if expected:
        torch.testing.assert_close(output.logits, model(input_ids).logits)


@pytest.mark.parametrize("softmax", ["full", "level"])
@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("num_tokens", [16, 14])
def test_the_static_selection_of_compiled_models_gives_the_same_loss(
    model_of: ModelOf,
    histories_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
    softmax: str,
    weight: float,
    num_tokens: int,
):
    model = model_of(softmax=softmax, behavior_loss_weight=weight)
    input_ids = histories_of(3, 4).input_ids[:, :num_tokens]
    labels = input_ids.clone()
    labels[0, :8] = labels[1, 3] = -100
    expected = model(input_ids, labels=labels, temperature=0.7).loss
    monkeypatch.setattr("genrec.models.gamer.loss.is_compiling", lambda: True)
    torch.testing.assert_close(model(input_ids, labels=labels, temperature=0.7).loss, expected)


def test_labels_may_be_those_of_the_last_tokens(model_of: ModelOf, histories_of: Callable):
    model, (input_ids, _) = model_of(), histories_of(2, 4)
    labels = one_target_each(input_ids)
    whole = model(input_ids, labels=labels).loss
    torch.testing.assert_close(model(input_ids, labels=labels[:, -4:], logits_to_keep=4).loss, whole)


def test_a_row_without_labels_adds_nothing_but_takes_part(model_of: ModelOf, histories_of: Callable):
    """As a process without samples must: every parameter gets a gradient, and it is zero."""
    model, (input_ids, _) = model_of(), histories_of(1, 2)
    loss = model(input_ids, labels=torch.full_like(input_ids, -100), num_items_in_batch=5).loss
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("softmax", ["full", "level"])
def test_bf16_autocast_gives_nearly_the_same_loss_and_gradients(
    model_of: ModelOf, histories_of: Callable, softmax: str
):
    model = model_of(softmax=softmax, initializer_range=0.05).train()
    input_ids, _ = histories_of(4, 6)
    results = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = model(input_ids, labels=input_ids).loss
        loss.backward()
        assert loss.dtype == torch.float32
        results.append((loss.item(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])))
    assert results[1][0] == pytest.approx(results[0][0], rel=2e-2)
    assert torch.cosine_similarity(results[0][1], results[1][1], dim=0) > 0.99
