"""Several users in one row: they must not know of each other."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genrec.models.gamer import GamerForCausalLM
from genrec.models.gamer.behavior_masks import sees_lower_level
from genrec.models.gamer.token_layout import read_layout

ModelOf = Callable[..., GamerForCausalLM]
VARIANTS = {
    "gamer": {},
    "session-wise": {"session_wise": True},
    "everywhere": {"cross_level_layers": [0, 1], "behavior_injection_layers": [0, 1], "session_wise": True},
    "level-softmax": {"softmax": "level"},
    "plain": {"cross_level_layers": [], "behavior_injection_layers": [], "position_experts": False},
}
NUM_ITEMS = (3, 1, 4, 2)  # of four users
PACKED = ((2, 1), (0, 3))  # users in the two rows, of five items each


def users(histories_of: Callable) -> list[tuple[Tensor, Tensor]]:
    drawn = [histories_of(1, number, seed=number) for number in NUM_ITEMS]
    return [(history.input_ids[0], history.session_ids[0]) for history in drawn]


def packed(histories_of: Callable, num_pads: int) -> dict[str, Tensor]:
    """Return two rows of two users each; sessions of the second begin anew, at a lower number."""
    histories = users(histories_of)
    rows: dict[str, list[Tensor]] = {"input_ids": [], "session_ids": [], "segment_ids": []}
    for row in PACKED:
        parts = [histories[user] for user in row]
        segments = [torch.full_like(ids, number + 1) for number, (ids, _) in enumerate(parts)]
        columns = ([ids for ids, _ in parts], [sessions for _, sessions in parts], segments)
        for target, values in zip(rows.values(), columns):
            target.append(torch.nn.functional.pad(torch.cat(values), (0, num_pads)))
    return {name: torch.stack(values) for name, values in rows.items()}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("num_pads", [0, 4])
def test_each_user_of_a_packed_row_has_the_logits_of_a_row_alone(
    model_of: ModelOf, histories_of: Callable, variant: str, implementation: str, num_pads: int
):
    model = model_of(**VARIANTS[variant])
    model.set_attn_implementation(implementation)
    batch = packed(histories_of, num_pads)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        logits = model(**batch, attention_mask=(batch["segment_ids"] > 0).long()).logits
        assert torch.equal(model(**batch).logits, logits), "segments say what is padding"
        for row, members in enumerate(PACKED):
            for number, user in enumerate(members):
                ids, sessions = users(histories_of)[user]
                alone = model(ids[None], session_ids=sessions[None]).logits[0]
                together = logits[row, batch["segment_ids"][row] == number + 1]
                torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


def labels_of(batch: dict[str, Tensor]) -> Tensor:
    """Return labels in which no user's first behavior token is predicted by the user before."""
    starts = torch.nn.functional.pad(batch["segment_ids"][:, 1:] != batch["segment_ids"][:, :-1], (1, 0), value=True)
    return batch["input_ids"].masked_fill(starts | (batch["segment_ids"] == 0), -100)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_packed_batch_has_the_loss_and_gradients_of_one_row_per_user(
    model_of: ModelOf, histories_of: Callable, variant: str
):
    model = model_of(**VARIANTS[variant], behavior_loss_weight=0.5).train()
    batch = packed(histories_of, num_pads=8)
    results = []
    count = sum(4 * number - 1 for number in NUM_ITEMS)
    packed_loss = model(**batch, labels=labels_of(batch)).loss
    separate = sum(
        model(ids[None], session_ids=sessions[None], labels=ids[None], num_items_in_batch=count).loss
        for ids, sessions in users(histories_of)
    )
    for loss in (packed_loss, separate):
        model.zero_grad()
        loss.backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


def test_positions_and_sessions_begin_anew_by_hand(model_of: ModelOf):
    input_ids = torch.tensor([[2, 6, 11, 15, 3, 7, 12, 16, 4, 6, 11, 15, 2, 6, 11, 15, 0, 0, 0, 0]])
    segments = torch.tensor([1, 1, 2, 2, 0]).repeat_interleave(4)[None]
    sessions = torch.tensor([3, 5, 1, 1, 0]).repeat_interleave(4)[None]
    causal = read_layout(model_of().config, input_ids, segment_ids=segments)
    assert causal.rotary_positions(4)[0, :16].tolist() == [*range(8), *range(8)]
    by_session = read_layout(model_of(session_wise=True).config, input_ids, None, sessions, segments)
    assert by_session.sessions is not None
    assert by_session.sessions[0, :16:4].tolist() == [0, 1, 2, 2]
    assert by_session.rotary_positions(4)[0, :16].tolist() == [*range(8), 0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("session_wise", [False, True])
def test_no_level_of_another_user_counts_as_lower(model_of: ModelOf, session_wise: bool):
    generator = torch.Generator().manual_seed(5)
    levels = torch.randint(-1, 3, (20, 12), generator=generator)
    segments = torch.randint(2, (20, 12), generator=generator).cumsum(dim=1) + 1
    changed = torch.randint(2, (20, 12), generator=generator).cumsum(dim=1)
    sessions = changed + 100 * segments if session_wise else None
    real = torch.ones_like(levels, dtype=torch.bool)
    found = sees_lower_level(levels, sessions, real, segments)
    for row in range(20):
        for token in range(12):
            before = [
                key
                for key in range(token)
                if segments[row, key] == segments[row, token]
                and (sessions is None or sessions[row, key] < sessions[row, token])
            ]
            expected = any(0 <= levels[row, key] < levels[row, token] for key in before)
            assert found[row, token] == expected


def test_what_needs_a_row_per_user_refuses_packed_rows(model_of: ModelOf, histories_of: Callable):
    batch = packed(histories_of, num_pads=0)
    with pytest.raises(ValueError, match="With a mixture each user needs a row of their own"):
        model_of(copy_head=True)(**batch)
    with pytest.raises(ValueError, match="With `time_context` each user needs a row of their own"):
        model_of(time_context=True)(**batch)
