"""Item vectors from a pretrained sentence encoder (Reimers and Gurevych, Sentence-BERT, EMNLP 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.data.catalog import Catalog
from genrec.embedders.base import check_embeddings


@dataclass(frozen=True)
class TextEmbedder:
    """Embed items by what a sentence-transformers model makes of their texts.

    Args:
        model: A local folder or a hub id of a sentence-transformers model.
        columns: Text columns of the catalog, in order; None takes title, text, category and brand where they exist.
        batch_size: Texts encoded at once.
        normalize: Scale vectors to length 1.
        device: Torch device; None takes an accelerator if there is one.

    Example:
        >>> TextEmbedder("sentence-transformers/all-MiniLM-L6-v2", batch_size=32).normalize
        True
    """

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    columns: Sequence[str] | None = None
    batch_size: int = 64
    normalize: bool = True
    device: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}.")

    def embed(self, catalog: Catalog) -> np.ndarray:
        """Return `[items, dim]` float32, the width being the model's; an item without text gets the zero vector.

        Raises:
            ValueError: If no item has any text.
            OSError: If the model is neither a folder nor on the hub.
        """
        texts = catalog.texts(self.columns)
        with_text = [row for row, text in enumerate(texts) if text]
        if not with_text:
            raise ValueError(
                "No item of the catalog has a text to embed. Give the items a `title` (or name other `columns`), or "
                "use the collaborative embedder, which needs no text."
            )
        vectors = self._encode([texts[row] for row in with_text])
        embeddings = np.zeros((len(catalog), vectors.shape[1]), dtype=np.float32)
        embeddings[with_text] = vectors
        return check_embeddings(embeddings, len(catalog))

    def _encode(self, texts: list[str]) -> np.ndarray:
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(self.model, device=self.device)
        return encoder.encode(
            texts,
            batch_size=self.batch_size,
            normalize_embeddings=self.normalize,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
