"""The loss of scoring models, cross-entropy over a whole catalog, forward and backward.

    python -m benchmarks.speed.item_softmax [--quick] [--device cuda]

`dense` is what most code writes, and holds the logits of all targets at once; `recomputed` makes them in chunks, and
again for the backward pass; `torch_chunked` is `torch.nn.functional.linear_cross_entropy`, where torch has it; `fused`
is genrec's. Sizes are those of SASRec's small preset: 64 histories of 40 items, three catalogs.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from benchmarks.speed.harness import Contender, Results, Settings, check_close, run
from genrec.models.discriminative.softmax import softmax_loss

WIDTH, CHUNK = 64, 1 << 24
CATALOGS = (3_000, 30_000, 100_000)
TOLERANCE = 1e-4
_check = partial(check_close, baseline="dense", what="its loss or a gradient is", tolerance=TOLERANCE)

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def measure(settings: Settings) -> Results:
    """Time each catalog."""
    results = Results(settings)
    num_targets = settings.choose(64 * 40, 10)
    for num_items in settings.choose(CATALOGS, CATALOGS[:1]):
        torch.manual_seed(settings.seed)
        states = torch.randn(num_targets, WIDTH, device=settings.device, requires_grad=True)
        items = torch.randn(num_items, WIDTH, device=settings.device).mul_(0.1).requires_grad_()
        targets = torch.randint(num_items, (num_targets,), device=settings.device)
        results.compare(
            f"{num_items:,} items",
            [
                Contender(name, partial(_forward_and_backward, way, states, items, targets))
                for name, way in _ways().items()
            ],
            baseline="dense",
            work=num_targets,
            unit="targets",
            repeats=settings.choose(full=9, quick=2),
            check=_check,
            ratio=f"item_softmax/{{name}}@{num_items}",
            max_seconds=120.0,
        )
    return results


def _ways() -> dict[str, Way]:
    ways: dict[str, Way] = {"dense": dense, "recomputed": recomputed, "fused": softmax_loss}
    if hasattr(functional, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions()
        ways["torch_chunked"] = partial(functional.linear_cross_entropy, options=options)
    return ways


def dense(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Return the loss from all logits at once."""
    return functional.cross_entropy(states @ items.T, targets)


def recomputed(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Return the loss from chunks of 16 million logits, each computed once more for its gradient."""
    rows = max(1, CHUNK // len(items))
    losses = [
        checkpoint(_summed, part, items, right, use_reentrant=False)
        for part, right in zip(states.split(rows), targets.split(rows), strict=True)
    ]
    return torch.stack(losses).sum() / len(targets)


def _summed(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(states @ items.T, targets, reduction="sum")


def _forward_and_backward(way: Way, states: Tensor, items: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    states.grad = items.grad = None
    loss = way(states, items, targets)
    loss.backward()
    assert states.grad is not None
    assert items.grad is not None
    return loss.detach(), states.grad, items.grad


if __name__ == "__main__":
    run("item_softmax", measure)
