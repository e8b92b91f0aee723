"""What a query may choose from besides the user's own items: rising items, and neighbors of the user's items.

A `QueryContext` holds what all users did (`RecentEvents`) and which items go together (`NeighborIndex`), and answers
for a query from what lies strictly before its time. Training and serving ask it alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec.data.histories import Histories, ItemIndex
from genrec.data.neighbors import Nearby, NeighborIndex
from genrec.data.recent_events import RecentEvents, Trending
from genrec.files import load_safetensors, read_json, save_safetensors, write_json

ARRAYS_FILE = "query_context.safetensors"
SETTINGS_FILE = "query_context.json"
NO_ITEM = -1
SECONDS_PER_HOUR = 3600.0
SMALLEST_WEIGHT = 1e-3
OF_PAIRS = ("starts", "others", "times", "kinds")
LOOK_BACK = 3  # events looked at for each distinct item wanted


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries, and the latest distinct items of each one's history, newest first.

    Args:
        times: When each is asked, seconds `[queries]`.
        behaviors: The asked behavior's index `[queries]`.
        items: Catalog rows, -1 where there is none `[queries, recent]`.
    """

    times: np.ndarray
    behaviors: np.ndarray
    items: np.ndarray

    @classmethod
    def of_events(
        cls, columns: Mapping[str, np.ndarray], counts: np.ndarray, events: np.ndarray, num_recent: int
    ) -> "Asked":
        """Ask for given events of samples, each at the time its session began, knowing earlier sessions only.

        Args:
            columns: `items`, `behaviors`, `sessions`, `times` and `session_times` of all samples, one sample after the
                other `[events]` each.
            counts: Events per sample `[samples]`.
            events: Which ones are to be predicted `[queries]`.
            num_recent: How many distinct items to look back on.
        """
        samples = np.repeat(np.arange(len(counts)), counts)
        sessions = columns["sessions"]
        is_start = np.ones(len(samples), dtype=bool)
        is_start[1:] = (samples[1:] != samples[:-1]) | (sessions[1:] != sessions[:-1])
        starts = np.maximum.accumulate(np.where(is_start, np.arange(len(samples)), 0))[events]
        firsts = (np.cumsum(counts) - counts)[samples[events]]
        recent = _latest_distinct(columns["items"], firsts, starts, num_recent)
        return cls(columns["session_times"][events], columns["behaviors"][events], _looked_up(columns["items"], recent))

    @classmethod
    def of_histories(cls, histories: Histories, behaviors: Sequence[int], num_recent: int) -> "Asked":
        """Ask for behaviors after whole histories, at their `query_times`: all behaviors of a history in turn."""
        assert histories.query_times is not None
        recent = _latest_distinct(histories.items, histories.offsets[:-1], histories.offsets[1:], num_recent)
        items, each = _looked_up(histories.items, recent), len(behaviors)
        asked = np.tile(np.asarray(behaviors, dtype=np.int64), len(histories))
        return cls(np.repeat(histories.query_times, each), asked, np.repeat(items, each, axis=0))


def _looked_up(items: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Return the items of events, -1 where there is none."""
    return np.where(events >= 0, items[events], NO_ITEM) if len(items) else np.full_like(events, NO_ITEM)


def _latest_distinct(items: np.ndarray, firsts: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """Return the latest events of `count` distinct items in each range `firsts[i]:ends[i]`, newest first, -1 for none.

    Looks at the last `LOOK_BACK * count` events of a range.
    """
    events = ends[:, None] - 1 - np.arange(LOOK_BACK * count)
    is_inside = events >= firsts[:, None]
    found = np.where(is_inside, items[events.clip(min=0)] if len(items) else 0, NO_ITEM)
    is_newer = np.tri(events.shape[1], k=-1, dtype=bool)
    is_repeated = ((found[:, :, None] == found[:, None]) & is_newer).any(axis=2)
    is_kept = is_inside & ~is_repeated
    order = np.argsort(~is_kept, axis=1, kind="stable")[:, :count]
    return np.where(np.take_along_axis(is_kept, order, axis=1), np.take_along_axis(events, order, axis=1), -1)


@dataclass(frozen=True, eq=False)
class QueryContext:
    """What all users did, ready to be asked about any moment.

    Args:
        events: All users' events; only those strictly before a query are looked at.
        neighbors: Which items go together; None without.
        windows: The windows that recent events are counted in, seconds.
        num_rising: Rising items per query.
        num_recent: The user's items whose neighbors are looked at.
        num_nearby: Neighbors per query.
        trending: Rising items of times that are known beforehand, from `prepared`.
        known_times: Those times, rising `[times]`.
    """

    events: RecentEvents
    neighbors: NeighborIndex | None = None
    windows: tuple[int, ...] = (21_600, 86_400, 259_200, 1_209_600)
    num_rising: int = 128
    num_recent: int = 20
    num_nearby: int = 64
    trending: Trending | None = None
    known_times: np.ndarray | None = None

    def prepared(self, times: np.ndarray) -> "QueryContext":
        """Return a context that has counted for these times already."""
        known = np.unique(times)
        return replace(self, trending=self.events.trending(known, self.num_rising, self.windows), known_times=known)

    def rising(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        """Return what all users met lately.

        Returns:
            Catalog rows, -1 for none `[queries, candidates]`; and the logs of 1 + their counts in each window, of all
            behaviors and then of the asked one `[queries, candidates, 2 * windows]` float32.
        """
        trending, places = self._trending(asked.times)
        counts = trending.counts[places]
        of_asked = counts[np.arange(len(places)), :, asked.behaviors]
        both = np.concatenate([counts.sum(axis=2, dtype=np.float32), of_asked.astype(np.float32)], axis=2)
        return trending.items[places], np.log1p(both)

    def _trending(self, times: np.ndarray) -> tuple[Trending, np.ndarray]:
        if self.trending is not None and self.known_times is not None and len(self.known_times):
            places = np.searchsorted(self.known_times, times).clip(max=len(self.known_times) - 1)
            if (self.known_times[places] == times).all():
                return self.trending, self.trending.rows[places]
        trending = self.events.trending(times, self.num_rising, self.windows)
        return trending, trending.rows

    def nearby(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        """Return what goes with each user's latest items, these first (what a pointer at the history may know of them).

        Returns:
            Catalog rows, -1 for none `[queries, candidates]`; and of each how strongly it goes with the user's items,
            comes in the session after them, and did so lately (logs), how many pairs say so (log), the place of the
            newest of the user's items that it goes with and the hours since the newest pair (logs), and the logs of
            1 + its events: ever, ever by the asked behavior, and in each window `[queries, candidates, 8 + windows]`
            float32.
        """
        assert self.neighbors is not None
        firsts, places = _distinct_users(asked)
        recent, times = asked.items[firsts], asked.times[firsts]
        found = Nearby(*(part[places] for part in self.neighbors.nearby(recent, times, self.num_nearby)))
        hours = (asked.times[:, None] - found.newest).clip(min=0) / SECONDS_PER_HOUR
        of_pairs = [
            np.log(found.together + SMALLEST_WEIGHT) / 3,
            np.log(found.after + SMALLEST_WEIGHT) / 3,
            np.log(found.lately + SMALLEST_WEIGHT) / 3,
            np.log1p(found.num_pairs),
            np.log1p(found.first_rank),
            np.log1p(hours) / 4,
        ]
        counts = self.events.item_counts.before(found.items, asked.times, asked.behaviors, self.windows)
        features = np.concatenate([np.stack(of_pairs, axis=2), np.log1p(counts) / 2], axis=2)
        features[found.items < 0] = 0
        return found.items, features.astype(np.float32)

    def with_events(self, items: np.ndarray, behaviors: np.ndarray, times: np.ndarray) -> "QueryContext":
        """Return a context that knows these events too, of items by catalog row (see `RecentEvents.with_events`)."""
        return replace(self, events=self.events.with_events(items, behaviors, times), trending=None, known_times=None)

    def for_items(self, old_ids: np.ndarray, new_ids: np.ndarray) -> "QueryContext":
        """Return the same context over another catalog: what is known of an item follows it by its id.

        Args:
            old_ids: Item ids in the row order of this context `[items]`.
            new_ids: Item ids in the new row order; what the catalog no longer has is forgotten `[new items]`.
        """
        events, new_rows = self.events, ItemIndex(new_ids).rows(old_ids)
        items = new_rows[events.items]
        is_kept = items != NO_ITEM
        kept = {"items": items[is_kept], "behaviors": events.behaviors[is_kept], "times": events.times[is_kept]}
        return replace(
            self,
            events=replace(events, **kept, num_items=len(new_ids)),
            neighbors=self.neighbors and self.neighbors.with_rows(new_rows, len(new_ids)),
            trending=None,
            known_times=None,
        )

    def save(self, folder: str | Path) -> None:
        """Write the context to a folder: integers and weights as safetensors, settings as JSON."""
        events, neighbors = self.events, self.neighbors
        arrays = {name: getattr(events, name) for name in ("items", "behaviors", "times")}
        if neighbors is not None:
            arrays |= {f"neighbors.{name}": getattr(neighbors, name) for name in OF_PAIRS}
        save_safetensors(
            Path(folder) / ARRAYS_FILE,
            {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()},
        )
        settings = {name: getattr(self, name) for name in ("windows", "num_rising", "num_recent", "num_nearby")}
        sizes = {"num_items": events.num_items, "num_behaviors": events.num_behaviors}
        write_json(Path(folder) / SETTINGS_FILE, {**settings, **sizes})

    @classmethod
    def load(cls, folder: str | Path) -> "QueryContext | None":
        """Read what `save` wrote; None if the folder holds no context.

        Raises:
            ValueError: If a file is truncated or corrupt.
        """
        if not (Path(folder) / SETTINGS_FILE).is_file():
            return None
        settings: dict[str, Any] = read_json(Path(folder) / SETTINGS_FILE)
        arrays = {name: part.numpy() for name, part in load_safetensors(Path(folder) / ARRAYS_FILE).items()}
        columns = {name: arrays.pop(name) for name in ("items", "behaviors", "times")}
        num_items, num_behaviors = settings.pop("num_items"), settings.pop("num_behaviors")
        events = RecentEvents(**columns, num_items=num_items, num_behaviors=num_behaviors)
        of_neighbors = {name.removeprefix("neighbors."): array for name, array in arrays.items()}
        neighbors = NeighborIndex(**of_neighbors) if of_neighbors else None
        return cls(events, neighbors, **{**settings, "windows": tuple(settings["windows"])})


def _distinct_users(asked: Asked) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of each run of queries with equal times and items, and each query's run.

    The events of one session are asked for at one moment: what goes with the user's items is found once for all.
    """
    is_new = np.ones(len(asked.times), dtype=bool)
    is_new[1:] = (asked.times[1:] != asked.times[:-1]) | (asked.items[1:] != asked.items[:-1]).any(axis=1)
    return np.flatnonzero(is_new), np.cumsum(is_new) - 1


def query_context(histories: Histories, config: Any) -> QueryContext | None:
    """Return the context that a model of this configuration needs, None if it needs none.

    Args:
        histories: All that all users did, whatever the split: each query looks only at what lies before it.
        config: The model's configuration.

    Raises:
        ValueError: If the model needs one and the histories have no times.
    """
    if not (getattr(config, "trend_head", False) or getattr(config, "neighbor_head", False)):
        return None
    neighbors = NeighborIndex.of(histories) if config.neighbor_head else None
    return QueryContext(RecentEvents.of(histories), neighbors, tuple(config.trend_windows))


def check_context(config: Any, context: QueryContext | None, num_items: int) -> None:
    """Refuse a context that does not fit a model and its catalog.

    Raises:
        ValueError: If a head of the model has nothing to choose from, or the catalogs differ in size.
    """
    for name in ("trend_head", "neighbor_head"):
        if getattr(config, name, False) and (context is None or (name == "neighbor_head" and not context.neighbors)):
            raise ValueError(
                f"A model with `{name}` chooses among items by what all users did. Pass `context`, made by "
                f"`query_context`, or set `{name}=False` in its configuration and train again."
            )
    if context is not None and context.events.num_items != num_items:
        raise ValueError(
            f"The context counts {context.events.num_items} items, the item tokenizer has {num_items}. Make the "
            "context from a log with the same catalog."
        )
