"""Samples become a batch: token ids, labels and sessions, by integer arithmetic on flat tensors, on any device.

The layout is GAMER's user-level training sample: an item is `[behavior, c1, ..., cL]`, a user's last
`max_history_items + 1` interactions form one row, and the loss is on code tokens only. With packing, several users
share a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genrec.item_tokenizers.vocabulary import FIRST_BEHAVIOR, PAD, Vocabulary
from genrec.training.packing import Rows, cut_rows, one_per_row, pack_rows

IGNORED = -100  # what PyTorch's cross-entropy skips


class Events(NamedTuple):
    """The interactions of some samples, one sample after the other.

    Args:
        columns: `items`, `behaviors`, `sessions` and perhaps `times`, `[events]` int64 each.
        counts: Interactions per sample `[samples]`.
        num_targets: How many interactions at the end of each sample bear loss, at most all `[samples]`.
    """

    columns: dict[str, Tensor]
    counts: np.ndarray
    num_targets: np.ndarray

    def select(self, samples: np.ndarray) -> "Events":
        """Return some of the samples, in this order."""
        starts = (np.cumsum(self.counts) - self.counts)[samples]
        events = flat_ranges(starts, self.counts[samples], self.columns["items"].device)
        columns = {name: column[events] for name, column in self.columns.items()}
        return Events(columns, self.counts[samples], self.num_targets[samples])


class HistoryCollator:
    """Turns samples into what the model's `forward` takes.

    Args:
        item_tokens: The token ids of each catalog row's codes, on the device where batches are made
            `[items, levels]`.
        vocabulary: Where behaviors and codes lie among the token ids.
        max_history_items: A row holds at most this many interactions and the one after them.
        behavior_loss: Whether behavior tokens bear loss too.
        pad_to_multiple_of: Round the number of interactions per row up to a multiple, for fewer shapes to compile.
        packing: Whether several samples share a row, as many as fit.
        with_times: Whether to return each token's time.

    Raises:
        ValueError: If an argument is out of range, or a sample is empty or names an item or behavior that the codes
            or the vocabulary lack.

    Example:
        >>> vocabulary = Vocabulary(num_behaviors=2, codebook_sizes=(2, 2))
        >>> collate = HistoryCollator(torch.tensor([[4, 6], [5, 7]]), vocabulary)
        >>> batch = collate([{"items": [1, 0], "behaviors": [0, 1], "sessions": [3, 8]}])
        >>> batch["input_ids"].tolist(), batch["session_ids"].tolist()
        ([[2, 5, 7, 3, 4, 6]], [[1, 1, 1, 2, 2, 2]])
        >>> batch["labels"].tolist()
        [[-100, 5, 7, -100, 4, 6]]
    """

    def __init__(
        self,
        item_tokens: Tensor,
        vocabulary: Vocabulary,
        max_history_items: int = 100,
        behavior_loss: bool = False,
        pad_to_multiple_of: int = 1,
        packing: bool = False,
        with_times: bool = False,
    ) -> None:
        if item_tokens.ndim != 2 or item_tokens.shape[1] != vocabulary.num_levels:
            raise ValueError(
                f"`item_tokens` must be [items, {vocabulary.num_levels}], one column per level of the vocabulary, "
                f"got shape {list(item_tokens.shape)}."
            )
        for name, size in {"max_history_items": max_history_items, "pad_to_multiple_of": pad_to_multiple_of}.items():
            if size < 1:
                raise ValueError(f"`{name}` must be at least 1, got {size}.")
        self.item_tokens = item_tokens.detach().long()
        self.vocabulary = vocabulary
        self.window = max_history_items + 1
        self.behavior_loss = behavior_loss
        self.pad_to_multiple_of = pad_to_multiple_of
        self.packing = packing
        self.columns = ("items", "behaviors", "sessions", *(("times",) if with_times else ()))

    def __call__(self, samples: Sequence[Mapping[str, Any]] | Events) -> dict[str, Tensor]:
        """Return a batch.

        Args:
            samples: Mappings with `items`, `behaviors`, `sessions`, perhaps `times` and `num_targets` (see
                `genrec.training.samples`), or the `Events` of a `DeviceDataset`. No samples at all give one row without
                labels.

        Returns:
            `input_ids`, `attention_mask`, `labels`, `session_ids`, with packing `segment_ids` (which user of the row,
            from 1) and with times `event_times` (seconds), each `[batch, tokens]` int64, where `tokens` is a multiple
            of the tokens per item. Sessions count from 1 for each user; pads, which come last, are 0 everywhere.
        """
        events = self.read(samples)
        return self.batch(events, self.rows(events.counts))

    def read(self, samples: Sequence[Mapping[str, Any]] | Events) -> Events:
        """Return the last interactions of the samples, as many as a row holds, on the device."""
        if isinstance(samples, Events):
            return samples
        if len(samples) == 0:
            columns = {name: self.item_tokens.new_zeros(1) for name in self.columns}
            return Events(columns, np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
        counts = np.array([min(len(sample["items"]), self.window) for sample in samples])
        flat = {name: _flat(samples, name, self.window) for name in self.columns}
        self.check(counts, flat["items"], flat["behaviors"])
        columns = {name: torch.from_numpy(values).to(self.item_tokens.device) for name, values in flat.items()}
        return Events(columns, counts, _num_targets(samples, counts))

    def rows(self, counts: np.ndarray) -> Rows:
        """Return where samples of these lengths lie."""
        return pack_rows(counts, self.window) if self.packing else one_per_row(counts)

    def rounded(self, lengths: np.ndarray) -> np.ndarray:
        """Return the items that rows of these lengths take with their padding."""
        return -(-lengths // self.pad_to_multiple_of) * self.pad_to_multiple_of

    def batch(self, events: Events, rows: Rows) -> dict[str, Tensor]:
        """Return samples as a batch with a given layout of rows."""
        device, columns = self.item_tokens.device, events.columns
        repeats = torch.from_numpy(events.counts).to(device)

        def of_events(values: np.ndarray) -> Tensor:
            """Repeat what is known of each sample for its events."""
            return torch.from_numpy(values).to(device).repeat_interleave(repeats, output_size=len(columns["items"]))

        num_rows, width = len(rows.lengths), int(self.rounded(rows.lengths).max())
        positions = flat_ranges(np.zeros_like(events.counts), events.counts, device)
        places = of_events(rows.rows * width + rows.starts) + positions

        def placed(values: Tensor, filler: int = 0) -> Tensor:
            grid = values.new_full((num_rows * width, self.vocabulary.tokens_per_item), filler)
            grid[places] = values if values.ndim == 2 else values[:, None]
            return grid.view(num_rows, -1)

        tokens = torch.cat([FIRST_BEHAVIOR + columns["behaviors"][:, None], self.item_tokens[columns["items"]]], dim=1)
        bears_loss = positions >= of_events(events.counts - events.num_targets)
        has_context = (positions > 0) | (of_events(rows.starts) == 0)  # a packed row's later users begin without
        batch = {
            "input_ids": placed(tokens, PAD),
            "attention_mask": placed(torch.ones_like(positions)),
            "labels": placed(self._labels(tokens, bears_loss, has_context), IGNORED),
            "session_ids": placed(_session_numbers(columns["sessions"], positions)),
        }
        if self.packing:
            batch["segment_ids"] = placed(of_events(_segment_numbers(rows)))
        if "times" in columns:
            batch["event_times"] = placed(columns["times"])
        return batch

    def _labels(self, tokens: Tensor, bears_loss: Tensor, has_context: Tensor) -> Tensor:
        """Return labels `[events, tokens per item]`; no behavior without context is for the user before it to say."""
        labels = torch.where(bears_loss[:, None], tokens, IGNORED)
        labels[:, 0] = torch.where(has_context, labels[:, 0], IGNORED) if self.behavior_loss else IGNORED
        return labels

    def check(self, counts: np.ndarray, items: np.ndarray, behaviors: np.ndarray) -> None:
        """Refuse empty samples, and items and behaviors that the item tokenizer does not know."""
        if counts.min() == 0:
            raise ValueError("A sample needs at least one interaction, got one with none. Drop empty histories.")
        for name, values, size in (
            ("item", items, len(self.item_tokens)),
            ("behavior", behaviors, self.vocabulary.num_behaviors),
        ):
            if values.min() < 0 or values.max() >= size:
                wrong = int(values[(values < 0) | (values >= size)][0])
                raise ValueError(
                    f"A sample names {name} {wrong}, but the item tokenizer knows {name}s 0 to {size - 1}. Train on "
                    "data with the same catalog and ladder that the item tokenizer was fitted on."
                )


class MicroBatchCollator:
    """Turns samples into micro-batches under a budget of tokens, of nearly equal size.

    Args:
        collator: Makes each micro-batch.
        max_tokens: Tokens per micro-batch, padding included.

    Raises:
        ValueError: If not even one row fits.

    Example:
        >>> vocabulary = Vocabulary(num_behaviors=1, codebook_sizes=(2,))
        >>> collate = MicroBatchCollator(HistoryCollator(torch.tensor([[3], [4]]), vocabulary, 4), max_tokens=12)
        >>> samples = [{"items": [0] * n, "behaviors": [0] * n, "sessions": [0] * n} for n in (1, 5, 3, 2)]
        >>> [list(batch["input_ids"].shape) for batch in collate(samples)]
        [[1, 10], [1, 6], [2, 4]]
    """

    def __init__(self, collator: HistoryCollator, max_tokens: int) -> None:
        self.collator = collator
        self.max_items = max_tokens // collator.vocabulary.tokens_per_item
        longest = int(collator.rounded(np.array([collator.window]))[0])
        if self.max_items < longest:
            raise ValueError(
                f"`max_tokens_per_micro_batch` must hold the longest row, {longest} items of "
                f"{collator.vocabulary.tokens_per_item} tokens, got {max_tokens}. Raise it to at least "
                f"{longest * collator.vocabulary.tokens_per_item}, or lower `max_history_items`."
            )

    def __call__(self, samples: Sequence[Mapping[str, Any]] | Events) -> list[dict[str, Tensor]]:
        """Return the micro-batches, longest rows first; together they hold every sample once."""
        events = self.collator.read(samples)
        rows = self.collator.rows(events.counts)
        batches = []
        for part in cut_rows(self.collator.rounded(rows.lengths), self.max_items):
            new_rows = np.full(len(rows.lengths), -1)
            new_rows[part] = np.arange(len(part))
            chosen = np.flatnonzero(new_rows[rows.rows] >= 0)
            layout = Rows(new_rows[rows.rows[chosen]], rows.starts[chosen], rows.lengths[part])
            batches.append(self.collator.batch(events.select(chosen), layout))
        return batches


def flat_ranges(starts: np.ndarray, counts: np.ndarray, device: torch.device) -> Tensor:
    """Return `starts[i], starts[i] + 1, ...`, `counts[i]` of them, for each i in turn, `[sum of counts]` int64.

    >>> flat_ranges(np.array([5, 0]), np.array([2, 3]), torch.device("cpu")).tolist()
    [5, 6, 0, 1, 2]
    """
    total = int(counts.sum())
    shifts = torch.from_numpy(starts - (np.cumsum(counts) - counts)).to(device)
    repeats = torch.from_numpy(counts).to(device)
    return torch.arange(total, device=device) + shifts.repeat_interleave(repeats, output_size=total)


def _flat(samples: Sequence[Mapping[str, Any]], name: str, window: int) -> np.ndarray:
    """Join the last `window` values of each sample's column, `[events]` int64."""
    return np.concatenate([np.asarray(sample[name][-window:], dtype=np.int64) for sample in samples])


def _num_targets(samples: Sequence[Mapping[str, Any]], counts: np.ndarray) -> np.ndarray:
    """Return how many interactions at the end of each row bear loss, `[samples]`."""
    if "num_targets" not in samples[0]:
        return counts
    return np.minimum([int(sample["num_targets"]) for sample in samples], counts)


def _session_numbers(sessions: Tensor, positions: Tensor) -> Tensor:
    """Number the sessions of each sample from 1, `[events]`."""
    is_first = positions == 0
    differs = torch.nn.functional.pad(sessions[1:] != sessions[:-1], (1, 0), value=True)
    starts = (is_first | differs).cumsum(dim=0)
    return starts - torch.where(is_first, starts, 0).cummax(dim=0).values + 1


def _segment_numbers(rows: Rows) -> np.ndarray:
    """Number the samples of each row from 1, from left to right, `[samples]`."""
    order = np.lexsort((rows.starts, rows.rows))
    counts = np.bincount(rows.rows)
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    return numbers
