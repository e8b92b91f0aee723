"""Small operations whose backward passes are written out: the same numbers with half the passes over memory.

A layer of width 256 spends as long on norms, rotary positions and gates as on matrix products, because autograd keeps
and rereads each step of a formula. Written out, each needs its input alone. Under `torch.compile` the plain formulas
are better, since they fuse with what stands around them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import rms_norm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, rotate_half


class RMSNorm(Qwen3RMSNorm):
    """Qwen3's norm, with the same weights and the same result."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return `[..., width]`, normalised in float32."""
        if torch.compiler.is_compiling():
            return super().forward(hidden_states)
        if _is_inference(hidden_states):
            same_type = hidden_states.dtype == self.weight.dtype
            weight, eps = self.weight, self.variance_epsilon
            return rms_norm(hidden_states, weight.shape, weight, eps) if same_type else super().forward(hidden_states)
        return _RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return queries or keys turned by their rotary positions.

    Args:
        states: `[..., head dim]`.
        cos: Cosines of the angles, broadcast against `states`; its two halves are equal.
        sin: Sines of the angles.

    Example:
        >>> quarter = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
        >>> rotated(torch.tensor([2.0, 1.0]), *quarter).tolist()
        [-1.0, 2.0]
    """
    if torch.compiler.is_compiling():
        return states * cos + rotate_half(states) * sin
    if _is_inference(states):
        return _turned(states, cos, sin, 1)
    return _Rotation.apply(states, cos, sin)


def gated(gate_up: Tensor, act_fn: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the activation of the first half of the last dimension, times the second half.

    Example:
        >>> gated(torch.tensor([-1.0, 2.0, 5.0, 5.0]), torch.relu).tolist()
        [0.0, 10.0]
    """
    gate, up = gate_up.chunk(2, dim=-1)
    if torch.compiler.is_compiling() or not isinstance(act_fn, nn.SiLU):
        return act_fn(gate) * up
    if _is_inference(gate_up):
        return nn.functional.silu(gate).mul_(up)
    return _SiLUGate.apply(gate_up)


def place_products(states: Tensor, weights: Tensor, addend: Tensor | None = None) -> Tensor:
    """Return each place's states times the place's weights: `states @ weights.mT + addend`, one batched product.

    Trained on a CPU without compiling, the products run one after the other: each has hundreds of rows, for which plain
    matrix products are an eighth faster than batched ones.

    Args:
        states: `[places, items, inputs]`, any strides.
        weights: `[places, outputs, inputs]`.
        addend: `[places, items, outputs]`, or None.

    Example:
        >>> place_products(torch.ones(2, 3, 4), torch.ones(2, 5, 4), torch.ones(2, 3, 5))[1, 2].tolist()
        [5.0, 5.0, 5.0, 5.0, 5.0]
    """
    has_autocast = states.dtype != weights.dtype or torch.is_autocast_enabled("cpu")
    if torch.compiler.is_compiling() or _is_inference(states) or states.device.type != "cpu" or has_autocast:
        products = torch.bmm if addend is None else partial(torch.baddbmm, addend)
        return products(states, weights.transpose(1, 2))
    return _PlaceProducts.apply(states, weights, addend)


def prefixes(states: Tensor, ends: Sequence[int]) -> tuple[Tensor, ...]:
    """Return views of the first tokens up to each end.

    Args:
        states: `[batch, heads, tokens, head dim]`.
        ends: Never falling; the last one is the number of tokens.
    """
    if torch.compiler.is_compiling() or _is_inference(states):
        return _views(states, ends)
    return _Prefixes.apply(states, ends)


def _is_inference(states: Tensor) -> bool:
    return not (torch.is_grad_enabled() and states.requires_grad)


class _RMSNorm(torch.autograd.Function):
    """y = w x r with r = (mean(x^2) + eps)^(-1/2), so dx = r (w dy - x r^2 mean(w dy x)) and dw = sum(dy x r)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = states.float()
        norms = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scales = norms.square_().div_(states.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(states, weight, scales)
        return weight * (exact * scales).to(states.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        states, weight, scales = ctx.saved_tensors
        exact, gradient, flat_scales = states.float(), gradient.float(), scales.flatten()
        with torch.autocast(gradient.device.type, enabled=False):
            products = (gradient * exact).flatten(0, -2)
            of_weight = flat_scales @ products
            means = (products @ weight.float()) / -states.shape[-1]
        means = means.mul_(flat_scales).mul_(flat_scales).view_as(scales)
        of_states = (gradient * weight).addcmul_(exact, means).mul_(scales)
        return of_states.to(states.dtype), of_weight.to(weight.dtype), None


class _Rotation(torch.autograd.Function):
    """Turns by an angle, and gradients back by the same angle."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(states, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradient, cos, sin, -1), None, None


class _SiLUGate(torch.autograd.Function):
    """s(g) u, of which autograd would keep s(g) too and join the gradients of g and u in a pass of their own."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_up)
        of_gate, of_up = result.chunk(2, dim=-1)
        torch.mul(gradient, nn.functional.silu(gate), out=of_up)
        of_gate.copy_(torch.ops.aten.silu_backward(gradient * up, gate))
        return result


class _PlaceProducts(torch.autograd.Function):
    """y = x w' + a for each place, so dx = dy w, dw = dy' x and da = dy."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weights: Tensor, addend: Tensor | None) -> Tensor:
        states = states.contiguous()  # products of strided rows lose what single products win
        ctx.save_for_backward(states, weights)
        output = states.new_empty(*states.shape[:2], weights.shape[1])
        for place, (inputs, weight, result) in enumerate(zip(states, weights, output, strict=True)):
            if addend is None:
                torch.mm(inputs, weight.t(), out=result)
            else:
                torch.addmm(addend[place], inputs, weight.t(), out=result)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        states, weights = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_states, of_weights = torch.empty_like(states), weights.new_empty(weights.shape)
        for place, part in enumerate(gradient):
            torch.mm(part, weights[place], out=of_states[place])
            torch.mm(part.t(), states[place], out=of_weights[place])
        return of_states, of_weights, gradient if ctx.needs_input_grad[2] else None


class _Prefixes(torch.autograd.Function):
    """Sums the prefixes' gradients in place, where autograd would pad each to the whole length first."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, ends: Sequence[int]) -> tuple[Tensor, ...]:
        return _views(states, ends)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        *shorter, whole = gradients
        total = whole.clone()
        for gradient in shorter:
            total[:, :, : gradient.shape[2]] += gradient
        return total, None


def _views(states: Tensor, ends: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(states[:, :, :end] for end in ends)


def _turned(states: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    half = states.shape[-1] // 2
    output = states * cos
    output[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-direction)
    output[..., half:].addcmul_(states[..., :half], sin[..., half:], value=direction)
    return output
