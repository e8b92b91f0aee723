"""Samples for training and for the validation loss, written once as Arrow and opened memory-mapped.

A sample is a dict with the equally long lists `items`, `behaviors`, `sessions`, `times`, `session_times` (when the
session of each interaction began) and, where only the last interactions bear loss, `num_targets`. The file notes which
catalog its item rows are of, so that a trainer can tell that they are not its item tokenizer's.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genrec.data.histories import Histories, Queries, offsets_from_counts
from genrec.files import fingerprint, write_atomically

if TYPE_CHECKING:
    import datasets

SAMPLE_LEVELS = ("user", "window")
SAMPLES_PER_BATCH = 1000
CATALOG_KEY = "genrec_catalog"  # in the file's metadata
COLUMN_TYPES = {
    "items": pa.int32(),
    "behaviors": pa.int32(),
    "sessions": pa.int32(),
    "times": pa.int64(),
    "session_times": pa.int64(),
}


def training_samples(train: Histories, max_history_items: int, level: str = "window") -> Histories:
    """Return samples of `max_history_items` + 1 interactions, all of which bear loss.

    Args:
        train: The training part.
        max_history_items: The items that a model reads before the last one.
        level: `"window"`, all of a user's interactions, cut into as many samples as it takes, or `"user"`, the last
            ones (GAMER's release): where some users do hundreds of things, most of a log is among nobody's last.

    Raises:
        ValueError: If there is no such level.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> train = as_histories([[("a", "view"), ("b", "view"), ("a", "buy")]], ["a", "b"], "view,buy")
        >>> training_samples(train, 1).lengths.tolist(), training_samples(train, 1, "user").lengths.tolist()
        ([1, 2], [2])
    """
    if level not in SAMPLE_LEVELS:
        raise ValueError(f"`samples` must be one of {', '.join(SAMPLE_LEVELS)}, got {level!r}.")
    return train.windows(max_history_items + 1) if level == "window" else train.last(max_history_items + 1)


def validation_samples(validation: Queries, max_history_items: int) -> Histories:
    """Return one sample per interaction of the asked sessions: what came before the session, then the interaction.

    At most `max_history_items` interactions come before it.
    Other interactions of the session are left out, as they are when the model is asked about it (GAMER's validation
    set: interaction-level and session-wise).
    """
    targets = validation.targets
    before = validation.histories.last(max_history_items).select(targets.rows)
    offsets = offsets_from_counts(before.lengths + 1)
    is_target = np.zeros(offsets[-1], dtype=bool)
    is_target[offsets[1:] - 1] = True

    def merged(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        both = np.empty(len(is_target), dtype=np.int64)
        both[~is_target], both[is_target] = old, new
        return both

    return replace(
        before,
        items=merged(before.items, targets.items),
        behaviors=merged(before.behaviors, targets.behaviors),
        sessions=merged(before.sessions, targets.sessions),
        times=merged(before.times, targets.times),
        session_times=merged(before.session_starts, targets.session_starts),
        offsets=offsets,
    )


def write_samples(samples: Histories, path: Path, num_targets: int | None = None) -> None:
    """Write samples as an Arrow stream, atomically.

    Args:
        samples: One sample per row.
        path: The file.
        num_targets: How many of the last interactions bear loss; None leaves the column out: all do.
    """
    fields = [pa.field(name, pa.list_(kind)) for name, kind in COLUMN_TYPES.items()]
    if num_targets is not None:
        fields.append(pa.field("num_targets", pa.int32()))
    schema = pa.schema(fields, {CATALOG_KEY: catalog_fingerprint(samples.item_ids)})
    with (
        write_atomically(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        for batch in _batches(samples, schema, num_targets):
            writer.write_batch(batch)


def _batches(samples: Histories, schema: pa.Schema, num_targets: int | None) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(samples), SAMPLES_PER_BATCH):
        part = samples.select(np.arange(start, min(start + SAMPLES_PER_BATCH, len(samples)))).with_session_times()
        offsets = pa.array(part.offsets, pa.int32())
        arrays: list[pa.Array] = [
            pa.ListArray.from_arrays(offsets, pa.array(getattr(part, name), kind))
            for name, kind in COLUMN_TYPES.items()
        ]
        if num_targets is not None:
            arrays.append(pa.array(np.full(len(part), num_targets), pa.int32()))
        yield pa.record_batch(arrays, schema=schema)


def open_samples(path: Path) -> "datasets.Dataset":
    """Open written samples as a memory-mapped dataset."""
    import datasets

    return datasets.Dataset.from_file(str(path))


def catalog_fingerprint(item_ids: np.ndarray) -> str:
    """Return a content hash of a catalog's ids in row order: two catalogs with the same one have the same rows.

    >>> catalog_fingerprint(np.array([7, 9])) == catalog_fingerprint(np.array([9, 7]))
    False
    """
    return fingerprint(item_ids.tolist())


def noted_catalogs(dataset: "datasets.Dataset") -> set[str]:
    """Return the fingerprints of the catalogs that a dataset's files are of, none for files of another making.

    `datasets` keeps a file's own metadata nowhere, but it says which files it reads.
    """
    catalogs = (_noted_catalog(file["filename"]) for file in dataset.cache_files)
    return {catalog for catalog in catalogs if catalog is not None}


def _noted_catalog(path: str) -> str | None:
    with pa.OSFile(path, "rb") as file, pa.ipc.open_stream(file) as reader:
        catalog = (reader.schema.metadata or {}).get(CATALOG_KEY.encode())
    return None if catalog is None else catalog.decode()
