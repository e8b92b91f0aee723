"""Samples become a batch: token ids, labels and sessions, by integer arithmetic on flat arrays.

The layout is GAMER's user-level training sample: an item is `[behavior, c1, ..., cL]`, a user's last
`max_history_items + 1` interactions form one row, and the loss is on code tokens only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from genrec.item_tokenizers.vocabulary import FIRST_BEHAVIOR, PAD, Vocabulary

IGNORED = -100  # what PyTorch's cross-entropy skips


class HistoryCollator:
    """Turns samples into what the model's `forward` takes.

    Args:
        item_tokens: The token ids of each catalog row's codes, `[items, levels]`.
        vocabulary: Where behaviors and codes lie among the token ids.
        max_history_items: A row holds at most this many interactions and the one after them.
        behavior_loss: Whether behavior tokens bear loss too.
        pad_to_multiple_of: Round the number of interactions per row up to a multiple, for fewer shapes to compile.

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
        item_tokens: torch.Tensor,
        vocabulary: Vocabulary,
        max_history_items: int = 100,
        behavior_loss: bool = False,
        pad_to_multiple_of: int = 1,
    ) -> None:
        if item_tokens.ndim != 2 or item_tokens.shape[1] != vocabulary.num_levels:
            raise ValueError(
                f"`item_tokens` must be [items, {vocabulary.num_levels}], one column per level of the vocabulary, "
                f"got shape {list(item_tokens.shape)}."
            )
        for name, size in {"max_history_items": max_history_items, "pad_to_multiple_of": pad_to_multiple_of}.items():
            if size < 1:
                raise ValueError(f"`{name}` must be at least 1, got {size}.")
        self.item_tokens = item_tokens.detach().cpu().numpy().astype(np.int64)
        self.vocabulary = vocabulary
        self.max_history_items = max_history_items
        self.behavior_loss = behavior_loss
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch.

        Args:
            samples: Mappings with `items`, `behaviors`, `sessions` and perhaps `num_targets` (see
                `genrec.training.samples`). No samples at all give one row without labels.

        Returns:
            `input_ids`, `attention_mask`, `labels` and `session_ids`, each `[batch, tokens]` int64, where `tokens` is
            a multiple of the tokens per item. Sessions count from 1 in each row; pads have session 0.
        """
        if len(samples) == 0:
            return self._idle_batch()
        window = self.max_history_items + 1
        counts = np.array([min(len(sample["items"]), window) for sample in samples])
        items, behaviors, sessions = (_flat(samples, name, window) for name in ("items", "behaviors", "sessions"))
        self._check(counts, items, behaviors)
        rows = np.repeat(np.arange(len(counts)), counts)
        positions = np.arange(len(items)) - np.repeat(np.cumsum(counts) - counts, counts)
        tokens = np.concatenate([FIRST_BEHAVIOR + behaviors[:, None], self.item_tokens[items]], axis=1)
        bears_loss = positions >= np.repeat(counts - _num_targets(samples, counts), counts)
        labels = np.where(bears_loss[:, None], tokens, IGNORED)
        if not self.behavior_loss:
            labels[:, 0] = IGNORED
        return self._padded(counts, rows, positions, tokens, labels, _session_numbers(sessions, positions))

    def _padded(
        self,
        counts: np.ndarray,
        rows: np.ndarray,
        positions: np.ndarray,
        tokens: np.ndarray,
        labels: np.ndarray,
        sessions: np.ndarray,
    ) -> dict[str, torch.Tensor]:
        width = -(-int(counts.max()) // self.pad_to_multiple_of) * self.pad_to_multiple_of

        def placed(values: np.ndarray | int, filler: int) -> torch.Tensor:
            grid = np.full((len(counts), width, tokens.shape[1]), filler, dtype=np.int64)
            grid[rows, positions] = values
            return torch.from_numpy(grid.reshape(len(counts), -1))

        return {
            "input_ids": placed(tokens, PAD),
            "attention_mask": placed(1, 0),
            "labels": placed(labels, IGNORED),
            "session_ids": placed(sessions[:, None], 0),
        }

    def _idle_batch(self) -> dict[str, torch.Tensor]:
        batch = self([{"items": [0], "behaviors": [0], "sessions": [0]}])
        return {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}

    def _check(self, counts: np.ndarray, items: np.ndarray, behaviors: np.ndarray) -> None:
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


def _flat(samples: Sequence[Mapping[str, Any]], name: str, window: int) -> np.ndarray:
    """Join the last `window` values of each sample's column, `[events]` int64."""
    return np.concatenate([np.asarray(sample[name][-window:], dtype=np.int64) for sample in samples])


def _num_targets(samples: Sequence[Mapping[str, Any]], counts: np.ndarray) -> np.ndarray:
    """Return how many interactions at the end of each row bear loss, `[batch]`."""
    if "num_targets" not in samples[0]:
        return counts
    return np.minimum([int(sample["num_targets"]) for sample in samples], counts)


def _session_numbers(sessions: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Number the sessions of each row from 1, `[events]`."""
    is_first = positions == 0
    starts = np.cumsum(is_first | np.concatenate([[True], np.diff(sessions) != 0]))
    return starts - np.repeat(starts[is_first], np.diff(np.append(np.flatnonzero(is_first), len(starts)))) + 1
