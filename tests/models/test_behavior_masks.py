"""Every mask as a picture: a row per asking token, a column per token that may be seen."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask

from genrec.models.gamer import GamerConfig
from genrec.models.gamer.behavior_masks import MASKS, build_mask, sees_lower_level
from genrec.models.gamer.token_layout import TokenLayout, read_layout

# Items of two tokens, so that pictures stay small: behaviors 0, 1, 0, 1 of levels 0, 1, 0, 1 in sessions 0, 0, 1, 1.
ITEMS = torch.tensor([[1, 1, 2, 2, 3, 3, 4, 4]])
LEVELS = torch.tensor([[0, 0, 1, 1, 0, 0, 1, 1]])
SESSIONS = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
PICTURES = {
    "causal": """
        1 . . . . . . .
        1 1 . . . . . .
        1 1 1 . . . . .
        1 1 1 1 . . . .
        1 1 1 1 1 . . .
        1 1 1 1 1 1 . .
        1 1 1 1 1 1 1 .
        1 1 1 1 1 1 1 1
    """,
    "session_causal": """
        1 . . . . . . .
        1 1 . . . . . .
        . . 1 . . . . .
        . . 1 1 . . . .
        1 1 1 1 1 . . .
        1 1 1 1 1 1 . .
        1 1 1 1 . . 1 .
        1 1 1 1 . . 1 1
    """,
    "cross_level": """
        . . . . . . . .
        . . . . . . . .
        1 1 . . . . . .
        1 1 . . . . . .
        . . . . . . . .
        . . . . . . . .
        1 1 . . 1 1 . .
        1 1 . . 1 1 . .
    """,
    "session_cross_level": """
        . . . . . . . .
        . . . . . . . .
        . . . . . . . .
        . . . . . . . .
        . . . . . . . .
        . . . . . . . .
        1 1 . . . . . .
        1 1 . . . . . .
    """,
}


def picture(mask: Tensor) -> list[str]:
    return [" ".join("1" if seen else "." for seen in row) for row in mask.tolist()]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def test_there_is_a_picture_of_every_mask():
    assert PICTURES.keys() == MASKS.keys()


@pytest.mark.parametrize("name", PICTURES)
def test_masks_look_like_their_pictures(name: str):
    visible = MASKS[name](ITEMS, LEVELS, SESSIONS)
    assert picture(create_mask(visible, 1, 1, 8, 8, device="cpu")[0, 0]) == lines(PICTURES[name])


def test_behaviors_of_one_level_do_not_see_each_other(config_of: Callable[..., GamerConfig]):
    """The ladder's levels decide, not the behaviors: 1 and 2 share a level here."""
    layout = read_layout(config_of(), torch.tensor([[2, 3, 4, 5]]))  # behavior tokens alone
    visible = MASKS["cross_level"](layout.items, layout.levels, layout.sessions)
    assert picture(create_mask(visible, 1, 1, 4, 4, device="cpu")[0, 0]) == lines("""
        . . . .
        1 . . .
        1 . . .
        1 1 1 .
    """)


def test_padded_keys_are_hidden_and_a_lonely_token_sees_itself():
    """Padding, at columns 0 and 3, is seen by nobody else, on either side of a token."""
    real = torch.tensor([[False, True, True, False]])
    visible = MASKS["causal"](ITEMS, LEVELS, SESSIONS)
    mask = build_mask(visible, real, real, num_queries=4, implementation="sdpa", dtype=torch.float32)
    assert picture(mask[0, 0]) == lines("""
        1 . . .
        . 1 . .
        . 1 1 .
        . 1 1 1
    """)


def test_a_cached_step_asks_for_the_last_rows_of_the_whole_picture():
    real = torch.ones_like(ITEMS, dtype=torch.bool)
    visible = MASKS["session_causal"](ITEMS, LEVELS, SESSIONS)
    mask = build_mask(visible, real, real, num_queries=3, implementation="sdpa", dtype=torch.float32)
    assert picture(mask[0, 0]) == lines(PICTURES["session_causal"])[-3:]


def random_layout(config: GamerConfig) -> TokenLayout:
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(0, 6, (30, 12), generator=generator)  # pads, masks and behaviors of three levels
    session_ids = torch.randint(2, (30, 12), generator=generator).cumsum(dim=1)
    return read_layout(config, input_ids, input_ids > 0, session_ids)


@pytest.mark.parametrize("session_wise", [False, True])
def test_sees_lower_level_says_which_rows_of_the_mask_are_empty(
    config_of: Callable[..., GamerConfig], session_wise: bool
):
    layout = random_layout(config_of(session_wise=session_wise))
    visible = MASKS["session_cross_level" if session_wise else "cross_level"](
        layout.items, layout.levels, layout.sessions
    )
    dense = create_mask(visible, 30, 1, 12, 12, device="cpu")[:, 0] & layout.real[:, None, :]
    expected = dense.any(dim=-1)
    assert expected.any()
    assert not expected.all()
    assert torch.equal(sees_lower_level(layout.levels, layout.sessions, layout.real), expected)


@pytest.mark.parametrize("name", PICTURES)
def test_kernels_get_the_same_mask_in_their_own_form(config_of: Callable[..., GamerConfig], name: str):
    layout = random_layout(config_of(session_wise=True))
    visible = MASKS[name](layout.items, layout.levels, layout.sessions)
    arguments = (visible, layout.real, torch.zeros_like(layout.real), 5)
    boolean = build_mask(*arguments, "sdpa", torch.float32)
    additive = build_mask(*arguments, "eager", torch.float16)
    assert boolean.shape == (30, 1, 5, 12)
    assert torch.equal(additive, torch.where(boolean, 0.0, -65504.0).half())
    block_mask = build_mask(*arguments, "flex_attention", torch.float32)
    assert torch.equal(create_mask(block_mask.mask_mod, 30, 1, 5, 12, device="cpu"), boolean)
