"""The manifest of a prepared dataset: where it comes from, how it was made, and what became of every row."""

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from genrec.data.config import DataConfig

if TYPE_CHECKING:
    import ibis.expr.types as ir

MANIFEST_FILE = "manifest.json"
logger = logging.getLogger(__name__)

FORMAT = "genrec-dataset-1"
DUPLICATES_NOTE = (
    "Every row is an interaction: rows that agree in user, item, behavior and time are kept, each in its place. The "
    "order is user, then time, then source row."
)
LAST_SESSION_NOTE = (
    "last-session: each user's last session is tested and the one before validates, as in the GAMER paper. Periods of "
    "different users overlap, so training sees other users' behavior from after a test session (popularity of the "
    "future); the temporal split does not."
)
TEMPORAL_NOTE = (
    "temporal: two moments cut the log for all users at once. Training holds the sessions that end before the first; a "
    "session that spans it serves only as history. A query is a user's first session in its period, asked of users "
    "with an earlier session and, in the whole log, `min_sessions` of them."
)


@dataclass(frozen=True)
class Counts:
    """Users, items and interactions of a log at one point."""

    users: int
    items: int
    interactions: int

    @classmethod
    def of(cls, table: "ir.Table") -> "Counts":
        """Count a log with `user_id` and `item_id`."""
        counted = table.aggregate(
            users=table.user_id.nunique(), items=table.item_id.nunique(), interactions=table.count()
        )
        return cls(**counted.to_pyarrow().to_pylist()[0])


@dataclass(frozen=True)
class Step:
    """What one filter did.

    Args:
        name: The filter.
        reason: Why a row was left out by it.
        before: Counts before it.
        after: Counts after it.
    """

    name: str
    reason: str
    before: Counts
    after: Counts

    @property
    def dropped(self) -> int:
        """How many rows it left out."""
        return self.before.interactions - self.after.interactions

    def to_dict(self) -> dict[str, Any]:
        """Return the step JSON-ready."""
        return asdict(self)


def compare_counts(counts: dict[str, int], config: DataConfig) -> dict[str, Any]:
    """Compare what was counted with what a paper says.

    Returns:
        Count name -> `expected`, `counted` and whether they `agree`.

    Raises:
        ValueError: If they differ and `strict_counts` is set; the message has both numbers of each.
    """
    compared = {
        name: {"expected": expected, "counted": counts[name], "agree": expected == counts[name]}
        for name, expected in config.expected_counts.items()
    }
    different = [
        f"{name}: expected {entry['expected']:,}, counted {entry['counted']:,}"
        for name, entry in compared.items()
        if not entry["agree"]
    ]
    for difference in different:
        logger.warning(difference)
    if different and config.strict_counts:
        raise ValueError(
            f"The prepared log does not count what it should ({'; '.join(different)}). Check source and rules, or set "
            "`strict_counts: false` to go on and have the difference reported."
        )
    return compared
