"""Item vectors from several sources side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.data.catalog import Catalog
from genrec.embedders.base import Embedder, check_embeddings


@dataclass(frozen=True)
class ConcatEmbedder:
    """Put the vectors of several embedders next to each other, each brought to one scale first.

    Each part is divided by the mean length of its vectors (zero vectors aside) and multiplied by its weight, so that a
    part's say in distances is its weight and not its units.

    Args:
        parts: The embedders.
        weights: One positive weight per part; None weighs all the same.

    Example:
        >>> import pyarrow as pa
        >>> from genrec.embedders.tfidf import TfidfEmbedder
        >>> catalog = Catalog.read(pa.table({"item_id": [1, 2], "title": ["red tent", "desk"], "brand": ["A", "B"]}))
        >>> both = ConcatEmbedder([TfidfEmbedder(2, ["title"]), TfidfEmbedder(2, ["brand"])], weights=[1.0, 0.5])
        >>> np.linalg.norm(both.embed(catalog)[:, 2:], axis=1).round(3).tolist()
        [0.5, 0.5]
    """

    parts: Sequence[Embedder]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("`parts` must name at least one embedder, got none.")
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise ValueError(
                f"`weights` must have one number per part, got {len(self.weights)} for {len(self.parts)} parts."
            )
        if self.weights is not None and not all(weight > 0 for weight in self.weights):
            raise ValueError(f"`weights` must be positive, got {list(self.weights)}. Leave out a part with no weight.")

    def embed(self, catalog: Catalog) -> np.ndarray:
        """Return `[items, sum of the parts' widths]` float32.

        Raises:
            ValueError: If a part gives nothing but zero vectors.
        """
        weights = self.weights or [1.0] * len(self.parts)
        scaled = [
            weight * _unit_mean_length(check_embeddings(part.embed(catalog), len(catalog)), number)
            for number, (part, weight) in enumerate(zip(self.parts, weights, strict=True))
        ]
        return check_embeddings(np.concatenate(scaled, axis=1), len(catalog))


def _unit_mean_length(vectors: np.ndarray, number: int) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1)
    if not lengths.any():
        raise ValueError(f"Part {number} gives every item the zero vector: it knows none of the catalog. Leave it out.")
    return vectors / lengths[lengths > 0].mean()
