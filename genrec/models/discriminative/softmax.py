"""Cross-entropy over all items, with a catalog's logits never held at once."""

from typing import Any

import torch
from torch import Tensor

# A chunk of logits should stay in a CPU's cache between the passes over it, and fill a GPU. Few rows would cost more
# than they save: each chunk adds to the gradient of all items once.
LOGITS_ON_CPU, LOGITS_ELSEWHERE = 1 << 21, 1 << 26
MIN_ROWS = 64


def softmax_loss(states: Tensor, item_weights: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over all items; it can be differentiated once.

    Gradients are found in the same pass as the loss, chunk by chunk, so that logits are computed once and memory does
    not grow with the batch times the catalog.

    Args:
        states: `[targets, width]`.
        item_weights: `[items, width]`.
        targets: The right items, `[targets]`; none gives a loss of 0.
        bias: One number per item, `[items]`.

    Example:
        >>> states, items = torch.eye(3), torch.eye(3)
        >>> round(float(softmax_loss(states, items, torch.tensor([0, 1, 2]))), 4)  # log(e + 2) - 1
        0.5514
    """
    if len(targets) == 0:
        return states.sum() * 0.0
    with torch.autocast(states.device.type, enabled=False):  # sums over a catalog need all digits
        dtype = torch.promote_types(states.dtype, torch.float32)
        bias = None if bias is None else bias.to(dtype)
        summed: Tensor = _SummedCrossEntropy.apply(states.to(dtype), item_weights.to(dtype), targets, bias)
        return summed / len(targets)


class _SummedCrossEntropy(torch.autograd.Function):
    """The sum over targets of -log softmax(states @ item_weights.T + bias)[target]."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, item_weights: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
        num_logits = LOGITS_ON_CPU if states.device.type == "cpu" else LOGITS_ELSEWHERE
        rows = max(MIN_ROWS, num_logits // len(item_weights))
        loss = states.new_zeros(())
        of_states, of_items = torch.empty_like(states), torch.zeros_like(item_weights)
        of_bias = None if bias is None else torch.zeros_like(bias)
        parts = zip(states.split(rows), targets.split(rows), of_states.split(rows), strict=True)
        for part, right, of_part in parts:
            logits = part @ item_weights.T if bias is None else torch.addmm(bias, part, item_weights.T)
            of_right = logits.gather(1, right[:, None])[:, 0]
            highest = logits.amax(dim=1, keepdim=True)
            powers = logits.sub_(highest).exp_()
            sums = powers.sum(dim=1, keepdim=True)
            loss += (sums.log() + highest).sum() - of_right.sum()
            # A probability is power / sum, and the right item's gradient is less by 1. Both are put right in the small
            # matrices, which saves two passes over the logits.
            torch.mm(powers, item_weights, out=of_part)
            of_part.div_(sums).sub_(item_weights[right])
            of_items.addmm_(powers.T, part / sums).index_add_(0, right, part, alpha=-1)
            if of_bias is not None:
                of_bias.addmv_(powers.T, 1 / sums[:, 0]).sub_(torch.bincount(right, minlength=len(of_bias)))
        ctx.save_for_backward(of_states, of_items, of_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_states, of_items, of_bias = ctx.saved_tensors
        return gradient * of_states, gradient * of_items, None, None if of_bias is None else gradient * of_bias
