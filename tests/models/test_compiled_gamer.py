"""`torch.compile(fullgraph=True)`: one graph, forward and backward, for batches of any number of whole items."""

from collections.abc import Callable

import pytest
import torch

from genrec.models.gamer import GamerForCausalLM

ONE_LAYER = {"num_hidden_layers": 1, "cross_level_layers": [0], "behavior_injection_layers": [0]}


def compiled_runs_agree(model: GamerForCausalLM, histories_of: Callable, backend: str) -> int:
    """Compare loss and gradients with the uncompiled model's at three lengths; returns how often it was compiled."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for num_items in (3, 5, 8):
        input_ids, session_ids = histories_of(2, num_items)
        attention_mask = torch.ones_like(input_ids)
        attention_mask[0, :4] = 0
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "session_ids": session_ids,
            "labels": input_ids * attention_mask,
        }
        results = []
        for module in (model, compiled):
            model.zero_grad()
            loss = module(**inputs).loss
            loss.backward()
            results.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
        torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-4)
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_one_graph_and_at_most_two_recompiles(model_of: Callable[..., GamerForCausalLM], histories_of: Callable):
    assert 1 <= compiled_runs_agree(model_of(**ONE_LAYER).train(), histories_of, "eager") <= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{}, {**ONE_LAYER, "session_wise": True, "softmax": "level"}], ids=["gamer", "session-wise"]
)
def test_generated_kernels_agree_forward_and_backward(
    model_of: Callable[..., GamerForCausalLM], histories_of: Callable, fields: dict[str, object]
):
    assert 1 <= compiled_runs_agree(model_of(**fields).train(), histories_of, "inductor") <= 3


@pytest.mark.slow
def test_compiled_flex_attention_agrees(model_of: Callable[..., GamerForCausalLM], histories_of: Callable):
    model = model_of()
    input_ids, _ = histories_of(2, 5)
    with torch.no_grad():
        expected = model(input_ids).logits
        model.set_attn_implementation("flex_attention")
        torch.testing.assert_close(model(input_ids).logits, expected, atol=2e-5, rtol=1e-5)


def test_rows_that_start_inside_an_item_are_refused(model_of: Callable[..., GamerForCausalLM], histories_of: Callable):
    torch._dynamo.reset()
    compiled = torch.compile(model_of(**ONE_LAYER), fullgraph=True, backend="eager")
    input_ids, _ = histories_of(2, 3)
    with torch.no_grad(), pytest.raises(RuntimeError, match="padded by whole items"):
        compiled(input_ids.roll(1, dims=1))
