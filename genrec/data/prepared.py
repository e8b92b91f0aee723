"""`PreparedDataset`: a prepared folder, opened: catalog, integer histories, splits, and samples for training."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.data.behaviors import BehaviorLadder
from genrec.data.catalog import Catalog
from genrec.data.config import DataConfig
from genrec.data.event_columns import as_id_array
from genrec.data.histories import Histories, offsets_from_counts
from genrec.data.manifest import FORMAT, MANIFEST_FILE
from genrec.data.recent_events import RecentEvents
from genrec.data.splits import PROTOCOLS, Split, split_last_session, split_temporal
from genrec.files import fingerprint, read_json

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

INTERACTIONS_FILE = "interactions.parquet"
CODES_FILE = "released_codes.parquet"
SAMPLES_FOLDER = "samples"
DEFAULT_MAX_HISTORY_ITEMS = 100


@dataclass(frozen=True, eq=False)
class PreparedDataset:
    """What `prepare` wrote.

    Args:
        folder: Where it lies.
        manifest: Where it comes from and what became of every row.
        catalog: The items, in the row order of every item array.
        ladder: The behaviors.
    """

    folder: Path
    manifest: dict[str, Any]
    catalog: Catalog
    ladder: BehaviorLadder

    @classmethod
    def load(cls, folder: str | Path) -> "PreparedDataset":
        """Open a prepared folder.

        Raises:
            FileNotFoundError: If it is none.
            ValueError: If a file is truncated or corrupt, or of another format.
        """
        folder = Path(folder)
        if not (folder / MANIFEST_FILE).exists():
            raise FileNotFoundError(f"{folder} holds no prepared dataset. Write one with `prepare`.")
        manifest = read_json(folder / MANIFEST_FILE)
        if manifest.get("format") != FORMAT:
            raise ValueError(
                f"{folder} has the format {manifest.get('format')!r}, but this version reads {FORMAT!r}. Prepare the "
                "log again."
            )
        return cls(folder, manifest, Catalog.load(folder), BehaviorLadder.parse(manifest["behaviors"]))

    @property
    def config(self) -> DataConfig:
        """The rules by which it was prepared."""
        return DataConfig.from_dict(self.manifest["config"])

    @cached_property
    def histories(self) -> Histories:
        """All users' whole histories, the whole log; `session_times` says when each event's session began."""
        names = ["user_id", "user_index", "item_row", "behavior_index", "session", "timestamp"]
        table = self._read(INTERACTIONS_FILE, names)
        columns = {name: table[name].to_numpy().astype(np.int64) for name in names[1:]}
        offsets = offsets_from_counts(np.bincount(columns["user_index"]))
        histories = Histories(
            items=columns["item_row"],
            behaviors=columns["behavior_index"],
            sessions=columns["session"],
            times=columns["timestamp"],
            offsets=offsets,
            users=as_id_array(table["user_id"].take(offsets[:-1]).to_pylist()),
            item_ids=self.catalog.item_ids,
            ladder=self.ladder,
        )
        return histories.with_session_times()

    @property
    def has_times(self) -> bool:
        """Whether the log says when things happened."""
        return bool(self.manifest["source"]["has_times"])

    def events(self) -> RecentEvents:
        """Return all users' events of the whole log in the order of time, for counts strictly before a moment.

        Raises:
            ValueError: If the log has no times.
        """
        if not self.has_times:
            raise ValueError("The log has no times, so nothing in it is recent. Leave out what counts recent events.")
        return self._recent_events

    @cached_property
    def _recent_events(self) -> RecentEvents:
        return RecentEvents.of(self.histories)

    def split(self, protocol: str) -> Split:
        """Return the training, validation and test parts.

        Args:
            protocol: `"last-session"` or `"temporal"`.

        Raises:
            ValueError: If there is no such protocol, or the log has no times and they are needed.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
        if protocol not in self._splits:
            self._splits[protocol] = replace(self._split(protocol), catalog=self.catalog)
        return self._splits[protocol]

    @cached_property
    def _splits(self) -> dict[str, Split]:
        return {}

    def _split(self, protocol: str) -> Split:
        config = self.config
        if protocol == "last-session":
            return split_last_session(self.histories, config.min_sessions)
        if not self.has_times:
            raise ValueError("The log has no times, so it has no temporal split. Use the protocol 'last-session'.")
        return split_temporal(
            self.histories, config.temporal_validation_share, config.temporal_test_share, config.min_sessions
        )

    def released_codes(self) -> np.ndarray | None:
        """Return the item codes that came with the log, None if none came.

        Returns:
            `[items, levels]` int64 in catalog order, -1 for an item without a code; items may share a code.
        """
        if not (self.folder / CODES_FILE).exists():
            return None
        table = self._read(CODES_FILE, None)
        return np.stack([column.to_numpy() for column in table.columns], axis=1)

    def train_dataset(
        self,
        protocol: str,
        augmentation_copies: int = 0,
        seed: int = 0,
        max_history_items: int = DEFAULT_MAX_HISTORY_ITEMS,
        samples: str = "window",
    ) -> "datasets.Dataset":
        """Return the training part as a memory-mapped dataset, of each user and copy one sample or as many as it takes.

        Args:
            protocol: `"last-session"` or `"temporal"`.
            augmentation_copies: Copies per user with behaviors dropped (GAMER, section 3.3).
            seed: Seed of the dropping.
            max_history_items: A sample holds `max_history_items` + 1 interactions at most. Dropping comes first, so
                that thinned copies reach further back.
            samples: `"window"`, all interactions, or `"user"`, the last ones of each (`training_samples`).

        Raises:
            ValueError: If there is no such protocol or level, or a number is negative.
        """
        from genrec.data.augmentation import drop_behaviors
        from genrec.data.samples import training_samples

        _check_at_least("augmentation_copies", augmentation_copies, 0)
        _check_at_least("max_history_items", max_history_items, 1)

        def build() -> Histories:
            train = self.split(protocol).train
            if augmentation_copies:
                train = drop_behaviors(train, copies=augmentation_copies, seed=seed)
            return training_samples(train, max_history_items, samples)

        key = ("train", protocol, augmentation_copies, seed, max_history_items, samples)
        return self._samples(build, None, *key)

    def validation_dataset(
        self, protocol: str, max_history_items: int = DEFAULT_MAX_HISTORY_ITEMS
    ) -> "datasets.Dataset":
        """Return the validation part as a memory-mapped dataset, one sample per interaction of an asked session.

        Args:
            protocol: `"last-session"` or `"temporal"`.
            max_history_items: How many of the interactions before the session a sample keeps.

        Raises:
            ValueError: If there is no such protocol or `max_history_items` is below 1.
        """
        from genrec.data.samples import validation_samples

        _check_at_least("max_history_items", max_history_items, 1)
        return self._samples(
            lambda: validation_samples(self.split(protocol).validation, max_history_items),
            1,
            "validation",
            protocol,
            max_history_items,
        )

    def _samples(self, build: Callable[[], Histories], num_targets: int | None, *key: Any) -> "datasets.Dataset":
        """Open the samples, writing them first if this folder does not have them."""
        from genrec.data.samples import CATALOG_KEY, COLUMN_TYPES, open_samples, write_samples

        form = [*sorted(COLUMN_TYPES), CATALOG_KEY]  # samples of another form are written again
        name = f"{key[0]}-{fingerprint(self.manifest['fingerprint'], [form, *key])}.arrow"
        path = self.folder / SAMPLES_FOLDER / name
        if not path.exists():
            write_samples(build(), path, num_targets)
        return open_samples(path)

    def _read(self, name: str, columns: list[str] | None) -> "pa.Table":
        from genrec.data.readers import open_source

        return open_source(self.folder / name).read(columns)


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.")
