"""TF-IDF vectors, against similarities computed without the SVD."""

import logging

import numpy as np
import pyarrow as pa
import pytest

from genrec.data.catalog import Catalog
from genrec.embedders.tfidf import TfidfEmbedder


def catalog_of(titles: list[str | None], **columns: list[str]) -> Catalog:
    return Catalog.read(pa.table({"item_id": list(range(len(titles))), "title": titles, **columns}))


def test_full_width_keeps_the_similarities_of_tfidf():
    """Three documents, one shared word: idf = 1 + ln(4 / (1 + df)), cosines by hand."""
    vectors = TfidfEmbedder(dim=5).embed(catalog_of(["red tent", "blue tent", "green desk"]))
    rare, shared = 1 + np.log(4 / 2), 1 + np.log(4 / 3)
    cosine = shared**2 / (rare**2 + shared**2)
    expected = [[1, cosine, 0], [cosine, 1, 0], [0, 0, 1]]
    assert vectors @ vectors.T == pytest.approx(np.array(expected), abs=1e-5)


def test_a_small_vocabulary_gives_narrower_vectors_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        vectors = TfidfEmbedder(dim=64).embed(catalog_of(["a b", "b c", "c a", "b b"]))
    assert vectors.shape == (4, 3)
    assert "width 3 instead of 64: 4 items share 3 different words" in caplog.text


def test_items_without_words_get_the_zero_vector():
    vectors = TfidfEmbedder(dim=2).embed(catalog_of(["red tent", None, "red desk", "--"]))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 0], abs=1e-6)
    assert vectors[1].tolist() == [0.0, 0.0]


def test_columns_choose_what_is_read():
    catalog = catalog_of(["x", "y"], brand=["same", "same"])
    both, brands = (TfidfEmbedder(dim=2, columns=columns).embed(catalog) for columns in (None, ["brand"]))
    assert brands[0] == pytest.approx(brands[1])
    assert both[0] != pytest.approx(both[1])


def test_without_normalization_repeated_words_count():
    lengths = np.linalg.norm(TfidfEmbedder(dim=2, normalize=False).embed(catalog_of(["tent", "desk"])), axis=1)
    assert lengths == pytest.approx([1, 1])  # TF-IDF rows have length 1, and nothing is lost at full width


@pytest.mark.parametrize("catalog", [Catalog([1, 2]), catalog_of([None, "..."])])
def test_a_catalog_without_words_is_refused(catalog):
    with pytest.raises(ValueError, match="No item of the catalog has a word to embed"):
        TfidfEmbedder().embed(catalog)


@pytest.mark.parametrize("name", ["dim", "max_words"])
def test_sizes_must_be_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        TfidfEmbedder(**{name: 0})
