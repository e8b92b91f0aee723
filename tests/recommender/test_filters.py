"""`ItemFilter` builds no bigger mask than the request needs."""

import numpy as np

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
