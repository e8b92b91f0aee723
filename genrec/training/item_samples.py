"""Training samples of models that score items: per user or per interaction, and their batches of catalog rows.

User-level: a user's last interactions, each of which is predicted from those before it; window-level: all of a user's
interactions, cut into such samples. Interaction-level, as GAMER's appendix trains its discriminative baselines: one
sample per training interaction, its input the history of earlier sessions only, so that training asks what evaluation
asks.

Both may have thinned copies of the histories behind them (GAMER, section 3.3), and where a session starts in a copy is
told by what is left of it. As in the release, copy k of K drops the ratio `k/K` at the user level, `k/(K+1)` at the
interaction level.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from genrec.data.augmentation import drop_behaviors
from genrec.data.histories import Histories
from genrec.data.samples import SAMPLE_LEVELS, training_samples
from genrec.data.splits import Sessions
from genrec.training.collators import IGNORED
from genrec.training.samples import HistoryDataset

LEVELS = (*SAMPLE_LEVELS, "interaction")
NO_ITEM_ROW = -1
COLUMNS = {"items": NO_ITEM_ROW, "behaviors": 0, "sessions": 0, "times": 0}


class InteractionDataset(Dataset):
    """One sample per interaction that has an earlier session: the last items before its session, and itself.

    Samples are cut out of the histories when they are asked for; nothing is copied before.

    Args:
        histories: What users did.
        max_history_items: How many of the latest interactions of earlier sessions a sample keeps.
        target_behaviors: Only interactions of these behaviors (ladder indices) are targets; None means all.
        joins_sessions: Whether the targets of one session, which have the same history, are one sample.

    Raises:
        ValueError: If no interaction qualifies.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> events = [("a", "view", 0), ("b", "view", 9000), ("c", "buy", 9060)]
        >>> histories = as_histories([events], ["a", "b", "c"], "view,buy")
        >>> [sample["items"].tolist() for sample in InteractionDataset(histories, max_history_items=50)]
        [[0, 1], [0, 2]]
        >>> joined = InteractionDataset(histories, max_history_items=50, joins_sessions=True)
        >>> [(sample["items"].tolist(), sample["num_targets"]) for sample in joined]
        [([0, 1, 2], 2)]
    """

    def __init__(
        self,
        histories: Histories,
        max_history_items: int,
        target_behaviors: Sequence[int] | None = None,
        joins_sessions: bool = False,
    ) -> None:
        sessions = Sessions.of(histories)
        ends = np.repeat(sessions.starts, sessions.ends - sessions.starts)
        begins = np.maximum(histories.offsets[:-1][histories.rows], ends - max_history_items)
        is_target = ends > begins
        if target_behaviors is not None:
            is_target &= np.isin(histories.behaviors, list(target_behaviors))
        self.histories = histories
        self._targets = np.flatnonzero(is_target)
        if len(self._targets) == 0:
            raise ValueError(
                "No interaction has an earlier session and a behavior that is a target, so there is nothing to train "
                "on. Check how the log is cut into sessions, or train on samples of the level 'user'."
            )
        firsts = np.arange(len(self._targets))
        if joins_sessions:
            firsts = np.flatnonzero(np.diff(ends[self._targets], prepend=-1))
        self._firsts = np.append(firsts, len(self._targets))
        self._begins, self._ends = begins[self._targets][firsts], ends[self._targets][firsts]

    @property
    def lengths(self) -> np.ndarray:
        """Interactions that are read for each target of a sample, itself included, `[samples]`."""
        return self._ends - self._begins + 1

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"Row {row} of a dataset with {len(self)} samples.")
        first, after = self._firsts[row % len(self) :][:2]
        events = np.append(np.arange(self._begins[row], self._ends[row]), self._targets[first:after])
        return {name: getattr(self.histories, name)[events] for name in COLUMNS} | {"num_targets": int(after - first)}


def item_samples(
    train: Histories,
    level: str,
    max_history_items: int,
    target_behaviors: Sequence[int] | None = None,
    augmentation_copies: int = 0,
    seed: int = 0,
    joins_sessions: bool = False,
) -> HistoryDataset | InteractionDataset:
    """Return the training samples of a level.

    Args:
        train: The training part.
        level: `"user"`, `"window"` or `"interaction"`.
        max_history_items: The items that a model reads before a target.
        target_behaviors: At the interaction level, the behaviors to predict; None means all.
        augmentation_copies: K, the thinned copies of each history that give samples too. Thinning comes before the
            histories are cut, so that copies reach further back.
        seed: Seed of the thinning.
        joins_sessions: At the interaction level, whether the targets of one session are one sample.

    Raises:
        ValueError: If there is no such level, `target_behaviors` or `joins_sessions` would be ignored,
            `augmentation_copies` is negative, or nothing can be predicted.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> events = [("a", "view", 0), ("b", "view", 9000), ("c", "buy", 18000)]
        >>> train = as_histories([events], ["a", "b", "c"], "view,buy")
        >>> samples = item_samples(train, "interaction", 50, target_behaviors=[1], augmentation_copies=1)
        >>> samples.lengths.tolist()  # the copy lost one of the two views: k/(K+1) is a half
        [3, 2]
    """
    if level not in LEVELS:
        raise ValueError(f"`level` must be one of {', '.join(LEVELS)}, got {level!r}.")
    if augmentation_copies < 0:
        raise ValueError(f"`augmentation_copies` must be at least 0, got {augmentation_copies}.")
    if augmentation_copies:
        train = drop_behaviors(train, augmentation_copies, seed, reaches_one=level != "interaction")
    if level == "interaction":
        return InteractionDataset(train, max_history_items, target_behaviors, joins_sessions)
    for name, is_asked in (("target_behaviors", target_behaviors is not None), ("joins_sessions", joins_sessions)):
        if is_asked:
            raise ValueError(f"`{name}` would be ignored at the level {level!r}. Take the level 'interaction'.")
    samples = training_samples(train, max_history_items, level)
    if not (samples.lengths > 1).any():
        raise ValueError("No user has two training interactions, so there is nothing to predict. Check the split.")
    return HistoryDataset(samples.select(samples.lengths > 1))


class ItemCollator:
    """Turns samples into what `forward` of a scoring model takes.

    Example:
        >>> batch = ItemCollator()([{"items": [4, 2], "behaviors": [0, 1], "sessions": [3, 8], "times": [10, 20]}])
        >>> batch["items"].tolist(), batch["labels"].tolist()
        ([[4, 2]], [[4, 2]])
    """

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch.

        Args:
            samples: Mappings with `items`, `behaviors`, `sessions`, `times` and perhaps `num_targets`: only the last so
                many interactions bear loss. No samples at all give one row without labels.

        Returns:
            `items`, `behaviors`, `sessions`, `times` and `labels`, each `[batch, length]` int64, the interactions at
            the left. `items` is -1 where there is none; `labels` is the item where it bears loss, -100 elsewhere.
        """
        if len(samples) == 0:
            return self([{name: [filler] for name, filler in COLUMNS.items()} | {"num_targets": 0}])
        counts = np.array([len(sample["items"]) for sample in samples])
        rows = np.repeat(np.arange(len(counts)), counts)
        columns = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        num_targets = np.array([sample.get("num_targets", count) for sample, count in zip(samples, counts)])
        values = {name: np.concatenate([sample[name] for sample in samples]) for name in COLUMNS}
        values["labels"] = np.where(columns >= (counts - num_targets)[rows], values["items"], IGNORED)
        return {
            name: _placed(column, rows, columns, counts, COLUMNS.get(name, IGNORED)) for name, column in values.items()
        }


def _placed(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, counts: np.ndarray, filler: int) -> torch.Tensor:
    grid = np.full((len(counts), counts.max()), filler, dtype=np.int64)
    grid[rows, columns] = values
    return torch.from_numpy(grid)


def item_counts(train: Histories) -> torch.Tensor:
    """Return how often each item was met under each behavior, `[behaviors, items]` int64."""
    num_items = len(train.item_ids)
    pairs = train.behaviors * num_items + train.items
    counts = np.bincount(pairs, minlength=len(train.ladder.names) * num_items)
    return torch.from_numpy(counts.reshape(-1, num_items))
