"""The forward pass: padding, batches, attention implementations, Qwen3 parity, cache, loss and compilation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from genrec.models.gamer import GamerForCausalLM
from genrec.models.gamer.token_layout import read_layout

ModelOf = Callable[..., GamerForCausalLM]
PLAIN = {"cross_level_layers": [], "behavior_injection_layers": [], "position_experts": False}
VARIANTS = {
    "gamer": {},
    "session-wise": {"session_wise": True},
    "everywhere": {"cross_level_layers": [0, 1], "behavior_injection_layers": [0, 1]},
    "no-experts": {"position_experts": False},
    "no-cross": {"cross_level_layers": []},
    "no-injection": {"behavior_injection_layers": []},
    "level-softmax": {"softmax": "level"},
    "plain": PLAIN,
    "plain-session-wise": {**PLAIN, "session_wise": True},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def padded(rows: Tensor, left: int, right: int, value: int) -> Tensor:
    return torch.nn.functional.pad(rows, (left, right), value=value)


@each_variant
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(("left", "right"), [(4, 0), (0, 8), (3, 0), (0, 2), (5, 6)])
def test_padding_on_either_side_changes_nothing(
    model_of: ModelOf, histories_of: Callable, variant: str, implementation: str, left: int, right: int
):
    """Also padding that is no multiple of an item, and whatever token and session stand there."""
    model = model_of(**VARIANTS[variant], attn_implementation=implementation)
    input_ids, session_ids = histories_of(2, 4)
    with torch.no_grad():
        expected = model(input_ids, session_ids=session_ids).logits
        output = model(
            padded(input_ids, left, right, value=7),
            attention_mask=padded(torch.ones_like(input_ids), left, right, value=0),
            session_ids=padded(session_ids, left, right, value=99),
        )
    torch.testing.assert_close(output.logits[:, left : left + 16], expected, atol=2e-5, rtol=1e-5)


@each_variant
def test_a_batch_of_unlike_rows_equals_each_row_alone(model_of: ModelOf, histories_of: Callable, variant: str):
    model = model_of(**VARIANTS[variant])
    lengths, pads = (12, 5, 1, 8), (0, 7, 11, 3)  # rows whose items start at different columns
    rows = [histories_of(1, 3, seed=seed) for seed in range(4)]
    batch = [torch.zeros(4, 12, dtype=torch.long) for _ in range(3)]
    with torch.no_grad():
        for number, (row, length, pad) in enumerate(zip(rows, lengths, pads)):
            for target, values in zip(batch, (row.input_ids, row.session_ids, torch.ones_like(row.input_ids))):
                target[number, pad : pad + length] = values[0, :length]
        together = model(batch[0], session_ids=batch[1], attention_mask=batch[2]).logits
        for number, (row, length, pad) in enumerate(zip(rows, lengths, pads)):
            alone = model(row.input_ids[:, :length], session_ids=row.session_ids[:, :length]).logits
            torch.testing.assert_close(together[number, None, pad : pad + length], alone, atol=2e-5, rtol=1e-5)


@each_variant
def test_attention_implementations_agree(model_of: ModelOf, histories_of: Callable, variant: str):
    model = model_of(**VARIANTS[variant])
    input_ids, session_ids = histories_of(3, 5)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[0, :8] = attention_mask[1, -3:] = 0
    logits = {}
    for implementation in ("eager", "sdpa", "flex_attention"):
        model.set_attn_implementation(implementation)
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # flex attention without compiling it
            logits[implementation] = model(input_ids, attention_mask, session_ids=session_ids).logits
    for implementation in ("sdpa", "flex_attention"):
        torch.testing.assert_close(logits[implementation], logits["eager"], atol=2e-5, rtol=1e-5)


def test_flash_attention_is_refused(model_of: ModelOf):
    with pytest.raises(ValueError, match="does not support Flash Attention"):
        model_of(attn_implementation="flash_attention_2")


def test_with_all_extras_off_it_is_qwen3(model_of: ModelOf, histories_of: Callable):
    model = model_of(**PLAIN)
    shape = {field: value for field, value in model.config.to_dict().items() if field in Qwen3Config().to_dict()}
    qwen3 = Qwen3ForCausalLM(Qwen3Config(**shape)).eval()
    assert qwen3.load_state_dict(model.state_dict()).missing_keys == []
    input_ids, _ = histories_of(3, 5)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, -8:] = 0
    with torch.no_grad():
        ours, theirs = model(input_ids, attention_mask).logits, qwen3(input_ids, attention_mask).logits
    torch.testing.assert_close(ours[attention_mask.bool()], theirs[attention_mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["gamer", "session-wise"])
def test_a_later_token_changes_no_earlier_logit(model_of: ModelOf, histories_of: Callable, variant: str):
    model = model_of(**VARIANTS[variant])
    input_ids, session_ids = histories_of(2, 4)
    changed = input_ids.clone()
    changed[:, 9] = 6 + (changed[:, 9] - 6 + 1) % 5  # another first code of the third item
    with torch.no_grad():
        difference = (
            model(input_ids, session_ids=session_ids).logits - model(changed, session_ids=session_ids).logits
        ).abs()
    assert difference[:, :9].max() < 1e-5
    assert difference[:, 9].max() > 1e-3


def test_items_of_one_session_do_not_inform_each_other(model_of: ModelOf, histories_of: Callable):
    model = model_of(session_wise=True)
    input_ids, _ = histories_of(1, 4)
    session_ids = torch.tensor([[1, 1, 2, 2]]).repeat_interleave(4, dim=1)
    swapped = torch.cat([input_ids[:, 4:8], input_ids[:, :4], input_ids[:, 8:]], dim=1)
    with torch.no_grad():
        before = model(input_ids, session_ids=session_ids).logits
        after = model(swapped, session_ids=session_ids).logits
    torch.testing.assert_close(after[:, 4:8], before[:, :4], atol=1e-5, rtol=0)
    torch.testing.assert_close(after[:, 8:], before[:, 8:], atol=1e-5, rtol=0)


def test_only_session_wise_models_read_sessions(model_of: ModelOf, histories_of: Callable):
    input_ids, session_ids = histories_of(2, 4)
    with torch.no_grad():
        ignoring, reading = model_of(), model_of(session_wise=True)
        assert torch.equal(ignoring(input_ids).logits, ignoring(input_ids, session_ids=session_ids).logits)
        with pytest.raises(ValueError, match="session-wise model needs `session_ids`"):
            reading(input_ids)


@each_variant
@pytest.mark.parametrize("steps", [[16, 1, 1, 1], [5, 9, 5], [1] * 19])
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(
    model_of: ModelOf, histories_of: Callable, variant: str, steps: list[int]
):
    model = model_of(**VARIANTS[variant])
    input_ids, session_ids = (part[:, :19] for part in histories_of(2, 5))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[0, :4] = 0
    with torch.no_grad():
        expected = model(input_ids, attention_mask, session_ids=session_ids).logits
        cache, pieces, end = DynamicCache(), [], 0
        for step in steps:
            start, end = end, end + step
            layout = read_layout(model.config, input_ids[:, :end], attention_mask[:, :end], session_ids[:, :end])
            pieces.append(model(input_ids[:, start:end], past_key_values=cache, layout=layout, use_cache=True).logits)
    difference = torch.where(attention_mask[..., None].bool(), torch.cat(pieces, dim=1) - expected, 0)
    assert torch.nan_to_num(difference).abs().max() < 2e-5  # a level softmax subtracts infinities


def test_a_filled_cache_needs_a_layout_of_everything(model_of: ModelOf, histories_of: Callable):
    model = model_of()
    input_ids, _ = histories_of(1, 2)
    cache = model(input_ids[:, :7], use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"cannot know the behaviors.*Pass `layout`"):
        model(input_ids[:, 7:], past_key_values=cache)
    with pytest.raises(ValueError, match="`layout` must cover the 7 cached and 1 new tokens, got 1"):
        model(input_ids[:, 7:], past_key_values=cache, layout=read_layout(model.config, input_ids[:, 7:]))


def test_a_plain_model_goes_on_from_a_cache_by_itself(model_of: ModelOf, histories_of: Callable):
    model = model_of(**PLAIN)
    input_ids, _ = histories_of(1, 2)
    with torch.no_grad():
        cache = model(input_ids[:, :6], use_cache=True).past_key_values
        continued = model(input_ids[:, 6:], past_key_values=cache).logits
        torch.testing.assert_close(continued, model(input_ids).logits[:, 6:], atol=1e-5, rtol=0)


def test_each_attention_has_its_own_slot_in_the_cache(model_of: ModelOf, histories_of: Callable):
    input_ids, _ = histories_of(1, 2)
    cache = model_of(cross_level_layers=[0, 1])(input_ids, use_cache=True).past_key_values
    assert [layer.get_seq_length() for layer in cache.layers] == [8, 8, 8, 8]
    assert model_of()(input_ids, labels=input_ids).past_key_values is None


def naive_loss(logits: Tensor, labels: Tensor, weight: float, count: int) -> Tensor:
    total = torch.zeros(())
    for row, targets in zip(logits, labels.tolist()):
        for column, target in enumerate(targets[1:]):
            share = 1.0 if target >= 6 else weight if target >= 2 else 0.0
            total = total - share * row[column].log_softmax(dim=0)[target] if share else total
    return total / count


@pytest.mark.parametrize("softmax", ["full", "level"])
def test_the_loss_is_on_codes_and_the_temperature_stays_in_it(model_of: ModelOf, histories_of: Callable, softmax: str):
    model = model_of(softmax=softmax)
    input_ids, _ = histories_of(2, 4)
    labels = input_ids.clone()
    labels[0, :8], labels[1, -1] = -100, 0  # no loss; padding
    num_codes = int((labels[:, 1:] >= 6).sum())
    output = model(input_ids, labels=labels, temperature=0.7, return_logits=True)
    torch.testing.assert_close(output.logits, model(input_ids).logits)
    torch.testing.assert_close(output.loss, naive_loss(output.logits / 0.7, labels, 0.0, num_codes))
    given = model(input_ids, labels=labels, num_items_in_batch=torch.tensor(50)).loss
    torch.testing.assert_close(given, naive_loss(output.logits, labels, 0.0, 50))


def test_behaviors_bear_loss_by_their_weight(model_of: ModelOf, histories_of: Callable):
    model = model_of(behavior_loss_weight=0.25)
    input_ids, _ = histories_of(2, 4)
    labels = input_ids.clone()
    labels[0, :8] = -100
    num_labels = int((labels[:, 1:] >= 2).sum())
    output = model(input_ids, labels=labels, return_logits=True)
    torch.testing.assert_close(output.loss, naive_loss(output.logits, labels, 0.25, num_labels))


def test_losses_of_parts_add_up_to_the_loss_of_the_whole(model_of: ModelOf, histories_of: Callable):
    """What gradient accumulation and several processes rely on."""
    model = model_of(behavior_loss_weight=0.5)
    input_ids, _ = histories_of(4, 3)
    labels = input_ids.clone()
    labels[0, :8] = labels[2, :4] = -100
    count = (labels[:, 1:] != -100).sum()
    whole = model(input_ids, labels=labels).loss
    parts = [model(input_ids[rows], labels=labels[rows], num_items_in_batch=count).loss for rows in ([0], [1, 2], [3])]
    torch.testing.assert_close(sum(parts), whole)


def test_a_level_softmax_leaves_only_what_may_follow(model_of: ModelOf, histories_of: Callable):
    input_ids, _ = histories_of(1, 2)
    full, level = model_of(softmax="full")(input_ids).logits, model_of(softmax="level")(input_ids).logits
    blocks = [range(6, 11), range(11, 15), range(15, 21), range(2, 6)]
    for column in range(8):
        allowed = [token in blocks[column % 4] for token in range(21)]
        assert level[0, column].isfinite().tolist() == allowed
        assert torch.equal(level[0, column][allowed], full[0, column][allowed])


@pytest.mark.parametrize("logits_to_keep", [1, 3, torch.tensor([0, 5])])
def test_only_the_logits_asked_for_are_computed(model_of: ModelOf, histories_of: Callable, logits_to_keep: Any):
    model = model_of(softmax="level")
    input_ids, _ = histories_of(2, 2)
    columns = logits_to_keep if isinstance(logits_to_keep, Tensor) else range(8 - logits_to_keep, 8)
    kept = model(input_ids, logits_to_keep=logits_to_keep).logits
    torch.testing.assert_close(kept, model(input_ids).logits[:, list(columns)])


def gradients(model: GamerForCausalLM, input_ids: Tensor, session_ids: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(input_ids, session_ids=session_ids, labels=input_ids).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@each_variant
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(
    model_of: ModelOf, histories_of: Callable, variant: str, use_reentrant: bool
):
    model = model_of(**VARIANTS[variant]).train()
    expected = gradients(model, *histories_of(2, 4))
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    for name, gradient in gradients(model, *histories_of(2, 4)).items():
        torch.testing.assert_close(gradient, expected[name])


@each_variant
def test_every_parameter_learns(model_of: ModelOf, histories_of: Callable, variant: str):
    model = model_of(**VARIANTS[variant]).train()
    for name, gradient in gradients(model, *histories_of(8, 6)).items():
        assert gradient.abs().sum() > 0, name


def test_dropout_acts_in_training_only(model_of: ModelOf, histories_of: Callable):
    model = model_of(dropout=0.3)
    input_ids, _ = histories_of(2, 4)
    assert torch.equal(model(input_ids).logits, model(input_ids).logits)
    model.train()
    assert not torch.equal(model(input_ids).logits, model(input_ids).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_half_precision_stays_close(model_of: ModelOf, histories_of: Callable, dtype: torch.dtype, implementation: str):
    model = model_of(attn_implementation=implementation)
    input_ids, _ = histories_of(3, 4)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[0, :4] = 0
    with torch.no_grad():
        expected = model(input_ids, attention_mask).logits.log_softmax(dim=-1)
        half = model.to(dtype)(input_ids, attention_mask).logits
    assert half.dtype == dtype
    torch.testing.assert_close(half.float().log_softmax(dim=-1), expected, atol=0.3, rtol=0.05)


def test_hidden_states_and_attentions_are_returned_on_demand(model_of: ModelOf, histories_of: Callable):
    model = model_of(attn_implementation="eager")
    input_ids, _ = histories_of(2, 2)
    output = model(input_ids, output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, 8, 16)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 4, 8, 8)] * 2
    torch.testing.assert_close(output.attentions[0].sum(dim=-1), torch.ones(2, 4, 8))


def test_a_model_learns_a_fixed_answer(model_of: ModelOf, histories_of: Callable):
    model = model_of(initializer_range=0.02).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    input_ids, _ = histories_of(4, 3)
    losses = []
    for _ in range(40):
        loss = model(input_ids, labels=input_ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2.5
    assert losses[-1] < 0.3
    codes = input_ids[:, 1:4]
    logits = model.eval()(input_ids).logits[:, :3]
    assert cross_entropy(logits.flatten(0, 1), codes.flatten()) < losses[0]
