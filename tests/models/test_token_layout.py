"""What tokens are, worked out by hand and by a loop over tokens."""

from collections.abc import Callable

import pytest
import torch

from genrec.models.gamer import GamerConfig
from genrec.models.gamer.token_layout import read_layout, token_places


def test_every_token_id_has_its_place(config_of: Callable[..., GamerConfig]):
    places = token_places(config_of(), torch.arange(21))
    assert places.tolist() == [0, 0, 0, 0, 0, 0] + [1] * 5 + [2] * 4 + [3] * 6


def test_layout_of_a_padded_row_by_hand(config_of: Callable[..., GamerConfig]):
    input_ids = torch.tensor([[0, 0, 4, 6, 12, 20, 2, 10, 11, 15, 5]])  # 2 pads, behaviors 2 and 0, asked: 3
    session_ids = torch.tensor([[9, 9, 3, 3, 3, 3, 7, 7, 7, 7, 8]])
    layout = read_layout(config_of(session_wise=True), input_ids, input_ids > 0, session_ids)
    assert layout.places.tolist() == [[0, 0, 0, 1, 2, 3, 0, 1, 2, 3, 0]]
    assert layout.items.tolist() == [[1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5]]
    assert layout.behaviors.tolist() == [[0, 0, 3, 3, 3, 3, 1, 1, 1, 1, 4]]
    assert layout.levels.tolist() == [[-1, -1, 1, 1, 1, 1, 0, 0, 0, 0, 2]]
    assert layout.sessions is not None
    assert layout.sessions.tolist() == [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2]]
    assert layout.rotary_positions(4).tolist() == [[0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]]


def test_rotary_positions_count_real_tokens_or_go_by_session(config_of: Callable[..., GamerConfig]):
    input_ids = torch.tensor([[0, 2, 6, 11, 15, 2, 6, 11, 15, 3]])
    session_ids = torch.tensor([[0, 4, 4, 4, 4, 4, 4, 4, 4, 5]])  # two items of one session share positions
    by_count = read_layout(config_of(), input_ids, input_ids > 0, session_ids)
    assert by_count.sessions is None
    assert by_count.rotary_positions(4).tolist() == [[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]]
    by_session = read_layout(config_of(session_wise=True), input_ids, input_ids > 0, session_ids)
    assert by_session.rotary_positions(4).tolist() == [[0, 0, 1, 2, 3, 0, 1, 2, 3, 4]]


def test_session_ranks_equal_a_loop_and_ignore_the_value_at_padding(config_of: Callable[..., GamerConfig]):
    generator = torch.Generator().manual_seed(3)
    input_ids = torch.full((40, 9), 2)
    real = torch.rand(40, 9, generator=generator) < 0.7  # padding anywhere, even between items
    sessions = torch.randint(3, (40, 9), generator=generator).cumsum(dim=1)
    noise = torch.randint(-5, 50, (40, 9), generator=generator)
    layout = read_layout(config_of(session_wise=True), input_ids, real, torch.where(real, sessions, noise))
    assert layout.sessions is not None
    for row in range(40):
        ids = sessions[row][real[row]].tolist()
        expected = [sorted(set(ids)).index(session) for session in ids]
        assert layout.sessions[row][real[row]].tolist() == expected


def test_the_mask_token_belongs_to_no_behavior(config_of: Callable[..., GamerConfig]):
    layout = read_layout(config_of(), torch.tensor([[5, 6, 11, 15, 1, 6, 11, 15]]))
    assert layout.behaviors.tolist() == [[4, 4, 4, 4, 0, 0, 0, 0]]
    assert layout.levels.tolist() == [[2, 2, 2, 2, -1, -1, -1, -1]]


def test_the_last_tokens_keep_what_they_are(config_of: Callable[..., GamerConfig]):
    layout = read_layout(config_of(), torch.tensor([[5, 6, 11, 15, 2]]))
    last = layout.last(2)
    assert (last.places.tolist(), last.behaviors.tolist(), last.sessions) == ([[3, 0]], [[4, 1]], None)


def test_missing_sessions_and_wrong_shapes_are_refused(config_of: Callable[..., GamerConfig]):
    input_ids = torch.tensor([[2, 6, 11, 15]])
    with pytest.raises(ValueError, match="session-wise model needs `session_ids`"):
        read_layout(config_of(session_wise=True), input_ids)
    with pytest.raises(ValueError, match=r"`attention_mask` must have one value per token.*\(1, 4\), got \(1, 3\)"):
        read_layout(config_of(), input_ids, torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"`session_ids` must have one value per token.*got \(1, 1\)"):
        read_layout(config_of(), input_ids, session_ids=torch.ones(1, 1, dtype=torch.long))
