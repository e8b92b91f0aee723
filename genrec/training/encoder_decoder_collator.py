"""Batches of encoder-decoder models: histories for the encoder, the item after each as the decoder's labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.generation.encoder_inputs import END, encoder_tensors, event_tokens
from genrec.training.collators import IGNORED


class EncoderDecoderCollator:
    """Turns samples with one target each into what the `forward` of an encoder-decoder model takes.

    The last interaction of a sample is the target, written as `[behavior,] c1, ..., cL, end`, all of which bears loss
    (as GAMER's released baselines have it); those before it are the history.

    Args:
        item_tokens: The token ids of each catalog row's codes `[items, levels]`.
        num_behaviors: How many behaviors the ladder has.
        max_history_items: How many of the latest interactions the encoder reads.
        writes_behaviors: Whether a behavior token stands before each code.

    Raises:
        ValueError: If `max_history_items` is below 1; when called, if a sample is empty, has not exactly one target, or
            names an item or behavior that there is no token for.

    Example:
        >>> collate = EncoderDecoderCollator(torch.tensor([[4, 6], [5, 7]]), num_behaviors=2)
        >>> batch = collate([{"items": [1, 0], "behaviors": [0, 1], "num_targets": 1}])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[2, 5, 7, 1]], [[3, 4, 6, 1]])
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
            samples: Mappings with `items` (catalog rows), `behaviors` (ladder indices) and `num_targets`, which is 1.
                No samples at all give one row without labels.

        Returns:
            `input_ids` and `attention_mask` `[batch, longest history]`, and `labels` `[batch, tokens of an item + 1]`,
            each int64.
        """
        if len(samples) == 0:
            batch = self([{"items": [0], "behaviors": [0], "num_targets": 1}])
            return {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}
        for sample in samples:
            _check_targets(sample)
        window = self.max_history_items + 1
        items, behaviors = (
            [np.asarray(sample[name][-window:], dtype=np.int64) for sample in samples]
            for name in ("items", "behaviors")
        )
        self._check("item", np.concatenate(items), len(self.item_tokens))
        self._check("behavior", np.concatenate(behaviors), self.num_behaviors)
        (read_items, last_items), (read_behaviors, last_behaviors) = _split(items), _split(behaviors)
        counts = np.array([len(row) - 1 for row in items])
        written = event_tokens(last_items, last_behaviors, self.item_tokens, self.writes_behaviors)
        return {
            **encoder_tensors(read_items, read_behaviors, counts, self.item_tokens, self.writes_behaviors),
            "labels": torch.cat([written, torch.full((len(samples), 1), END)], dim=1),
        }

    def _check(self, name: str, values: np.ndarray, size: int) -> None:
        wrong = values[(values < 0) | (values >= size)]
        if len(wrong):
            raise ValueError(
                f"A sample names {name} {wrong[0]}, but the item tokenizer knows {name}s 0 to {size - 1}. Train on "
                "data with the same catalog and ladder that the item tokenizer was fitted on."
            )


def _split(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return all values but the last of each row, joined, and the last ones."""
    return np.concatenate([row[:-1] for row in rows]), np.array([row[-1] for row in rows])


def _check_targets(sample: Mapping[str, Any]) -> None:
    if len(sample["items"]) == 0 or sample.get("num_targets") != 1:
        raise ValueError(
            "An encoder-decoder model needs samples with one target each, `num_targets=1`, got "
            f"{sample.get('num_targets')} in a sample of {len(sample['items'])} interactions. Use "
            "`InteractionDataset`, or `HistoryDataset.from_queries`."
        )
