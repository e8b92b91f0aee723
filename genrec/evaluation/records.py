"""The value of every record: what one model got for each (user, behavior) pair it was asked.

Everything a report states is computed from these, and two runs can only be compared record by record.
"""

from dataclasses import dataclass

import numpy as np

from genrec.evaluation.protocols import MERGED


@dataclass(frozen=True, eq=False)
class Records:
    """One model's values on one protocol.

    Args:
        model: The model's name in tables.
        protocol: How the log was split: `last-session` or `temporal`.
        users: User id of each record, `[records]`.
        behaviors: The asked behavior of each record, `[records]`.
        values: Metric name -> value per record, `[records]`; NaN where the record does not count for that metric.

    Example:
        >>> values = {"ndcg@10": np.array([1.0, 0.0, np.nan])}
        >>> records = Records("m", "temporal", np.array([7, 7, 8]), np.array(["view", "buy", "buy"]), values)
        >>> records.groups(has_merged=True)
        ['view', 'buy', 'merged']
    """

    model: str
    protocol: str
    users: np.ndarray
    behaviors: np.ndarray
    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.users)

    def groups(self, has_merged: bool) -> list[str]:
        """Return the behaviors in the order of their first record, `merged` last if wanted."""
        return [*dict.fromkeys(self.behaviors.tolist()), *([MERGED] if has_merged else [])]

    def is_in(self, group: str) -> np.ndarray:
        """Tell which records belong to a behavior or to `merged`, `[records]` bool."""
        return np.ones(len(self), dtype=bool) if group == MERGED else self.behaviors == group

    def user_numbers(self) -> tuple[np.ndarray, int]:
        """Number the users by first appearance: each record's number, `[records]`, and how many users there are."""
        number: dict[object, int] = {}
        numbers = [number.setdefault(user, len(number)) for user in self.users.tolist()]
        return np.array(numbers, dtype=np.int64), len(number)
