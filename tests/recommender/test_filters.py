"""`ItemFilter` builds no bigger mask than the request needs."""

import numpy as np
import pytest
import torch

from genrec.data.histories import as_histories
from genrec.recommender.filters import build_item_filter

HISTORIES = as_histories([[("a", "view")], [("b", "view"), ("c", "view")]], item_ids=["a", "b", "c"], ladder="view")
BOTH = np.arange(2)


def test_no_filter_is_no_mask():
    assert build_item_filter(HISTORIES).allowed(HISTORIES, BOTH) is None


def test_a_shared_filter_is_one_mask_for_all():
    mask = build_item_filter(HISTORIES, allow=["a", "b"], deny=["b"]).allowed(HISTORIES, BOTH)
    assert mask.tolist() == [True, False, False]


def test_seen_items_are_each_users_own():
    item_filter = build_item_filter(HISTORIES, exclude_seen=True, deny=np.array(["b", "z"]))
    assert item_filter.allowed(HISTORIES, BOTH).tolist() == [[False, False, True], [True, False, False]]
    assert item_filter.allowed(HISTORIES.select(np.array([1])), np.array([1])).tolist() == [[True, False, False]]


def test_masks_of_each_user_follow_the_rows():
    deny = np.array([[True, False, False], [False, False, True]])
    item_filter = build_item_filter(HISTORIES, deny=deny, allow=["a", "c"])
    assert item_filter.allowed(HISTORIES.select(BOTH[::-1]), BOTH[::-1]).tolist() == [
        [True, False, False],
        [False, False, True],
    ]


NUMBERED = as_histories([[(7, "view")], []], item_ids=[7, 8, 9], ladder="view")


@pytest.mark.parametrize("ids", [torch.tensor([8, 9]), np.array([8, 9]), [8, np.int64(9)], {8, 9}, (n for n in (8, 9))])
def test_ids_come_in_any_collection(ids):
    assert build_item_filter(NUMBERED, deny=ids).allowed(NUMBERED, BOTH).tolist() == [True, False, False]


MASK = [[True, False, False], [False, False, True]]


@pytest.mark.parametrize("of_kind", [torch.tensor, np.array, list])
def test_a_mask_comes_as_tensor_array_or_list(of_kind):
    shared = build_item_filter(NUMBERED, allow=of_kind(MASK[0]))
    assert shared.allowed(NUMBERED, BOTH).tolist() == MASK[0]
    own = build_item_filter(NUMBERED, allow=of_kind(MASK))
    assert own.allowed(NUMBERED, BOTH).tolist() == MASK


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([torch.tensor(8)], r"`deny` must hold item ids .* got tensor\(8\) \(Tensor\)"),
        ([[8], [9]], r"got \[8\] \(list\)"),
        ([8, True], r"got True \(bool\)"),
        (np.array([[7, 8]]), r"got \[7, 8\] \(list\)"),
        ([[True, False, True], [True]], r"rows of one length, got lengths \[1, 3\]"),
        ([True, False], r"must have the shape \(3,\) or \(2, 3\)"),
        ("8", r"got the string '8'"),
    ],
)
def test_what_would_forbid_nothing_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        build_item_filter(NUMBERED, deny=wrong)
