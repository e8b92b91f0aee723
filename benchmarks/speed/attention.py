"""One attention, forward and backward, in GAMER's shapes: kernels' own masks and blocks beside dense additive masks.

    python -m benchmarks.speed.attention [--quick] [--device cuda]

Tables: `self`, causal, and `cross`, to earlier items of lower behavior levels. `dense_mask` is scaled dot-product
attention with an additive float mask `[batch, 1, tokens, tokens]` and repeated key-value heads, as the released code
has it; `causal` is the kernel's own causal mask; `genrec` is what a layer does on this device; `flex` is compiled flex
attention with a block mask (CUDA only: it has no backward pass on CPUs).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.qwen3.modeling_qwen3 import repeat_kv

from benchmarks.speed.harness import Contender, Results, Settings, check_close, run
from benchmarks.speed.limits import attention_flops, measure_peaks
from benchmarks.speed.workload import random_config
from genrec.models.gamer import GamerConfig
from genrec.models.gamer.attention import SelfAttention
from genrec.models.gamer.behavior_masks import MASKS, build_mask, sees_lower_level

HISTORY_ITEMS = 101
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_check = partial(check_close, baseline="dense_mask", what="its output or gradients are")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def measure(settings: Settings) -> Results:
    """Time both attentions of a layer, on CUDA in bf16 too."""
    results = Results(settings)
    config = random_config(settings.choose("gamer-base", "gamer-tiny"), attn_implementation="sdpa")
    dtypes = [torch.float32, torch.bfloat16] if settings.device == "cuda" else [torch.float32]
    for dtype in dtypes:
        for name in ("self", "cross"):
            _compare(results, config, name, dtype)
    return results


def _compare(results: Results, config: GamerConfig, name: str, dtype: torch.dtype) -> None:
    settings = results.settings
    torch.manual_seed(settings.seed)
    batch_size = settings.choose(64 if settings.device == "cuda" else 4, 2)
    num_tokens = HISTORY_ITEMS * config.tokens_per_item
    shapes = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    options = {"device": settings.device, "dtype": dtype, "requires_grad": True}
    inputs = [torch.randn(batch_size, num_tokens, heads, config.head_dim, **options) for heads in shapes]
    levels = torch.randint(config.num_behaviors, (batch_size, HISTORY_ITEMS), device=settings.device)
    levels = levels.repeat_interleave(config.tokens_per_item, dim=1)
    ways = _ways(config, name, levels, dtype)
    suffix = "_bf16" if dtype == torch.bfloat16 else ""
    peaks = measure_peaks(settings.device, dtype, settings.quick)
    results.compare(
        f"{name} attention{suffix.replace('_', ' ')}",
        [Contender(way, partial(_forward_and_backward, attend, inputs), warmup=2) for way, attend in ways.items()],
        baseline="dense_mask",
        work=batch_size * num_tokens,
        unit="tokens",
        repeats=settings.choose(full=20, quick=2),
        check=partial(_check, tolerance=TOLERANCES[dtype]),
        ratio=f"attention/{name}_dense_mask_{{name}}{suffix}",
        limit=peaks.flops_per_second / (3 * attention_flops(config, (num_tokens + 1) / 2)),
    )


def _ways(config: GamerConfig, name: str, levels: Tensor, dtype: torch.dtype) -> dict[str, Attend]:
    """Return the contenders, each from queries, keys and values `[batch, heads, tokens, head dim]`."""
    real = torch.ones_like(levels, dtype=torch.bool)
    visible = MASKS["causal" if name == "self" else "cross_level"](levels, levels, None)
    sees_any = real if name == "self" else sees_lower_level(levels, None, real)
    masks = {kind: build_mask(visible, real, sees_any, levels.shape[1], kind, dtype) for kind in ("eager", "sdpa")}
    layer = SelfAttention(config, 0).eval()
    ways: dict[str, Attend] = {
        "dense_mask": partial(_dense, mask=masks["eager"], groups=layer.num_key_value_groups),
        "genrec": lambda *states: layer.attend(*states, None if name == "self" else masks["sdpa"])[0],
    }
    if name == "self":
        ways["causal"] = lambda *states: _flat(scaled_dot_product_attention(*states, is_causal=True, enable_gqa=True))
    if levels.device.type == "cuda":
        block_mask = build_mask(visible, real, sees_any, levels.shape[1], "flex_attention", dtype)
        flex = torch.compile(flex_attention, dynamic=False)
        ways["flex"] = lambda *states: _flat(flex(*states, block_mask=block_mask, enable_gqa=True))
    return ways


def _dense(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, groups: int) -> Tensor:
    keys, values = repeat_kv(keys, groups), repeat_kv(values, groups)
    return _flat(scaled_dot_product_attention(queries, keys, values, attn_mask=mask))


def _flat(output: Tensor) -> Tensor:
    return output.transpose(1, 2).flatten(2)


def _forward_and_backward(attend: Attend, inputs: list[Tensor]) -> list[Tensor]:
    for each in inputs:
        each.grad = None
    output = attend(*(each.transpose(1, 2) for each in inputs))
    output.backward(torch.ones_like(output))
    return [output.detach(), *(each.grad for each in inputs)]


if __name__ == "__main__":
    run("attention", measure)
