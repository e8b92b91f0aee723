"""Places in padded rows, against a naive reading row by row."""

import pytest
import torch

from genrec.models.discriminative.sequences import last_places, places_before, positions_of

PADDED_RIGHT = torch.tensor([[4, 4, 7, 9, 9, 1], [3, 5, -1, -1, -1, -1], [-1, -1, -1, -1, -1, -1]])
SESSIONS = torch.tensor([[1, 1, 2, 2, 2, 5], [3, 4, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])


def naive_places_before(items, sessions):
    expected = []
    for row, numbers in zip(items.tolist(), sessions.tolist()):
        columns = [column for column, item in enumerate(row) if item >= 0]
        places = []
        for column in range(len(row)):
            earlier = [c for c in columns if c < column and (numbers[c] < numbers[column])]
            places.append(max(earlier, default=-1))
        expected.append(places)
    return torch.tensor(expected)


@pytest.mark.parametrize("shift", [0, 4])
def test_an_item_is_predicted_from_the_one_before_or_from_the_session_before(shift):
    items, sessions = PADDED_RIGHT[:2].roll(shift, dims=1), SESSIONS[:2].roll(shift, dims=1)
    items, sessions = (items[1:], sessions[1:]) if shift else (items, sessions)  # only the short row moves whole
    is_real = items >= 0
    columns = torch.arange(items.shape[1]).expand_as(items)  # each item a session of its own
    assert (places_before(is_real) == naive_places_before(items, columns))[is_real].all()
    assert (places_before(is_real, sessions) == naive_places_before(items, sessions))[is_real].all()


def test_positions_and_last_places_do_not_count_pads():
    is_real = PADDED_RIGHT >= 0
    assert positions_of(is_real)[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert last_places(is_real).tolist() == [5, 1, 0]
    assert positions_of(is_real.flip(1))[1].tolist() == [0, 0, 0, 0, 0, 1]
    assert last_places(is_real.flip(1)).tolist() == [5, 5, 0]
