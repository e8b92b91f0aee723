"""The training data as integers on the model's device, where batches are made without a word from the host.

A collator that reads samples one by one, let alone strings, costs more than the step on a fast device. Here all samples
are flat arrays on the device, and a batch is a list of row numbers: 16 to 20 bytes per interaction, and no workers.
"""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from genrec.training.collators import Events, HistoryCollator, flat_ranges
from genrec.training.samples import HistoryDataset, sample_lengths


class DeviceDataset(Dataset):
    """Samples as flat tensors on the collator's device; rows of it are `Events` for that collator.

    Args:
        dataset: Samples by row number, see `genrec.training.samples`.
        collator: What will make batches of them.

    Raises:
        ValueError: If a sample is empty or names an item or behavior that the item tokenizer does not know.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> from genrec.item_tokenizers.vocabulary import Vocabulary
        >>> histories = as_histories([[("a", "view")], [("b", "buy"), ("a", "buy")]], ["a", "b"], "view,buy")
        >>> collate = HistoryCollator(torch.tensor([[4], [5]]), Vocabulary(num_behaviors=2, codebook_sizes=(2,)))
        >>> data = DeviceDataset(HistoryDataset(histories), collate)
        >>> collate(data.__getitems__([1]))["input_ids"].tolist()
        [[3, 5, 3, 4]]
    """

    def __init__(self, dataset: Any, collator: HistoryCollator) -> None:
        self.lengths = sample_lengths(dataset)
        self._ends = np.cumsum(self.lengths)
        self._window = collator.window
        columns = _columns(dataset, collator.columns)
        collator.check(self.lengths, columns["items"], columns["behaviors"])
        self._num_targets = np.minimum(columns.pop("num_targets", self.lengths), self.lengths)
        device = collator.item_tokens.device
        self._columns = {name: torch.from_numpy(_narrowed(values)).to(device) for name, values in columns.items()}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitems__(self, rows: list[int]) -> Events | list[Any]:
        """Return the last interactions of some samples; what a `DataLoader` asks for. No rows give an empty list."""
        if len(rows) == 0:
            return []
        chosen = np.asarray(rows, dtype=np.int64)
        counts = np.minimum(self.lengths[chosen], self._window)
        device = self._columns["items"].device
        events = flat_ranges(self._ends[chosen] - counts, counts, device)
        columns = {name: column[events].long() for name, column in self._columns.items()}
        return Events(columns, counts, np.minimum(self._num_targets[chosen], counts))


def column_values(dataset: Any, name: str) -> np.ndarray:
    """Return one column of all samples, one sample after the other `[events]`."""
    return _columns(dataset, (name,))[name]


def _columns(dataset: Any, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the samples' columns joined, `[events]` each, and `num_targets` `[samples]` if they have it."""
    if isinstance(dataset, HistoryDataset):
        columns = {name: getattr(dataset.histories, name) for name in names}
        if dataset.num_targets is not None:
            columns["num_targets"] = np.full(len(dataset), dataset.num_targets)
        return columns
    if hasattr(dataset, "with_format"):
        return _arrow_columns(dataset, names)
    samples = [dataset[row] for row in range(len(dataset))]
    columns = {name: np.concatenate([np.asarray(sample[name]) for sample in samples]) for name in names}
    if "num_targets" in samples[0]:
        columns["num_targets"] = np.array([sample["num_targets"] for sample in samples])
    return columns


def _arrow_columns(dataset: Any, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    has_targets = "num_targets" in dataset.column_names
    table = dataset.select_columns([*names, *(["num_targets"] if has_targets else [])]).with_format("arrow")[:]
    columns = {name: table[name].combine_chunks().flatten().to_numpy() for name in names}
    if has_targets:
        columns["num_targets"] = table["num_targets"].to_numpy()
    return columns


def _narrowed(values: np.ndarray) -> np.ndarray:
    """Return integers as int32 where they fit; a copy, since the source may be memory-mapped and read-only."""
    limits = np.iinfo(np.int32)
    fits = len(values) == 0 or (values.min() >= limits.min and values.max() <= limits.max)
    return values.astype(np.int32 if fits else np.int64)
