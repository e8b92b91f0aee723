"""What every embedder promises, and the check that tokenizers rely on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genrec.data.catalog import Catalog
from genrec.data.histories import Histories
from genrec.data.market import SyntheticMarket
from genrec.embedders.base import Embedder, check_embeddings, unit_rows
from genrec.embedders.collaborative import CollaborativeEmbedder
from genrec.embedders.concat import ConcatEmbedder
from genrec.embedders.precomputed import PrecomputedEmbedder
from genrec.embedders.tfidf import TfidfEmbedder

MARKET = SyntheticMarket(num_users=120, num_items=60, num_categories=3, seed=17)


def make_precomputed(folder: Path, histories: Histories) -> Embedder:
    np.save(folder / "vectors.npy", np.random.default_rng(0).normal(size=(60, 5)))
    return PrecomputedEmbedder(folder / "vectors.npy")


MAKERS: dict[str, Callable[[Path, Histories], Embedder]] = {
    "tfidf": lambda folder, histories: TfidfEmbedder(dim=12),
    "collaborative": lambda folder, histories: CollaborativeEmbedder(dim=12).fit(histories),
    "precomputed": make_precomputed,
    "concat": lambda folder, histories: ConcatEmbedder(
        [TfidfEmbedder(dim=6), CollaborativeEmbedder(dim=6).fit(histories)], weights=[1.0, 0.5]
    ),
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return MARKET.catalog()


@pytest.mark.parametrize("name", MAKERS)
def test_embedders_give_finite_float32_rows_and_repeat_themselves(name, catalog, tmp_path):
    first, second = (MAKERS[name](tmp_path, MARKET.histories()) for _ in range(2))
    assert isinstance(first, Embedder)
    vectors = first.embed(catalog)
    assert vectors.dtype == np.float32
    assert vectors.flags["C_CONTIGUOUS"]
    assert len(vectors) == len(catalog)
    assert np.isfinite(vectors).all()
    assert np.array_equal(vectors, second.embed(catalog))


@pytest.mark.parametrize("name", ["tfidf", "collaborative", "concat"])
def test_items_of_one_need_lie_nearer_to_each_other(name, catalog, tmp_path):
    """Titles name the subcategory and sessions serve one: either way an item's own kind is nearer than the others."""
    vectors = unit_rows(MAKERS[name](tmp_path, MARKET.histories()).embed(catalog))
    kinds = np.array(catalog.column("subcategory"))
    similarity = vectors @ vectors.T
    is_same = (kinds[:, None] == kinds) & ~np.eye(len(kinds), dtype=bool)
    is_other = kinds[:, None] != kinds
    assert similarity[is_same].mean() > similarity[is_other].mean() + 0.1


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([[0.0], [np.nan], [np.inf]], r"row 1 has nan in column 0 \(and 2 rows in all"),
        ([[0.0, 1.0], [1e300, 0.0], [0.0, 0.0]], "row 1 has inf in column 0"),
        ([[0.0], [1.0]], "got 2 rows for 3 items"),
        ([0.0, 1.0, 2.0], r"got shape \[3\] of float64"),
        (np.zeros((3, 0)), r"got shape \[3, 0\]"),
        ([["a"], ["b"], ["c"]], "Embeddings must be numbers"),
    ],
)
def test_unusable_embeddings_are_refused(embeddings, message):
    with pytest.raises(ValueError, match=message):
        check_embeddings(embeddings, num_items=3)
