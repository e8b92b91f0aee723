"""Training samples: one user's interactions each, from arrays in memory or from a `datasets.Dataset`.

A sample is a mapping with the equally long columns `items` (catalog rows), `behaviors` (ladder indices), `sessions` and
`times`, oldest first, perhaps `session_times` (when the session of each began), and optionally `num_targets`: only its
last so many interactions bear loss.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from genrec.data.histories import Histories, Queries, offsets_from_counts

COLUMNS = ("items", "behaviors", "sessions", "times", "session_times")


class HistoryDataset(Dataset):
    """Histories as a dataset for `GenRecTrainer`, without a copy; `datasets` is not needed.

    Args:
        histories: One sample per row. Rows without interactions are left out.
        num_targets: Only the last so many interactions of each sample bear loss; None means all.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> histories = as_histories([[("a", "view"), ("b", "buy")], []], item_ids=["a", "b"], ladder="view,buy")
        >>> dataset = HistoryDataset(histories)
        >>> len(dataset), dataset[0]["items"].tolist(), dataset.lengths.tolist()
        (1, [0, 1], [2])
    """

    def __init__(self, histories: Histories, num_targets: int | None = None) -> None:
        if num_targets is not None and num_targets < 1:
            raise ValueError(f"`num_targets` must be at least 1, or None for all interactions, got {num_targets}.")
        empty = histories.lengths == 0
        self.histories = (histories.select(~empty) if empty.any() else histories).with_session_times()
        self.num_targets = num_targets

    @classmethod
    def from_queries(cls, queries: Queries) -> "HistoryDataset":
        """Return one sample per target: the user's history and then that one interaction, which alone bears loss.

        This is the paper's session-wise validation (GAMER, section 4.1): no target sees another of its session.
        """
        return cls(_history_and_target(queries), num_targets=1)

    @property
    def lengths(self) -> np.ndarray:
        """Interactions per sample, `[samples]`."""
        return self.histories.lengths

    def __len__(self) -> int:
        return len(self.histories)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"Row {row} of a dataset with {len(self)} samples.")
        part = slice(*self.histories.offsets[row % len(self) :][:2])
        sample = {name: getattr(self.histories, name)[part] for name in COLUMNS}
        return sample if self.num_targets is None else {**sample, "num_targets": self.num_targets}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))


def sample_lengths(dataset: Any) -> np.ndarray:
    """Return how many interactions each sample of a map-style dataset has, `[samples]` int64.

    Reads nothing but lengths where the dataset can tell them: `HistoryDataset`, or a `datasets.Dataset`, whose list
    offsets are asked instead of its values.
    """
    if hasattr(dataset, "lengths"):
        return np.asarray(dataset.lengths, dtype=np.int64)
    if hasattr(dataset, "with_format"):
        return _arrow_lengths(dataset)
    return np.array([len(dataset[row]["items"]) for row in range(len(dataset))], dtype=np.int64)


def _arrow_lengths(dataset: Any, rows_per_read: int = 100_000) -> np.ndarray:
    import pyarrow.compute as pc  # only where `datasets`, which needs it, is installed

    lists = dataset.select_columns(["items"]).with_format("arrow")
    parts = [
        pc.list_value_length(lists[start : start + rows_per_read]["items"]).to_numpy()
        for start in range(0, len(lists), rows_per_read)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)


def _history_and_target(queries: Queries) -> Histories:
    """Append each target to a copy of its user's history, in a session of its own after all others."""
    asked, targets = queries.histories, queries.targets
    copies = asked.select(targets.rows)
    last = copies.offsets[1:] - 1
    next_sessions = np.where(copies.lengths > 0, copies.sessions[last] + 1 if len(copies.sessions) else 0, 0)
    ends = copies.offsets[1:]

    def appended(name: str, values: np.ndarray) -> np.ndarray:
        return np.insert(getattr(copies, name), ends, values)

    return Histories(
        items=appended("items", targets.items),
        behaviors=appended("behaviors", targets.behaviors),
        sessions=appended("sessions", next_sessions),
        times=appended("times", targets.times),
        session_times=np.insert(copies.session_starts, ends, targets.session_starts),
        offsets=offsets_from_counts(copies.lengths + 1),
        users=copies.users,
        item_ids=asked.item_ids,
        ladder=asked.ladder,
        query_times=copies.query_times,
    )
