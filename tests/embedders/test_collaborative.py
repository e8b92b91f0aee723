"""Co-occurrence vectors: the counts against a double loop, the rest against arithmetic by hand."""

import numpy as np
import pytest

from genrec.data.catalog import Catalog
from genrec.data.histories import Histories, as_histories
from genrec.data.market import SyntheticMarket
from genrec.embedders.collaborative import CollaborativeEmbedder, neighbour_counts, positive_information


def naive_counts(histories: Histories, window: int, session_weight: float) -> np.ndarray:
    counts = np.zeros((len(histories.item_ids),) * 2)
    for history in histories:
        visits = []
        for item, session in zip(history.items.tolist(), history.sessions.tolist(), strict=True):
            if not visits or visits[-1][0] != item:
                visits.append((item, session))
        for place, (item, session) in enumerate(visits):
            for distance, (other, other_session) in enumerate(visits[place + 1 : place + 1 + window], start=1):
                if item != other:
                    weight = (session_weight if session == other_session else 1.0) / distance
                    counts[item, other] += weight
                    counts[other, item] += weight
    return counts


@pytest.mark.parametrize(("window", "session_weight"), [(1, 1.0), (4, 2.5), (1000, 0.5)])
def test_counts_are_those_of_a_double_loop(window, session_weight):
    histories = SyntheticMarket(num_users=25, num_items=20, num_categories=2, seed=2).histories()
    counts = neighbour_counts(histories, window, session_weight)
    assert counts.toarray() == pytest.approx(naive_counts(histories, window, session_weight))


def test_information_by_hand():
    """Items a, b, c meet as ab twice and bc once: n_a = 2, n_b = 3, n_c = 1; contexts are n ** 0.5 / (their sum)."""
    log = as_histories([[("a", "v"), ("b", "v")], [("b", "v"), ("a", "v")], [("b", "v"), ("c", "v")]], list("abc"), "v")
    information = positive_information(neighbour_counts(log, window=1, session_weight=1.0), smoothing=0.5, shift=0.1)
    contexts = np.sqrt([2, 3, 1]) / np.sqrt([2, 3, 1]).sum()
    expected = [
        [0, np.log(1 / contexts[1]) - 0.1, 0],
        [np.log(2 / 3 / contexts[0]) - 0.1, 0, np.log(1 / 3 / contexts[2]) - 0.1],
        [0, np.log(1 / contexts[1]) - 0.1, 0],
    ]
    assert information.toarray() == pytest.approx(np.maximum(expected, 0))


def test_items_that_meet_are_alike_and_others_are_not():
    groups = ["abc", "def", "ghi"]
    log = as_histories([[(item, "v") for item in group] for group in groups * 5], list("abcdefghi"), "v")
    vectors = CollaborativeEmbedder(dim=3).fit(log).embed(Catalog(list("abcdefghi")))
    similarity = vectors @ vectors.T
    in_group = np.kron(np.eye(3), np.ones((3, 3))).astype(bool)
    assert similarity[in_group].min() > 0.9
    assert np.abs(similarity[~in_group]).max() < 0.1


def test_items_never_met_have_the_zero_vector_and_others_length_one():
    log = as_histories([[("a", "v"), ("b", "v"), ("b", "v")], [("c", "v")]], list("abcd"), "v")
    vectors = CollaborativeEmbedder(dim=8).fit(log).embed(Catalog(["d", "new", "b", "a", "c"]))
    assert vectors.shape == (5, 2)  # two items with neighbours
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([0, 0, 1, 1, 0], abs=1e-6)


def test_a_log_without_information_still_tells_items_apart():
    """Everybody meets everything: all mutual information is zero, but each item remains itself."""
    log = as_histories([[("a", "v"), ("b", "v")]] * 4, list("ab"), "v")
    vectors = CollaborativeEmbedder(dim=2, shift=5.0).fit(log).embed(Catalog(list("ab")))
    assert vectors @ vectors.T == pytest.approx(np.eye(2), abs=1e-6)


def test_vectors_follow_ids_and_not_rows():
    market = SyntheticMarket(num_users=40, num_items=30, num_categories=2, seed=3)
    embedder = CollaborativeEmbedder(dim=4).fit(market.histories())
    order = np.random.default_rng(0).permutation(30)
    whole = embedder.embed(Catalog(market.item_ids))
    assert np.array_equal(embedder.embed(Catalog(market.item_ids[order])), whole[order])


def test_only_the_given_histories_are_read():
    log = as_histories([[("a", "v"), ("b", "v")], [("a", "v"), ("c", "v")]], list("abc"), "v")
    vectors = CollaborativeEmbedder(dim=2).fit(log.select(np.array([0]))).embed(Catalog(list("abc")))
    assert not vectors[2].any()


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="Call `fit` with the training part first"):
        CollaborativeEmbedder().embed(Catalog(["a"]))
    lonely = as_histories([[("a", "v"), ("a", "v")], [("b", "v")]], list("ab"), "v")
    with pytest.raises(ValueError, match="No user of the 2 histories met two different items"):
        CollaborativeEmbedder().fit(lonely)
    nobody = as_histories([], list("ab"), "v")
    with pytest.raises(ValueError, match="No user of the 0 histories"):
        CollaborativeEmbedder().fit(nobody)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "`dim` must be at least 1"),
        ({"window": 0}, "`window` must be at least 1"),
        ({"session_weight": 0.0}, "`session_weight` must be positive"),
        ({"smoothing": 1.5}, "`smoothing` must be between 0 and 1"),
        ({"shift": -1.0}, "`shift` must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CollaborativeEmbedder(**settings)
