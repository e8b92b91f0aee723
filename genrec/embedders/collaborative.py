"""Item vectors from who is near whom in histories: a matrix factorisation of positive pointwise mutual information.

Items that users meet close to each other, or close to the same items, get similar vectors: the count-based twin of
item2vec (Levy and Goldberg, Neural Word Embedding as Implicit Matrix Factorization, NIPS 2014; smoothed contexts, the
square root of the singular values and the sum of item and context vectors from Levy, Goldberg and Dagan, TACL 2015).
Deterministic, sparse, and free of text.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.histories import Histories, ItemIndex
from genrec.embedders.base import check_embeddings, unit_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


POWER_ITERATIONS = 3  # of the randomized SVD; more changes nothing that can be measured


@dataclass
class CollaborativeEmbedder:
    """Embed items by their neighbours in users' histories. Fit it on the training part only.

    Args:
        dim: Width of the vectors; smaller if fewer items than that were met.
        window: How many of the following items count as neighbours. Repeated events on one item in a row count once.
        session_weight: How much more two items of one session count than two of different sessions.
        smoothing: Exponent on context counts; below 1 it keeps rare items from claiming too much.
        shift: What is taken off the mutual information before it is cut at zero (the log of the number of negatives).
        seed: Of the randomized SVD.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> log = as_histories([[("a", "buy"), ("b", "buy")], [("c", "buy"), ("d", "buy")]] * 3, list("abcde"), "buy")
        >>> vectors = CollaborativeEmbedder(dim=2).fit(log).embed(Catalog(list("abcde")))
        >>> similarity = vectors @ vectors.T
        >>> bool(similarity[0, 1] > similarity[0, 2]), vectors[4].tolist()
        (True, [0.0, 0.0])
    """

    dim: int = 128
    window: int = 10
    session_weight: float = 1.0
    smoothing: float = 0.75
    shift: float = 0.0
    seed: int = 0
    _item_ids: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)
    _vectors: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("dim", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.session_weight <= 0:
            raise ValueError(f"`session_weight` must be positive, got {self.session_weight}.")
        if not 0 <= self.smoothing <= 1:
            raise ValueError(f"`smoothing` must be between 0 and 1, got {self.smoothing}.")
        if self.shift < 0:
            raise ValueError(f"`shift` must be at least 0, got {self.shift}.")

    def fit(self, histories: Histories) -> "CollaborativeEmbedder":
        """Learn vectors for the items of training histories and return self.

        Raises:
            ValueError: If no user met two different items, so that no item has a neighbour.
        """
        counts = neighbour_counts(histories, self.window, self.session_weight)
        if counts.nnz == 0:
            raise ValueError(
                f"No user of the {len(histories)} histories met two different items, so no item has a neighbour. Use "
                "an embedder of texts, or a longer log."
            )
        information = positive_information(counts, self.smoothing, self.shift)
        self._vectors = _factorise(information, np.diff(counts.indptr) > 0, self.dim, self.seed)
        self._item_ids = histories.item_ids
        return self

    def embed(self, catalog: Catalog) -> np.ndarray:
        """Return unit vectors in catalog order, `[items, dim]` float32.

        An item without neighbours in training, or not known there at all, gets the zero vector.

        Raises:
            ValueError: If `fit` was not called.
        """
        if self._vectors is None or self._item_ids is None:
            raise ValueError("The embedder has not seen any history. Call `fit` with the training part first.")
        rows = ItemIndex(self._item_ids).rows(catalog.item_ids)
        vectors = np.where((rows >= 0)[:, None], self._vectors[np.maximum(rows, 0)], 0.0)
        return check_embeddings(vectors, len(catalog))


def neighbour_counts(histories: Histories, window: int, session_weight: float) -> "csr_matrix":
    """Count how often two items stand near each other: `1 / distance` per meeting, in either order.

    Args:
        histories: `[users]` rows.
        window: Largest distance, in visits.
        session_weight: Factor on meetings inside one session.

    Returns:
        Sparse, symmetric, without diagonal, `[items, items]` float64.
    """
    from scipy.sparse import coo_matrix

    items, rows, sessions = _visits(histories)
    num_items = len(histories.item_ids)
    counts = coo_matrix((num_items, num_items)).tocsr()
    for distance in range(1, min(window, max(len(items) - 1, 0)) + 1):
        first, second = slice(None, -distance), slice(distance, None)
        are_near = (rows[first] == rows[second]) & (items[first] != items[second])
        weights = np.where(sessions[first] == sessions[second], session_weight, 1.0) / distance
        pairs = (items[first][are_near], items[second][are_near])
        counts = counts + coo_matrix((weights[are_near], pairs), shape=counts.shape).tocsr()
    return (counts + counts.T).tocsr()


def _visits(histories: Histories) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge a user's consecutive events on one item (view, cart, buy) into one visit: items, rows, sessions."""
    items, rows, sessions = histories.items, histories.rows, histories.sessions
    is_first = np.ones(len(items), dtype=bool)
    is_first[1:] = (items[1:] != items[:-1]) | (rows[1:] != rows[:-1])
    return items[is_first], rows[is_first], sessions[is_first]


def positive_information(counts: "csr_matrix", smoothing: float, shift: float) -> "csr_matrix":
    """Turn co-occurrence counts into positive pointwise mutual information, with smoothed context counts.

    `max(0, log(n_ij / (n_i * c_j)) - shift)` with `c_j = n_j ** smoothing / sum_k n_k ** smoothing`.
    """
    totals = np.asarray(counts.sum(axis=1)).ravel()
    contexts = np.where(totals > 0, totals, 1.0) ** smoothing
    contexts /= contexts[totals > 0].sum()
    entries = counts.tocoo()
    information = np.log(entries.data / (totals[entries.row] * contexts[entries.col])) - shift
    entries.data = np.maximum(information, 0.0).astype(np.float32)
    positive = entries.tocsr()
    positive.eliminate_zeros()
    return positive


def _factorise(matrix: "csr_matrix", is_known: np.ndarray, dim: int, seed: int) -> np.ndarray:
    """Return unit rows of `(U + V) * sqrt(S)` of a truncated SVD, `[items, dim]`, zero for unknown items.

    The diagonal is filled with the mean information, and item and context vectors are summed: otherwise two items that
    only ever meet each other would look unlike, for each has the other as context and not itself.
    """
    from scipy.sparse import identity
    from sklearn.utils.extmath import randomized_svd

    known = np.flatnonzero(is_known)
    mean = matrix.data.mean() if matrix.nnz else 1.0
    with_self = matrix[known][:, known] + mean * identity(len(known), dtype=np.float32, format="csr")
    left, scales, right = randomized_svd(
        with_self, n_components=min(dim, len(known)), n_iter=POWER_ITERATIONS, random_state=seed
    )
    vectors = np.zeros((matrix.shape[0], len(scales)))
    vectors[known] = unit_rows((left + right.T) * np.sqrt(scales))
    return vectors
