"""What the machine allows: the arithmetic of GAMER's prefill, decoding and training, beside measured peaks.

    python -m benchmarks.speed.limits

A multiplication and an addition are two operations (FLOPs). Counted is what must be computed: matrix products of the
weights that a token meets, attention to the tokens it may see (a causal kernel's half of the square), the output head,
and of the last layer of a prompt only what later tokens look at. An injected behavior is one of few, so what it adds is
a table and costs no product. Memory traffic is that of `torch.compile`: each matrix
product and attention reads its inputs and writes its output, and what stands between two of them is one pass.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.speed.harness import Results, Settings, run
from benchmarks.speed.workload import random_config
from genrec.models.gamer import GamerConfig

PRESETS = ("gamer-small", "gamer-base", "gamer-paper")
SHARES = (1.0, 0.5, 0.3)


@dataclass(frozen=True)
class Cost:
    """What a piece of work takes at least.

    Args:
        flops: Floating-point operations.
        values: Numbers read or written; times the bytes of one, the memory traffic.

    Example:
        >>> Cost(2.0, 1.0) + Cost(4.0, 0.0)
        Cost(flops=6.0, values=1.0)
    """

    flops: float
    values: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.values + other.values)

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.flops * times, self.values * times)


@dataclass(frozen=True)
class Peaks:
    """The most that a machine was seen to do.

    Args:
        flops_per_second: In a large matrix product.
        bytes_per_second: In a copy, read plus written.
        bytes_per_value: Of the type it was measured in.
    """

    flops_per_second: float
    bytes_per_second: float
    bytes_per_value: int

    def per_second(self, cost: Cost, share: float = 1.0) -> float:
        """Return how many times a second the work can be done at a share of the peaks; the scarcer one decides."""
        compute = cost.flops / self.flops_per_second
        memory = cost.values * self.bytes_per_value / self.bytes_per_second
        return share / max(compute, memory)


def attention_weights(config: GamerConfig) -> int:
    """Return the weights of one attention's four projections."""
    heads, shared = _attention_widths(config)
    return config.hidden_size * (2 * heads + 2 * shared)


def feed_forward_weights(config: GamerConfig) -> int:
    """Return the weights of one place's feed-forward network that meet the hidden state."""
    return 3 * config.hidden_size * config.intermediate_size


def layer_weights(config: GamerConfig, layer: int) -> int:
    """Return the weights that one token meets in a layer: of the experts, one."""
    cross = attention_weights(config) + config.hidden_size**2 if _has_cross(config, layer) else 0
    return attention_weights(config) + cross + feed_forward_weights(config)


def token_cost(config: GamerConfig, keys: float) -> Cost:
    """Return the cost of one token through all layers, without the head.

    Args:
        config: The model's shape.
        keys: How many tokens it attends to, itself included.
    """
    cost = Cost(0.0, 0.0)
    for layer in range(config.num_hidden_layers):
        attentions = 2 if _has_cross(config, layer) else 1
        flops = 2 * layer_weights(config, layer) + attentions * attention_flops(config, keys)
        cost += Cost(flops, _layer_values(config, layer))
    return cost


def attention_flops(config: GamerConfig, keys: float) -> float:
    """Return the operations of one token's attention to `keys` tokens: scores, then the weighted sum."""
    return 4 * _attention_widths(config)[0] * keys


def head_cost(config: GamerConfig) -> Cost:
    """Return the cost of one token's scores over the vocabulary."""
    return Cost(2 * config.hidden_size * config.require_vocabulary(), 2 * config.require_vocabulary())


def training_cost(config: GamerConfig, history_items: int) -> Cost:
    """Return the cost of one training token: a forward pass and a backward pass of twice its size."""
    tokens = history_items * config.tokens_per_item
    return (token_cost(config, (tokens + 1) / 2) + head_cost(config)) * 3


def prefill_cost(config: GamerConfig, history_items: int) -> Cost:
    """Return the cost of one user's history, of whose last layer only keys and values are needed."""
    tokens = history_items * config.tokens_per_item
    last = config.num_hidden_layers - 1
    heads, _ = _attention_widths(config)
    unneeded: float = 2 * feed_forward_weights(config)
    if _has_cross(config, last):
        unneeded += 2 * (2 * config.hidden_size * heads + config.hidden_size**2)  # queries, output and gate
    else:
        unneeded += 2 * 2 * config.hidden_size * heads
    unneeded += attention_flops(config, (tokens + 1) / 2)  # of the last attention, whichever it is
    whole = token_cost(config, (tokens + 1) / 2)
    return Cost(whole.flops - unneeded, whole.values) * tokens


def decode_cost(config: GamerConfig, history_items: int, num_beams: int) -> Cost:
    """Return the cost of one user's beams: the behavior asked for, then all codes of an item but the last."""
    keys = history_items * config.tokens_per_item + 1
    cost = token_cost(config, keys) + head_cost(config)
    for level in range(1, config.num_levels):
        cost += (token_cost(config, keys + level) + head_cost(config)) * num_beams
    return cost


def search_cost(config: GamerConfig, history_items: int, num_beams: int) -> Cost:
    """Return the cost of one user's search; weights are read once per batch and not counted."""
    return prefill_cost(config, history_items) + decode_cost(config, history_items, num_beams)


def measure_peaks(device: str, dtype: torch.dtype = torch.float32, quick: bool = False) -> Peaks:
    """Return the best of several large matrix products and copies."""
    on_cuda = torch.device(device).type == "cuda"
    size = (8192 if on_cuda else 2048) // (4 if quick else 1)
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    flops = best_rate(lambda: left @ right, 2 * size**3, device)
    source = torch.zeros(2**22 if quick else 2**28 if on_cuda else 2**25, device=device, dtype=dtype)
    target = torch.empty_like(source)
    copied = best_rate(lambda: target.copy_(source), 2 * source.nbytes, device)
    return Peaks(flops, copied, source.element_size())


def best_rate(call: Callable[[], Any], work: float, device: str, repeats: int = 5) -> float:
    """Return the most work per second of several runs after a first one."""
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    rates = []
    for _ in range(repeats + 1):
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        rates.append(work / (time.perf_counter() - start))
    return max(rates[1:])


def _attention_widths(config: GamerConfig) -> tuple[int, int]:
    """Return the width of all heads side by side, and of the key-value heads."""
    return config.num_attention_heads * config.head_dim, (config.num_key_value_heads or 1) * config.head_dim


def _has_cross(config: GamerConfig, layer: int) -> bool:
    return layer in (config.cross_level_layers or ())


def _layer_values(config: GamerConfig, layer: int) -> int:
    """Return the numbers that one token reads and writes in a layer."""
    width, inner = config.hidden_size, config.intermediate_size
    heads, shared = _attention_widths(config)
    projected = heads + 2 * shared
    attention = (
        (width + projected)  # projections
        + 2 * (heads + shared)  # norm and rotation of queries and keys
        + (projected + heads)  # attention
        + (heads + width)  # output projection
        + 4 * width  # residual and norm
    )
    cross = attention + 4 * width if _has_cross(config, layer) else 0  # its gate
    feed_forward = (width + 2 * inner) + 3 * inner + (inner + width) + 4 * width
    return attention + cross + feed_forward


def measure(settings: Settings) -> Results:
    """Return what each preset costs, and how often a second this machine could do it."""
    results = Results(settings)
    dtypes = [torch.float32, torch.bfloat16] if settings.device == "cuda" else [torch.float32]
    peaks = {
        str(dtype).removeprefix("torch."): measure_peaks(settings.device, dtype, settings.quick) for dtype in dtypes
    }
    for name, peak in peaks.items():
        results.add("peaks", name, flops_per_second=peak.flops_per_second, bytes_per_second=peak.bytes_per_second)
    for preset in PRESETS:
        config = random_config(preset)
        costs = {
            "prefill": prefill_cost(config, config.max_history_items),
            "decode": decode_cost(config, config.max_history_items, num_beams=20),
            "search": search_cost(config, config.max_history_items, num_beams=20),
            "training token": training_cost(config, config.max_history_items),
        }
        for work, cost in costs.items():
            results.add(preset, work, flops=cost.flops, values=cost.values, **_rates(cost, peaks))
    return results


def _rates(cost: Cost, peaks: dict[str, Peaks]) -> dict[str, float]:
    return {
        f"{name}_per_second_at_{share:.0%}": peak.per_second(cost, share)
        for name, peak in peaks.items()
        for share in SHARES
    }


if __name__ == "__main__":
    run("limits", measure)
