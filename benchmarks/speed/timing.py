"""Timed runs: who runs when, how often, and the figures of one contender."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Args:
        name: Its name in rows and ratios.
        call: Does the work once and returns its output, which `check` compares with the others'.
        warmup: How often to run it before it is timed, if other than the comparison's `warmup`; a compiled contender
            needs more, and only its last warm-up run says how long one takes.
    """

    name: str
    call: Callable[[], Any]
    warmup: int | None = None


@dataclass(frozen=True)
class Row:
    """The timings of one contender.

    Args:
        table: Which comparison it took part in.
        name: The contender.
        seconds: How long each timed run took.
        work: How many units one run does.
        unit: What is counted, such as `"users"`.
        ratio: The baseline's median time divided by this one's; None until it is known.
        limit: Units per second at which the machine's arithmetic or memory would be used in full; None if unknown.
    """

    table: str
    name: str
    seconds: Sequence[float]
    work: float
    unit: str
    ratio: float | None = None
    limit: float | None = None

    @property
    def median(self) -> float:
        """Median seconds of a run."""
        return float(np.median(self.seconds))

    @property
    def per_second(self) -> float:
        """Units of work per second, at the median."""
        return self.work / self.median

    def as_json(self) -> dict[str, Any]:
        """Return the row as it stands in the JSON file."""
        p10, p90 = (float(np.percentile(self.seconds, percent)) for percent in (10, 90))
        figures: dict[str, Any] = {"table": self.table, "name": self.name, "repeats": len(self.seconds)}
        figures |= {"median_seconds": self.median, "p10_seconds": p10, "p90_seconds": p90}
        figures |= {f"{self.unit}_per_second": self.per_second, "ratio": self.ratio}
        return figures if self.limit is None else {**figures, "of_limit": self.per_second / self.limit}


def order_of_runs(repeats: Mapping[str, int]) -> list[str]:
    """Return whose turn it is, run by run: A B, then B A, so that a drift of the machine meets all alike.

    A contender with fewer repeats skips rounds, evenly spread.

    Example:
        >>> order_of_runs({"a": 4, "b": 2})
        ['a', 'b', 'a', 'a', 'b', 'a']
    """
    rounds = max(repeats.values())
    turns = []
    for number in range(rounds):
        due = [name for name, times in repeats.items() if (number + 1) * times // rounds > number * times // rounds]
        turns += due if number % 2 == 0 else due[::-1]
    return turns


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector from walking the whole process in the middle of a timed call, as `timeit` does."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def times_to_run(repeats: int, seconds: float, max_seconds: float | None) -> int:
    """Return how often to time a call that takes `seconds`: at most `repeats` times, at least once, within a limit."""
    return repeats if max_seconds is None else max(1, min(repeats, int(max_seconds / seconds)))
