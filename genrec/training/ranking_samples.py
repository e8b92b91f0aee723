"""Samples of the ranking task: a history, the items that its user met next, and how each of them ended.

A log is reduced to exposures and conversions (GAMER, arXiv 2511.03155, appendix D). What is asked about is a session:
each of its items, given all earlier sessions and nothing of its own, since what comes later in it is not known yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from genrec.data.behaviors import BehaviorLadder
from genrec.data.histories import Histories, Queries
from genrec.data.splits import Sessions

EXPOSURE, CONVERSION = 0, 1
OUTCOMES = BehaviorLadder(("exposure", "conversion"), (0, 1))
NO_ITEM_ROW = -1
IGNORED_LABEL = -100


def exposures_and_conversions(
    histories: Histories, conversions: Sequence[str], one_per_session: bool = True
) -> Histories:
    """Reduce a log to exposures and conversions.

    Args:
        histories: What users did.
        conversions: The behaviors that count as conversions; the others are exposures, and weaker.
        one_per_session: Whether an item stands once in a session, where it was met first, and as a conversion if any of
            its events there is one: the impression and how it ended. Otherwise every event stays, so that a view and
            the purchase after it are one exposure and one conversion of the same item.

    Raises:
        ValueError: If no behavior or every behavior would be a conversion, or one is not above all exposures.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> log = as_histories([[("a", "view", 0), ("b", "cart", 5), ("a", "buy", 9)]], ["a", "b"], "view,cart,buy")
        >>> reduced = exposures_and_conversions(log, ["buy"])
        >>> reduced.items.tolist(), reduced.behaviors.tolist()
        ([0, 1], [1, 0])
    """
    is_conversion = np.isin(histories.behaviors, _conversion_indices(histories.ladder, conversions))
    if not one_per_session:
        return replace(histories, behaviors=is_conversion.astype(np.int64), ladder=OUTCOMES)
    sessions = Sessions.of(histories)
    numbers = np.repeat(np.arange(len(sessions.starts)), sessions.ends - sessions.starts)
    _, first, impression = np.unique(
        numbers * len(histories.item_ids) + histories.items, return_index=True, return_inverse=True
    )
    outcomes = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(outcomes, impression, is_conversion.astype(np.int64))
    is_first = np.zeros(len(numbers), dtype=bool)
    is_first[first] = True
    return replace(histories, behaviors=outcomes[impression], ladder=OUTCOMES).keep(is_first)


def _conversion_indices(ladder: BehaviorLadder, conversions: Sequence[str]) -> list[int]:
    chosen = [ladder.index(name) for name in conversions]
    levels = [ladder.levels[index] for index in chosen]
    others = [level for index, level in enumerate(ladder.levels) if index not in chosen]
    if not levels or not others or min(levels) <= max(others):
        raise ValueError(
            f"`conversions` must be the behaviors of the highest levels, some but not all of {ladder}, got "
            f"{list(conversions)}. Take for example {[ladder.target]}."
        )
    return chosen


class RankingDataset(Dataset):
    """One sample per asked session: the latest interactions before it, and its own.

    Samples are cut out of the histories when they are asked for; nothing is copied before. Make one with `of_sessions`,
    `of_users` or `of_queries`.

    Args:
        before: Where the histories are.
        begins: The first event of each sample's history in `before` `[samples]`.
        ends: The event after its last `[samples]`.
        asked: Where the asked sessions are.
        firsts: The first event of each sample's session in `asked` `[samples]`.
        lasts: The event after its last `[samples]`.

    Raises:
        ValueError: If there is no sample, or the log is not one of exposures and conversions.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> events = [("a", "view", 0), ("b", "view", 9000), ("c", "buy", 9060)]
        >>> log = exposures_and_conversions(as_histories([events], ["a", "b", "c"], "view,buy"), ["buy"])
        >>> sample = RankingDataset.of_sessions(log, max_history_items=50)[1]
        >>> sample["items"].tolist(), sample["candidates"].tolist(), sample["labels"].tolist()
        ([0], [1, 2], [0, 1])
    """

    def __init__(
        self,
        before: Histories,
        begins: np.ndarray,
        ends: np.ndarray,
        asked: Histories,
        firsts: np.ndarray,
        lasts: np.ndarray,
    ) -> None:
        if asked.ladder.names != OUTCOMES.names:
            raise ValueError(
                f"Ranking needs a log of exposures and conversions, got {asked.ladder}. Reduce it with "
                "`exposures_and_conversions` before it is split."
            )
        if len(firsts) == 0:
            raise ValueError("No session is asked about. Check the split and how the log is cut into sessions.")
        self.before, self.asked = before, asked
        self._begins, self._ends, self._firsts, self._lasts = begins, ends, firsts, lasts

    @classmethod
    def of_sessions(cls, histories: Histories, max_history_items: int) -> "RankingDataset":
        """Return one sample per session, for models that learn from candidates only."""
        sessions = Sessions.of(histories)
        return cls._of(histories, sessions.starts, sessions.ends, max_history_items)

    @classmethod
    def of_users(cls, histories: Histories, max_history_items: int) -> "RankingDataset":
        """Return one sample per user, their last session, for models that learn from the whole history at once."""
        sessions = Sessions.of(histories)
        is_last = sessions.numbers == sessions.counts[sessions.rows] - 1
        return cls._of(histories, sessions.starts[is_last], sessions.ends[is_last], max_history_items)

    @classmethod
    def of_queries(cls, queries: Queries, max_history_items: int) -> "RankingDataset":
        """Return one sample per query of a split, for validation or test."""
        queries = queries.select(queries.targets.lengths > 0)
        before, asked = queries.histories, queries.targets
        begins = np.maximum(before.offsets[:-1], before.offsets[1:] - max_history_items)
        return cls(before, begins, before.offsets[1:], asked, asked.offsets[:-1], asked.offsets[1:])

    @classmethod
    def _of(
        cls, histories: Histories, starts: np.ndarray, ends: np.ndarray, max_history_items: int
    ) -> "RankingDataset":
        first_of_user = histories.offsets[:-1][histories.rows[starts]]
        begins = np.maximum(first_of_user, starts - max_history_items)
        return cls(histories, begins, starts, histories, starts, ends)

    @property
    def users(self) -> np.ndarray:
        """The user of each sample, `[samples]`."""
        return self.asked.users[self.asked.rows[self._firsts]]

    @property
    def num_labels(self) -> int:
        """Labelled examples in all samples."""
        return int((self._lasts - self._firsts).sum())

    def __len__(self) -> int:
        return len(self._firsts)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"Row {row} of a dataset with {len(self)} samples.")
        history = slice(int(self._begins[row]), int(self._ends[row]))
        session = slice(int(self._firsts[row]), int(self._lasts[row]))
        return {
            "items": self.before.items[history],
            "behaviors": self.before.behaviors[history],
            "sessions": self.before.sessions[history],
            "candidates": self.asked.items[session],
            "labels": self.asked.behaviors[session],
        }


class RankingCollator:
    """Turns samples into what `forward` of a ranking model takes.

    Args:
        item_codes: The code of each item, for models that read codes, or None for those that read catalog rows
            `[items, levels]`.

    Example:
        >>> sample = {"items": [4], "behaviors": [1], "sessions": [8], "candidates": [2, 0], "labels": [0, 1]}
        >>> {name: values.tolist() for name, values in RankingCollator()([sample]).items()}
        {'items': [[4]], 'behaviors': [[1]], 'candidates': [[2, 0]], 'labels': [[0, 1]]}
    """

    def __init__(self, item_codes: Tensor | None = None) -> None:
        self.item_codes = item_codes

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch, histories and candidates at the left of their rows.

        Returns:
            `behaviors` `[batch, length]`, `labels` `[batch, candidates]` (-100 where there is no candidate), and either
            `items` and `candidates`, catalog rows or -1, or `codes` and `candidate_codes` `[..., levels]` and
            `sessions`, numbered from 0 in each row; all int64.
        """
        items = _padded([sample["items"] for sample in samples], NO_ITEM_ROW)
        behaviors = _padded([sample["behaviors"] for sample in samples], 0)
        candidates = _padded([sample["candidates"] for sample in samples], NO_ITEM_ROW)
        labels = _padded([sample["labels"] for sample in samples], IGNORED_LABEL)
        if self.item_codes is None:
            return {"items": items, "behaviors": behaviors, "candidates": candidates, "labels": labels}
        return {
            "codes": self._codes_of(items),
            "behaviors": behaviors,
            "sessions": _padded([_session_numbers(sample["sessions"]) for sample in samples], 0),
            "candidate_codes": self._codes_of(candidates),
            "labels": labels,
        }

    def _codes_of(self, items: Tensor) -> Tensor:
        assert self.item_codes is not None
        return torch.where(items[..., None] >= 0, self.item_codes[items.clamp(min=0)], NO_ITEM_ROW)


def _session_numbers(sessions: Sequence[int] | np.ndarray) -> np.ndarray:
    values = np.asarray(sessions, dtype=np.int64)
    return np.cumsum(np.diff(values, prepend=values[:1]) != 0)


def _padded(rows: Sequence[Any], filler: int) -> Tensor:
    """Return rows of numbers as one table `[rows, longest]`."""
    longest = max((len(row) for row in rows), default=0)
    table = np.full((len(rows), longest), filler, dtype=np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return torch.from_numpy(table)
