"""Experts against a loop that picks each token's expert with a boolean index."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from genrec.models.gamer import GamerConfig
from genrec.models.gamer.experts import GamerMLP, PositionExperts


@pytest.fixture
def experts_of(config_of: Callable[..., GamerConfig]) -> Callable[..., PositionExperts]:
    def make(injects_behavior: bool, **fields: object) -> PositionExperts:
        generator = torch.Generator().manual_seed(0)
        experts = PositionExperts(config_of(**fields), injects_behavior).eval().double()
        for parameter in experts.parameters():
            parameter.data.normal_(generator=generator)
        return experts

    return make


def naive_output(experts: PositionExperts, hidden: Tensor, places: Tensor, behaviors: Tensor) -> Tensor:
    """Equation 5, an expert at a time: the tokens of its place, and the behavior's row unless they are behaviors."""
    output = torch.full_like(hidden, torch.nan)
    for place in range(4):
        chosen = places == place
        inputs = hidden[chosen]
        if experts.behavior_embedding is not None:
            rows = behaviors[chosen] if place else torch.zeros_like(behaviors[chosen])
            inputs = torch.cat([inputs, experts.behavior_embedding.weight[rows]], dim=1)
        expert = place if experts.num_experts > 1 else 0
        gate, up = experts.gate_up_proj[expert].split(24)
        output[chosen] = (silu(inputs @ gate.T) * (inputs @ up.T)) @ experts.down_proj[expert].T
    return output


def batch(num_tokens: int, first_place: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_tokens)
    hidden = torch.randn(3, num_tokens, 16, generator=generator, dtype=torch.float64)
    places = ((torch.arange(num_tokens) + first_place) % 4).expand(3, -1)
    return hidden, places, torch.randint(5, (3, num_tokens), generator=generator)


@pytest.mark.parametrize("injects_behavior", [False, True])
@pytest.mark.parametrize(
    ("num_tokens", "first_place"),
    [(8, 0), (9, 0), (11, 0), (1, 0), (1, 2), (8, 3), (5, 1), (2, 1), (3, 3), (4, 2)],
    ids=lambda value: str(value),
)
def test_each_token_goes_to_the_expert_of_its_place(
    experts_of: Callable[..., PositionExperts], num_tokens: int, first_place: int, injects_behavior: bool
):
    """Whole items, cut first and last items, and sequences shorter than an item."""
    experts = experts_of(injects_behavior)
    hidden, places, behaviors = batch(num_tokens, first_place)
    expected = naive_output(experts, hidden, places, behaviors)
    torch.testing.assert_close(experts(hidden, places, behaviors, first_place), expected)
    torch.testing.assert_close(experts(hidden, places, behaviors, None), expected)


@pytest.mark.parametrize("injects_behavior", [False, True])
def test_rows_may_disagree_about_places(experts_of: Callable[..., PositionExperts], injects_behavior: bool):
    experts = experts_of(injects_behavior)
    hidden, _, behaviors = batch(6, 0)
    places = torch.randint(4, (3, 6), generator=torch.Generator().manual_seed(9))
    expected = naive_output(experts, hidden, places, behaviors)
    torch.testing.assert_close(experts(hidden, places, behaviors, None), expected)


@pytest.mark.parametrize("position_experts", [False, True])
def test_one_place_can_be_asked_for_alone(experts_of: Callable[..., PositionExperts], position_experts: bool):
    experts = experts_of(True, position_experts=position_experts)
    hidden, places, behaviors = batch(8, 0)
    whole = experts(hidden, places, behaviors, 0)
    for column in range(8):
        alone = experts.at_place(hidden[:, column], column % 4, behaviors[:, column])
        torch.testing.assert_close(alone, whole[:, column])


def test_without_position_experts_all_places_share_one_network(experts_of: Callable[..., PositionExperts]):
    experts = experts_of(True, position_experts=False)
    assert experts.num_experts == 1
    hidden, places, behaviors = batch(9, 0)
    expected = naive_output(experts, hidden, places, behaviors)
    torch.testing.assert_close(experts(hidden, places, behaviors, 0), expected)


def test_behavior_tokens_do_not_read_the_behavior(experts_of: Callable[..., PositionExperts]):
    experts = experts_of(True)
    hidden, places, behaviors = batch(8, 0)
    changed = experts(hidden, places, (behaviors + 1) % 5, 0) != experts(hidden, places, behaviors, 0)
    assert not changed[places == 0].any()
    assert changed[places != 0].any(dim=-1).all()


def test_every_expert_learns_from_whole_items(experts_of: Callable[..., PositionExperts]):
    """No expert is dead: one item is enough to give each a gradient."""
    experts = experts_of(False)
    hidden, places, behaviors = batch(4, 0)
    experts(hidden, places, behaviors, 0).sum().backward()
    assert (experts.gate_up_proj.grad.abs().sum(dim=(1, 2)) > 0).all()
    assert experts.gate_up_proj.shape == (4, 48, 16)


def test_dropout_is_inside_the_plain_network(config_of: Callable[..., GamerConfig]):
    mlp = GamerMLP(config_of(dropout=0.5))
    hidden = torch.randn(2, 3, 16)
    assert not torch.equal(mlp(hidden), mlp(hidden))
    mlp.eval()
    expected = mlp.down_proj(silu(mlp.gate_proj(hidden)) * mlp.up_proj(hidden))
    torch.testing.assert_close(mlp(hidden), expected)
