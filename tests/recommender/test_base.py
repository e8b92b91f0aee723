"""`Recommendations`: short rows, ids in the log's own type, and the table of them."""

import numpy as np

from genrec.recommender.base import NO_ITEM, Recommendation, Recommendations


def three_lists() -> Recommendations:
    items = np.array([[2, 0], [1, NO_ITEM], [NO_ITEM, NO_ITEM]])
    scores = np.array([[-0.5, -1.0], [-2.0, -np.inf], [-np.inf, -np.inf]])
    return Recommendations(items, scores, np.array([10, 20, 30]), np.array(["x", "y", "z"], dtype=object), 4, 2)


def test_rows_lose_their_filling():
    lists = three_lists()
    assert len(lists) == 3
    assert list(lists) == [
        Recommendation([30, 10], [-0.5, -1.0]),
        Recommendation([20], [-2.0]),
        Recommendation([], []),
    ]
    assert [len(row) for row in lists] == [2, 1, 0]
    assert type(lists[0].item_ids[0]) is int


def test_a_slice_is_again_recommendations():
    part = three_lists()[1:]
    assert isinstance(part, Recommendations)
    assert part.users.tolist() == ["y", "z"]
    assert part[0].item_ids == [20]
    assert (part.num_unknown, part.num_later) == (4, 2)


def test_the_table_has_one_row_per_item():
    assert three_lists().to_table().to_pydict() == {
        "user_id": ["x", "x", "y"],
        "item_id": [30, 10, 20],
        "rank": [1, 2, 1],
        "score": [-0.5, -1.0, -2.0],
    }
