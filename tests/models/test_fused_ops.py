"""Written-out backward passes against autograd through the plain formulas."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, rotate_half

from genrec.models.gamer.fused_ops import RMSNorm, gated, place_products, prefixes, rotated


def gradients(function: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor) -> list[Tensor]:
    """Return the outputs, and the gradients of a random sum of them."""
    for each in inputs:
        each.grad = None
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    sum((output.float() * torch.randn(output.shape, generator=generator)).sum() for output in outputs).backward()
    return [*(output.detach() for output in outputs), *(each.grad for each in inputs if each.grad is not None)]


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 5, 16), (2, 5, 3, 8)])
def test_the_norm_is_qwen3s(dtype: torch.dtype, shape: tuple[int, ...]):
    states = drawn(*shape, dtype=dtype)
    ours, theirs = RMSNorm(shape[-1], eps=1e-3), Qwen3RMSNorm(shape[-1], eps=1e-3)
    weight = drawn(shape[-1])
    results = []
    for norm in (ours, theirs):
        norm.weight = torch.nn.Parameter(weight.detach().clone())
        results.append([*gradients(norm, states), norm.weight.grad])
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(results[0], results[1], atol=tolerance, rtol=tolerance)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_rotation_is_the_usual_formula():
    angles = torch.rand(2, 5, 1, 4).repeat(1, 1, 1, 2) * 3
    cos, sin = angles.cos(), angles.sin()
    states = drawn(2, 5, 3, 8)
    plain = gradients(lambda states: states * cos + rotate_half(states) * sin, states)
    torch.testing.assert_close(gradients(lambda states: rotated(states, cos, sin), states), plain)


@pytest.mark.parametrize("act_fn", [torch.nn.SiLU(), torch.nn.GELU()])
def test_gating_is_the_usual_formula(act_fn: torch.nn.Module):
    states = drawn(3, 4, 10)
    plain = gradients(lambda states: act_fn(states[..., :5]) * states[..., 5:], states)
    torch.testing.assert_close(gradients(lambda states: gated(states, act_fn), states), plain)


@pytest.mark.parametrize("num_tokens", [8, 9])
def test_gradients_of_prefixes_add_up(num_tokens: int):
    states = drawn(2, 3, num_tokens, 4)
    plain = gradients(lambda states: tuple(states[:, :, :end] for end in (2, 4, 6, num_tokens)), states)
    torch.testing.assert_close(gradients(lambda states: prefixes(states, (2, 4, 6, num_tokens)), states), plain)


@pytest.mark.parametrize("is_strided", [False, True])
@pytest.mark.parametrize("has_addend", [False, True])
def test_products_by_place_are_the_batched_ones(is_strided: bool, has_addend: bool):
    states = drawn(7, 3, 4) if is_strided else drawn(3, 7, 4)  # as tokens come: items, places, width
    weights, addend = drawn(3, 5, 4), drawn(3, 7, 5) if has_addend else None
    inputs = [states, weights, *([addend] if addend is not None else [])]

    def ours(states: Tensor, weights: Tensor, addend: Tensor | None = None) -> Tensor:
        return place_products(states.transpose(0, 1) if is_strided else states, weights, addend)

    def plain(states: Tensor, weights: Tensor, addend: Tensor | None = None) -> Tensor:
        states = states.transpose(0, 1) if is_strided else states
        products = torch.einsum("pni,poi->pno", states, weights)
        return products if addend is None else products + addend

    torch.testing.assert_close(gradients(ours, *inputs), gradients(plain, *inputs))


def test_products_by_place_under_autocast_are_in_half_precision():
    states, weights = drawn(3, 7, 4), drawn(3, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert place_products(states, weights).dtype == torch.bfloat16


def test_without_gradients_the_plain_formulas_run():
    states = drawn(2, 5, 3, 8)
    norm = RMSNorm(8)
    with torch.no_grad():
        assert norm(states).grad_fn is None
        torch.testing.assert_close(norm(states), norm(states.clone().requires_grad_()))
        assert len(prefixes(states, (5,))) == 1
