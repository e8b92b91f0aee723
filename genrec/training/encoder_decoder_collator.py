"""Batches of encoder-decoder models: histories for the encoder, the item after each as the decoder's labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.generation.encoder_inputs import END, encoder_tensors, event_tokens
from genrec.training.collators import IGNORED


class EncoderDecoderCollator:
    """Turns samples into what the `forward` of an encoder-decoder model takes.

    The last `num_targets` interactions of a sample are targets, each written as `[behavior,] c1, ..., cL, end`, all of
    which bears loss (as GAMER's released baselines have it); those before them are the history of them all, which the
    encoder reads once.

    Args:
        item_tokens: The token ids of each catalog row's codes `[items, levels]`.
        num_behaviors: How many behaviors the ladder has.
        max_history_items: How many of the latest interactions the encoder reads.
        writes_behaviors: Whether a behavior token stands before each code.

    Raises:
        ValueError: If `max_history_items` is below 1; when called, if a sample does not say how many targets it has, or
            names an item or behavior that there is no token for.

    Example:
        >>> collate = EncoderDecoderCollator(torch.tensor([[4, 6], [5, 7]]), num_behaviors=2)
        >>> batch = collate([{"items": [1, 0, 1], "behaviors": [0, 1, 1], "num_targets": 2}])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist(), batch["encoder_rows"].tolist()
        ([[2, 5, 7, 1]], [[3, 4, 6, 1], [3, 5, 7, 1]], [0, 0])
    """

    def __init__(
        self, item_tokens: Tensor, num_behaviors: int, max_history_items: int = 50, writes_behaviors: bool = True
    ) -> None:
        if max_history_items < 1:
            raise ValueError(f"`max_history_items` must be at least 1, got {max_history_items}.")
        self.item_tokens = item_tokens
        self.num_behaviors = num_behaviors
        self.max_history_items = max_history_items
        self.writes_behaviors = writes_behaviors

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch.

        Args:
            samples: Mappings with `items` (catalog rows), `behaviors` (ladder indices) and `num_targets`. No samples at
                all give one row without labels.

        Returns:
            `input_ids` and `attention_mask` `[samples, longest history]`, `labels` `[targets, tokens of an item + 1]`
            and the sample of each target, `encoder_rows` `[targets]`; each int64.
        """
        if len(samples) == 0:
            batch = self([{"items": [0], "behaviors": [0], "num_targets": 1}])
            return {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}
        targets = np.array([_num_targets(sample) for sample in samples])
        items, behaviors = (
            [np.asarray(sample[name], dtype=np.int64) for sample in samples] for name in ("items", "behaviors")
        )
        self._check("item", np.concatenate(items), len(self.item_tokens))
        self._check("behavior", np.concatenate(behaviors), self.num_behaviors)
        (read_items, counts), (read_behaviors, _) = self._histories(items, targets), self._histories(behaviors, targets)
        last_items, last_behaviors = _last(items, targets), _last(behaviors, targets)
        written = event_tokens(last_items, last_behaviors, self.item_tokens, self.writes_behaviors)
        return {
            **encoder_tensors(read_items, read_behaviors, counts, self.item_tokens, self.writes_behaviors),
            "labels": torch.cat([written, torch.full((len(written), 1), END)], dim=1),
            "encoder_rows": torch.from_numpy(np.repeat(np.arange(len(samples)), targets)),
        }

    def _histories(self, rows: list[np.ndarray], targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values that the encoder reads of all samples, joined, and how many of each."""
        parts = [row[: len(row) - count][-self.max_history_items :] for row, count in zip(rows, targets, strict=True)]
        return np.concatenate(parts), np.array([len(part) for part in parts])

    def _check(self, name: str, values: np.ndarray, size: int) -> None:
        wrong = values[(values < 0) | (values >= size)]
        if len(wrong):
            raise ValueError(
                f"A sample names {name} {wrong[0]}, but the item tokenizer knows {name}s 0 to {size - 1}. Train on "
                "data with the same catalog and ladder that the item tokenizer was fitted on."
            )


def _last(rows: list[np.ndarray], targets: np.ndarray) -> np.ndarray:
    """Return the last values of each row, as many as it has targets, joined."""
    return np.concatenate([row[len(row) - count :] for row, count in zip(rows, targets, strict=True)])


def _num_targets(sample: Mapping[str, Any]) -> int:
    count = sample.get("num_targets")
    if count is None or not 1 <= count <= len(sample["items"]):
        raise ValueError(
            "An encoder-decoder model needs samples that say how many of their last interactions are targets, at least "
            f"one and at most all; got `num_targets` {count} in a sample of {len(sample['items'])} interactions. Use "
            "`InteractionDataset`, or `HistoryDataset.from_queries`."
        )
    return int(count)
