"""Cross-level attention against loops over tokens, heads and keys."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from genrec.models.gamer import GamerConfig, GamerForCausalLM, GamerModel
from genrec.models.gamer.attention import FEWEST_TOKENS_FOR_BLOCKS, CrossLevelAttention, attend_in_blocks
from genrec.models.gamer.behavior_masks import build_mask, cross_level_mask, sees_lower_level
from genrec.models.gamer.cross_level_selection import select
from genrec.models.gamer.token_layout import read_layout

LEVELS = torch.tensor([[1, 1, 0, 0, 2, 2, 0, 1], [0, 0, 1, 2, 2, 1, 0, 0]])
BEHAVIORS = LEVELS + 1 + (torch.arange(8) % 2) * (LEVELS == 1)  # level 1 holds the behaviors 1 and 2
HAS_KEY = [[0, 0, 0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 1, 1, 0, 0]]


@pytest.fixture
def attention(config_of: Callable[..., GamerConfig]) -> CrossLevelAttention:
    torch.manual_seed(0)
    config = config_of()
    attention = CrossLevelAttention(config, layer_idx=1).eval()
    for parameter in attention.parameters():
        parameter.data.normal_()
    return attention


def random_inputs() -> tuple[Tensor, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    angles = torch.rand(2, 8, 4, generator=generator).repeat(1, 1, 2) * 3
    return torch.randn(2, 8, 16, generator=generator), (angles.cos(), angles.sin())


def normed(vector: Tensor, weight: Tensor) -> Tensor:
    return vector * weight / math.sqrt((vector**2).mean().item() + 1e-6)


def rotated(vector: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned = torch.cat([-vector[4:], vector[:4]])
    return vector * cos + turned * sin


def naive_output(attention: CrossLevelAttention, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Equations 2 to 4, one number at a time."""
    output = torch.zeros(2, 8, 16)
    for user in range(2):
        projected = []
        for token in range(8):
            x, row = hidden[user, token], BEHAVIORS[user, token]
            query = attention.q_proj.weight @ x + attention.q_behavior_embedding.weight[row]
            key = attention.k_proj.weight @ x + attention.k_behavior_embedding.weight[row]
            value = attention.v_proj.weight @ x + attention.v_behavior_embedding.weight[row]
            turn = rotary[0][user, token], rotary[1][user, token]
            queries = [rotated(normed(part, attention.q_norm.weight), *turn) for part in query.split(8)]
            keys = [rotated(normed(part, attention.k_norm.weight), *turn) for part in key.split(8)]
            projected.append((queries, keys, value.split(8)))
        for token in range(8):
            seen = [key for key in range(token) if LEVELS[user, key] < LEVELS[user, token]]
            if not seen:
                continue
            heads = []
            for head in range(4):
                scores = torch.stack([projected[token][0][head] @ projected[key][1][head // 2] for key in seen])
                weights = (scores / math.sqrt(8)).softmax(dim=0)
                heads.append(sum(weight * projected[key][2][head // 2] for weight, key in zip(weights, seen)))
            gate = silu(attention.gate_proj.weight @ hidden[user, token])
            output[user, token] = (attention.o_proj.weight @ torch.cat(heads)) * gate
    return output


def run(attention: CrossLevelAttention, implementation: str) -> Tensor:
    attention.config._attn_implementation = implementation
    hidden, rotary = random_inputs()
    real = torch.ones_like(LEVELS, dtype=torch.bool)
    has_key = sees_lower_level(LEVELS, None, real)
    mask = build_mask(cross_level_mask(LEVELS, LEVELS, None), real, has_key, 8, implementation, torch.float32)
    return attention(hidden, rotary, BEHAVIORS, mask, has_key)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
def test_it_is_the_papers_equations_and_zero_without_a_key(attention: CrossLevelAttention, implementation: str):
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # flex attention, without minutes of compiling
        output = run(attention, implementation)
        torch.testing.assert_close(output, naive_output(attention, *random_inputs()), atol=1e-4, rtol=1e-4)
    assert (output.abs().sum(dim=-1) > 0).int().tolist() == HAS_KEY


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_gradients_are_finite_where_rows_see_nothing(attention: CrossLevelAttention, implementation: str):
    run(attention, implementation).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_its_cache_slot_lies_behind_all_self_attentions(attention: CrossLevelAttention):
    assert attention.layer_idx == 2 + 1


@pytest.mark.parametrize("num_tokens", [FEWEST_TOKENS_FOR_BLOCKS, 133, 250])
@pytest.mark.parametrize("has_mask", [False, True])
def test_attention_in_blocks_is_attention(num_tokens: int, has_mask: bool):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 4, num_tokens, 8, generator=generator, requires_grad=True)
    keys, values = (torch.randn(2, 2, num_tokens, 8, generator=generator, requires_grad=True) for _ in range(2))
    causal = torch.ones(num_tokens, num_tokens, dtype=torch.bool).tril()
    mask = causal & (torch.rand(2, 1, num_tokens, num_tokens, generator=generator) < 0.5) | torch.eye(num_tokens).bool()
    whole = scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask if has_mask else causal, scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    sizes, ends = [num_tokens - 100, 60, 40], [num_tokens - 100, num_tokens - 40, num_tokens]
    in_blocks = attend_in_blocks(queries, keys, values, mask if has_mask else causal[None, None], sizes, ends, 0.0, 0.3)
    torch.testing.assert_close(in_blocks, whole)
    weights = torch.randn(whole.shape, generator=generator)
    expected = torch.autograd.grad((whole * weights).sum(), (queries, keys, values))
    torch.testing.assert_close(torch.autograd.grad((in_blocks * weights).sum(), (queries, keys, values)), expected)


def test_long_rows_attend_in_blocks_and_short_ones_and_steps_at_once(attention: CrossLevelAttention):
    attention.config._attn_implementation = "sdpa"
    seen = []
    for num_queries, num_keys in ((130, 130), (20, 20), (1, 130)):
        queries, keys = torch.randn(1, 4, num_queries, 8), torch.randn(1, 2, num_keys, 8)
        mask = torch.ones(1, 1, num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
        output, _ = attention.attend(queries, keys, keys, mask)
        whole = scaled_dot_product_attention(queries, keys, keys, attn_mask=mask, enable_gqa=True)
        torch.testing.assert_close(output, whole.transpose(1, 2).flatten(2))
        seen.append(output.shape[1])
    assert seen == [130, 20, 1]


def test_weights_are_dropped_in_blocks_too(attention: CrossLevelAttention):
    attention.config._attn_implementation = "sdpa"
    attention.attention_dropout = 0.5
    queries, keys = torch.randn(1, 4, 130, 8), torch.randn(1, 2, 130, 8)
    once, twice = (attention.train().attend(queries, keys, keys, None)[0] for _ in range(2))
    assert not torch.equal(once, twice)
    assert torch.equal(*(attention.eval().attend(queries, keys, keys, None)[0] for _ in range(2)))


@pytest.mark.parametrize("num_items", [5, 60])
@pytest.mark.parametrize("variant", [{}, {"session_wise": True}, {"cross_level_layers": [0, 1]}])
@pytest.mark.parametrize("packed", [False, True])
def test_leaving_out_tokens_that_neither_see_nor_are_seen_changes_nothing(
    config_of: Callable[..., GamerConfig],
    histories_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
    num_items: int,
    variant: dict[str, object],
    packed: bool,
):
    """Loss and gradients with and without the selection; the second row has no token that sees anything."""
    torch.manual_seed(0)
    model = GamerForCausalLM(config_of(**variant)).train()
    input_ids, session_ids = histories_of(3, num_items)
    input_ids[1, ::4] = 2
    segment_ids = torch.ones_like(input_ids)
    segment_ids[:, 12:] = 2
    inputs = {"session_ids": session_ids, "segment_ids": segment_ids if packed else None, "labels": input_ids}
    results = []
    for selects in (True, False):
        monkeypatch.setattr(GamerModel, "_selects_tokens", lambda *_, selects=selects: selects)
        model.zero_grad()
        loss = model(input_ids, **inputs).loss
        loss.backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


def test_only_what_sees_asks_and_only_what_may_be_seen_is_a_key():
    layout = read_layout(GamerConfig(num_hidden_layers=2, codebook_sizes=[2], behavior_levels=[0, 1, 2]), ROW)
    has_key = sees_lower_level(layout.levels, None, layout.real)
    rotary = (torch.ones(1, ROW.shape[1], 2),) * 2
    selection = select(cross_level_mask(layout.items, layout.levels, None), layout, has_key, rotary)
    assert selection.queries.columns.tolist() == [[4, 5, 8, 9]]  # the buy and the last cart
    assert selection.keys.columns.tolist() == [[0, 1, 2, 3, 6, 7, 8, 9]]  # all but the buy
    assert selection.mask[0, 0].int().tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 1, 1, 0, 0]] * 2
    assert selection.ends([2, 2]) == [4, 8]
    assert selection.ends([4]) == [8]


ROW = torch.tensor([[3, 5, 2, 5, 4, 5, 2, 6, 3, 6]])  # cart, view, buy, view, cart


def test_a_batch_that_sees_nothing_still_trains_every_weight(model_of: Callable, histories_of: Callable):
    model, (input_ids, _) = model_of().train(), histories_of(2, 5)
    input_ids[:, ::4] = 2
    model(input_ids, labels=input_ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not model.model.layers[1].cross_attn.o_proj.weight.grad.any()
