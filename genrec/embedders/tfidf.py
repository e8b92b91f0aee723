"""Item vectors from the words of titles: TF-IDF, reduced by a truncated SVD (latent semantic analysis). No download.

Deerwester and others, Indexing by Latent Semantic Analysis, JASIS 1990.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.data.catalog import Catalog
from genrec.embedders.base import check_embeddings, unit_rows

logger = logging.getLogger(__name__)

WORD = r"(?u)\b\w+\b"


@dataclass(frozen=True)
class TfidfEmbedder:
    """Embed items by the words of their texts.

    Args:
        dim: Width of the vectors. A catalog with fewer different words (or items) than that gives vectors of its own
            smaller width, which is logged as a warning.
        columns: Text columns of the catalog, in order; None takes title, text, category and brand where they exist.
        max_words: Keep that many of the most frequent words.
        normalize: Scale vectors to length 1. An item without words has the zero vector either way.
        seed: Of the randomized SVD.

    Example:
        >>> import pyarrow as pa
        >>> catalog = Catalog.read(pa.table({"item_id": [1, 2, 3], "title": ["red tent", "blue tent", "red desk"]}))
        >>> TfidfEmbedder(dim=2).embed(catalog).shape
        (3, 2)
    """

    dim: int = 64
    columns: Sequence[str] | None = None
    max_words: int = 50_000
    normalize: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "max_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")

    def embed(self, catalog: Catalog) -> np.ndarray:
        """Return `[items, dim]` float32, or fewer columns for a small vocabulary.

        Raises:
            ValueError: If no item has any word.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.utils.extmath import randomized_svd

        texts = catalog.texts(self.columns)
        if not any(any(character.isalnum() for character in text) for text in texts):
            raise ValueError(
                "No item of the catalog has a word to embed. Give the items a `title` (or name other `columns`), or "
                "use the collaborative embedder, which needs no text."
            )
        vectorizer = TfidfVectorizer(token_pattern=WORD, max_features=self.max_words, sublinear_tf=True)
        weights = vectorizer.fit_transform(texts)
        dim = min(self.dim, *weights.shape)
        if dim < self.dim:
            logger.warning(
                "TF-IDF vectors have width %d instead of %d: %d items share %d different words.",
                *(dim, self.dim, *weights.shape),
            )
        left, scales, _ = randomized_svd(weights, n_components=dim, random_state=self.seed)
        vectors = left * scales
        has_words = np.diff(weights.indptr) > 0
        vectors = np.where(has_words[:, None], vectors, 0.0)  # the SVD leaves rounding noise in empty rows
        return check_embeddings(unit_rows(vectors) if self.normalize else vectors, len(catalog))
