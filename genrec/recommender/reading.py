"""Histories as a recommender reads them: sessions by the gap of the log it was trained on, times in seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.behaviors import BehaviorLadder
from genrec.data.histories import DEFAULT_GAP_MINUTES, Histories, ItemIndex, as_histories, asked_at
from genrec.data.times import LARGEST_SECONDS
from genrec.files import read_json, write_json

SERVING_FILE = "serving.json"


def read_histories(
    histories: Any,
    item_ids: Sequence[Any] | np.ndarray | ItemIndex,
    ladder: BehaviorLadder,
    *,
    at: Any = None,
    unknown_items: str = "skip",
    gap_minutes: float = DEFAULT_GAP_MINUTES,
) -> Histories:
    """Return histories over a catalog, as they were known when they are asked about.

    Args:
        histories: Histories in any form that `as_histories` reads.
        item_ids: The catalog's ids in row order, or an index over them.
        ladder: The behavior ladder.
        at: As in `genrec.data.histories.asked_at`.
        unknown_items: As in `as_histories`.
        gap_minutes: As in `as_histories`.

    Raises:
        ValueError: As `as_histories` and `asked_at` do, and if a time is no number of seconds.
    """
    read = as_histories(histories, item_ids, ladder, unknown_items=unknown_items, gap_minutes=gap_minutes)
    _check_seconds("The time of an interaction", read.times)
    read = asked_at(read, at)
    if read.query_times is not None:
        _check_seconds("`at`, the moment of the question,", read.query_times)
    return read


def check_gap_minutes(gap_minutes: float) -> float:
    """Return a gap as a number, refused if it is not positive."""
    if not gap_minutes > 0:
        raise ValueError(f"`gap_minutes`, the pause that ends a session, must be above 0, got {gap_minutes}.")
    return float(gap_minutes)


def save_gap_minutes(folder: str | Path, gap_minutes: float) -> None:
    """Write how a checkpoint's recommender makes sessions."""
    write_json(Path(folder) / SERVING_FILE, {"gap_minutes": gap_minutes})


def load_gap_minutes(folder: Path) -> float:
    """Return what `save_gap_minutes` wrote; the default for a checkpoint from before."""
    path = folder / SERVING_FILE
    return float(read_json(path)["gap_minutes"]) if path.is_file() else DEFAULT_GAP_MINUTES


def _check_seconds(what: str, times: np.ndarray) -> None:
    latest = int(times.max(initial=0))
    if latest >= LARGEST_SECONDS:
        raise ValueError(
            f"{what} counts seconds since 1970, but {latest} lies centuries away, so it counts a finer unit. Divide "
            "milliseconds by 1000."
        )
