"""The experts of one layer, forward and backward: one batched product beside a boolean index per expert.

    python -m benchmarks.speed.experts [--quick] [--device cuda]

`boolean_index` gathers each expert's tokens, runs it and scatters its outputs back, one expert after the other;
`grouped_mm`, where torch has it for the device and type, sorts the tokens by expert and calls one grouped product;
`batched` is genrec's: since a token's expert is its place in its item, a strided view of the tokens is already sorted.
The table `with behavior` is of a layer that also reads the item's behavior.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.speed.baselines.dense_training import DenseExperts, copied_experts
from benchmarks.speed.harness import Contender, Results, Settings, check_close, run
from benchmarks.speed.workload import random_config
from genrec.models.gamer import GamerConfig
from genrec.models.gamer.experts import PositionExperts

HISTORY_ITEMS = 101
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_check = partial(check_close, baseline="boolean_index", what="its output or gradient is")


class GroupedExperts(nn.Module):
    """The experts of a `PositionExperts`, on tokens sorted by place with `torch._grouped_mm`."""

    def __init__(self, experts: PositionExperts) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, hidden_states: Tensor, places: Tensor) -> Tensor:
        """Return each token's output `[batch, tokens, width]`."""
        tokens, experts = hidden_states.flatten(0, 1), self.experts
        order = places.flatten().argsort(stable=True)
        ends = torch.bincount(places.flatten(), minlength=experts.num_experts).cumsum(dim=0).to(torch.int32)
        gate, up = torch._grouped_mm(tokens[order], experts.gate_up_proj.transpose(1, 2), ends).chunk(2, dim=-1)
        outputs = torch._grouped_mm(experts.act_fn(gate) * up, experts.down_proj.transpose(1, 2), ends)
        return torch.empty_like(outputs).index_copy(0, order, outputs).view_as(hidden_states)


def measure(settings: Settings) -> Results:
    """Time a plain layer's experts and those of a layer with behavior injection."""
    results = Results(settings)
    config = random_config(settings.choose("gamer-base", "gamer-tiny"), dropout=0.0)
    dtypes = [torch.float32, torch.bfloat16] if settings.device == "cuda" else [torch.float32]
    for dtype in dtypes:
        for injects_behavior in (False, True):
            _compare(results, config, injects_behavior, dtype)
    return results


def _compare(results: Results, config: GamerConfig, injects_behavior: bool, dtype: torch.dtype) -> None:
    settings = results.settings
    torch.manual_seed(settings.seed)
    batch_size = settings.choose(512 if settings.device == "cuda" else 4, 2)
    options = {"device": settings.device, "dtype": dtype}
    ours = PositionExperts(config, injects_behavior).to(**options)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=config.initializer_range)
    theirs = DenseExperts(config, injects_behavior).to(**options)
    theirs.load_state_dict(copied_experts(ours.state_dict()), strict=False)
    num_tokens = HISTORY_ITEMS * config.tokens_per_item
    places = (torch.arange(num_tokens, device=settings.device) % config.tokens_per_item).expand(batch_size, -1)
    behaviors = torch.randint(1, config.num_behaviors + 1, (batch_size, num_tokens), device=settings.device)
    hidden_states = torch.randn(batch_size, num_tokens, config.hidden_size, **options, requires_grad=True)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "boolean_index": lambda states: theirs(states, places + 1, behaviors),
        "batched": lambda states: ours(states, places, behaviors, 0),
    }
    grouped = GroupedExperts(ours)
    if not injects_behavior and _works(partial(grouped, places=places), hidden_states):
        ways["grouped_mm"] = partial(grouped, places=places)
    suffix = ("_with_behavior" if injects_behavior else "") + ("_bf16" if dtype == torch.bfloat16 else "")
    results.compare(
        f"experts{suffix.replace('_', ' ')}",
        [Contender(name, partial(_forward_and_backward, way, hidden_states)) for name, way in ways.items()],
        baseline="boolean_index",
        work=hidden_states[..., 0].numel(),
        unit="tokens",
        repeats=settings.choose(full=20, quick=2),
        check=partial(_check, tolerance=TOLERANCES[dtype]),
        ratio=f"experts/boolean_index_{{name}}{suffix}",
    )


def _forward_and_backward(way: Callable[[Tensor], Tensor], hidden_states: Tensor) -> tuple[Tensor, Tensor]:
    hidden_states.grad = None
    output = way(hidden_states)
    output.backward(torch.ones_like(output))
    return output.detach(), hidden_states.grad


def _works(way: Callable[[Tensor], Tensor], hidden_states: Tensor) -> bool:
    """Whether this torch has the operation and its gradient, for this device and type."""
    try:
        _forward_and_backward(way, hidden_states)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True


if __name__ == "__main__":
    run("experts", measure)
