"""Concatenation: every part has the mean length that its weight says."""

from dataclasses import dataclass

import numpy as np
import pytest

from genrec.data.catalog import Catalog
from genrec.embedders.concat import ConcatEmbedder


@dataclass
class FixedEmbedder:
    vectors: list[list[float]]

    def embed(self, catalog: Catalog) -> np.ndarray:
        return np.array(self.vectors, dtype=np.float32)


CATALOG = Catalog(["a", "b", "c"])
SMALL = FixedEmbedder([[0.1], [0.0], [0.3]])
LARGE = FixedEmbedder([[30.0, 40.0], [0.0, 100.0], [0.0, 0.0]])


def test_parts_are_scaled_by_their_mean_length_times_weight():
    """Mean lengths of the nonzero vectors are 0.2 and 75; the weights are 1 and 3."""
    vectors = ConcatEmbedder([SMALL, LARGE], weights=[1, 3]).embed(CATALOG)
    expected = [[0.5, 30 / 25, 40 / 25], [0, 0, 4], [1.5, 0, 0]]
    assert vectors == pytest.approx(np.array(expected), rel=1e-6)


def test_without_weights_all_parts_weigh_the_same():
    vectors = ConcatEmbedder([SMALL, LARGE]).embed(CATALOG)
    for part in (vectors[:, :1], vectors[:, 1:]):
        lengths = np.linalg.norm(part, axis=1)
        assert lengths[lengths > 0].mean() == pytest.approx(1)


def test_bad_parts_are_refused():
    with pytest.raises(ValueError, match="`parts` must name at least one"):
        ConcatEmbedder([])
    with pytest.raises(ValueError, match="got 1 for 2 parts"):
        ConcatEmbedder([SMALL, LARGE], weights=[1.0])
    with pytest.raises(ValueError, match="`weights` must be positive"):
        ConcatEmbedder([SMALL], weights=[0.0])
    with pytest.raises(ValueError, match="Part 1 gives every item the zero vector"):
        ConcatEmbedder([SMALL, FixedEmbedder([[0.0]] * 3)]).embed(CATALOG)
    with pytest.raises(ValueError, match="got 2 rows for 3 items"):
        ConcatEmbedder([FixedEmbedder([[1.0]] * 2)]).embed(CATALOG)
