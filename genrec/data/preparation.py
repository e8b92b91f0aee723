"""`prepare`: from a checked log to a folder of integer columns, in one Ibis pipeline, written whole or not at all."""

import logging
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec.data.behaviors import BehaviorLadder
from genrec.data.catalog import CATALOG_FILE, ITEM_COLUMN, Catalog
from genrec.data.config import DataConfig
from genrec.data.event_columns import as_id_array
from genrec.data.filters import (
    Filter,
    Materialize,
    filters_before_sessions,
    filters_by_count,
    filters_by_sessions,
)
from genrec.data.histories import ItemIndex
from genrec.data.interactions import InteractionLog
from genrec.data.manifest import (
    DUPLICATES_NOTE,
    FORMAT,
    LAST_SESSION_NOTE,
    MANIFEST_FILE,
    TEMPORAL_NOTE,
    Counts,
    Step,
    compare_counts,
)
from genrec.data.prepared import CODES_FILE, INTERACTIONS_FILE, SAMPLES_FOLDER, PreparedDataset
from genrec.data.sessions import renumbered, with_sessions
from genrec.data.times import MICROSECONDS
from genrec.files import check_replaceable, fingerprint, replace_folder, write_json
from genrec.version import __version__

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["DataConfig", "prepare", "read_sources"]

logger = logging.getLogger(__name__)

OWN_FILES = {INTERACTIONS_FILE, CATALOG_FILE, CODES_FILE, MANIFEST_FILE, SAMPLES_FOLDER}


def read_sources(config: DataConfig) -> tuple[InteractionLog, Catalog | None]:
    """Read the log and the catalog that a config names.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the config names no log, or a file is not as `InteractionLog.read` and `Catalog.read` need it.
    """
    if config.interactions is None:
        raise ValueError("`interactions` is missing. Name the log's file, or hand an `InteractionLog` to `prepare`.")
    log = InteractionLog.read(
        config.interactions,
        behaviors=config.behaviors,
        columns=config.columns,
        behavior_names=config.behavior_names,
        other_behaviors=config.other_behaviors,
        time_unit=config.time_unit,
        time_zone=config.time_zone,
        id_type=config.id_type,
        delimiter=config.delimiter,
    )
    if config.items is None:
        return log, log.catalog
    items = Catalog.read(config.items, config.catalog_item_column, id_type=config.id_type, delimiter=config.delimiter)
    return log, items


def prepare(
    log: InteractionLog, config: DataConfig, output_dir: str | Path, catalog: Catalog | None = None
) -> PreparedDataset:
    """Filter a log, make its sessions, and write it with its catalog and a manifest.

    The filters come in this order, each only if configured: behaviors, time window, share of users; then sessions are
    made; then interactions per user, k-core, sessions per user. The folder is written beside its place and moved there
    at the end: if anything fails, an earlier output stays as it was.

    Args:
        log: A checked log.
        config: The rules. Settings that concern reading (columns, units, zones of the source) were used by
            `InteractionLog.read` and are only recorded here.
        output_dir: The folder to write; an earlier output of `prepare` there is replaced.
        catalog: The items that may be recommended. Items of the log that it lacks are added with nothing known about
            them, and counted in the manifest. None takes the catalog that came with the log, or the log's items.

    Raises:
        ValueError: If config, log and catalog do not fit together, a filter leaves nothing, or nothing of the target
            behavior, no user has enough sessions, expected counts are not met, or the folder holds other files.
    """
    output_dir = Path(output_dir)
    _check_folder(output_dir)
    _check_fit(log, config)
    _check_any_item(catalog)
    with _scratch(log.table.get_backend()) as materialize:
        table, steps = _filtered(log, config, materialize)
        _check_behaviors(table, log)
        catalog, catalog_counts = _full_catalog(table, log, catalog, config)
        manifest = {
            **_origin(log, config, catalog),
            "steps": [step.to_dict() for step in steps],
            "dropped": {step.reason: step.dropped for step in steps},
            "counts": asdict(Counts.of(table)) | _count_sessions(table, config),
            "catalog": {**catalog_counts, "items": len(catalog)},
        }
        manifest["expected_counts"] = compare_counts(manifest["counts"], config)
        with replace_folder(output_dir) as folder:
            ordered = _integer_columns(table, log.ladder, catalog)
            log.table.get_backend().to_parquet(ordered, folder / INTERACTIONS_FILE)
            catalog.save(folder)
            _save_codes(log, catalog, folder)
            write_json(folder / MANIFEST_FILE, manifest)
    return PreparedDataset.load(output_dir)


def _filtered(log: InteractionLog, config: DataConfig, materialize: Materialize) -> tuple["ir.Table", list[Step]]:
    """Return what is left of the log, with sessions, and what each filter did."""
    steps: list[Step] = []
    table = _apply(log.table, filters_before_sessions(log.ladder, config), steps)
    table = materialize(with_sessions(table, config))
    table = materialize(renumbered(_apply(table, filters_by_count(config, materialize), steps)))
    _check_enough_sessions(table, config)
    return _apply(table, filters_by_sessions(config), steps), steps


@contextmanager
def _scratch(backend: Any) -> Iterator[Materialize]:
    """Give a function that computes a table now, on the log's engine, and drop what it made at the end."""
    names: list[str] = []

    def materialize(table: "ir.Table") -> "ir.Table":
        names.append(f"prepare_{uuid.uuid4().hex}")
        return backend.create_table(names[-1], table)

    try:
        yield materialize
    finally:
        for name in names:
            backend.raw_sql(f"DROP TABLE IF EXISTS {name}")  # `k_core` has dropped some of its own


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"`output_dir` {folder} is a file. Choose an empty folder or a new one.")
    check_replaceable(folder)
    others = sorted(path.name for path in folder.iterdir() if path.name not in OWN_FILES)
    if others:
        raise ValueError(
            f"`output_dir` {folder} would be replaced, but it holds {others[0]!r}, which `prepare` did not write. "
            "Choose an empty folder or a new one."
        )


def _check_fit(log: InteractionLog, config: DataConfig) -> None:
    if config.behaviors is not None and BehaviorLadder.parse(config.behaviors) != log.ladder:
        raise ValueError(
            f"`behaviors` is {config.behaviors!r} in the config, but '{log.ladder}' in the log. Use the same ladder."
        )
    if config.sessions == "column" and not log.has_sessions:
        raise ValueError(
            "`sessions` is 'column', but the log was read without one. Name it in `columns`: {'session': "
            f"{config.session_column!r}}}."
        )
    if not log.has_times and (config.sessions != "column" or config.time_window != (None, None)):
        raise ValueError(
            f"{log.source_name} has no times, so only its own sessions can be used and no time window set. Set "
            "`sessions: column` with its `session_column`, or add the time file."
        )


def _check_any_item(catalog: Catalog | None) -> None:
    if catalog is not None and len(catalog) == 0:
        raise ValueError(
            "The catalog has no item. Give one with the items that may be recommended, or leave it out: then the log's "
            "items are taken."
        )


def _apply(table: "ir.Table", filters: Iterable[Filter], steps: list[Step]) -> "ir.Table":
    """Apply filters one after the other, adding to `steps` what each did."""
    for rule in filters:
        before = steps[-1].after if steps else Counts.of(table)
        table = rule.apply(table)
        counts = Counts.of(table)
        if counts.interactions == 0:
            raise ValueError(
                f"No interaction is left after the filter `{rule.name}`: all {before.interactions} before it fall "
                f"under '{rule.reason}'. Loosen it."
            )
        steps.append(Step(rule.name, rule.reason, before, counts))
    return table


def _count_sessions(table: "ir.Table", config: DataConfig) -> dict[str, int]:
    """Count sessions, and users with and without enough of them for evaluation."""
    per_user = table.group_by("user_id").aggregate(num_sessions=table.session.nunique())
    counted = per_user.aggregate(
        sessions=per_user.num_sessions.sum(),
        evaluation_users=(per_user.num_sessions >= config.min_sessions).sum(),
        short_users=(per_user.num_sessions < config.min_sessions).sum(),
    )
    return counted.to_pyarrow().to_pylist()[0]


def _check_enough_sessions(table: "ir.Table", config: DataConfig) -> None:
    most = table.session.max().to_pyarrow().as_py() + 1
    if most < config.min_sessions:
        raise ValueError(
            f"No user has the {config.min_sessions} sessions that `min_sessions` asks of evaluation users; the most "
            f"any has is {most}. {_remedy_for_few_sessions(config)}"
        )


def _remedy_for_few_sessions(config: DataConfig) -> str:
    if config.sessions == "gap":
        return f"Shorten `gap_minutes` (now {config.gap_minutes:g}), check `time_unit`, or give more data."
    return "Choose another rule for `sessions`, or give more data."


def _check_behaviors(table: "ir.Table", log: InteractionLog) -> None:
    """Refuse a log in which nothing of the target behavior is left; warn of other behaviors without interactions."""
    left = _behavior_counts(table)
    empty = [name for name in log.ladder.names if name not in left]
    if not empty:
        return
    found = ", ".join(f"{name} ({count})" for name, count in list(_behavior_counts(log.table).items())[:20])
    if log.ladder.target in empty:
        raise ValueError(
            f"The target behavior {log.ladder.target!r} has no interaction left, so there is nothing to predict. The "
            f"log has, before all filters: {found}. Put the behavior to predict last in `behaviors`, map the log's "
            "names with `behavior_names`, or loosen the filters."
        )
    logger.warning(
        "No interaction is left of the behavior %s; the log has, before all filters: %s. Check `behaviors`.",
        *(", ".join(map(repr, empty)), found),
    )


def _behavior_counts(table: "ir.Table") -> dict[str, int]:
    """Return how many interactions each behavior has, the most frequent first."""
    counts = table.behavior.value_counts(name="events").order_by([ibis.desc("events"), "behavior"])
    return {row["behavior"]: row["events"] for row in counts.to_pyarrow().to_pylist()}


def _full_catalog(
    table: "ir.Table", log: InteractionLog, catalog: Catalog | None, config: DataConfig
) -> tuple[Catalog, dict[str, int]]:
    """Return a catalog that has every item of the log, and what was added to or left out of the given one."""
    catalog = log.catalog if catalog is None else catalog
    log_items = table.select("item_id").distinct().order_by("item_id").to_pyarrow()["item_id"].to_pylist()
    if catalog is None:
        return Catalog(as_id_array(log_items)), {"given": 0, "left_out": 0, "added": len(log_items)}
    if type(catalog.item_ids[:1].tolist()[0]) is not type(log_items[0]):
        raise ValueError(
            f"The catalog's ids are like {catalog.item_ids[:1].tolist()[0]!r}, the log's like {log_items[0]!r}: one is "
            "text, the other a number. Read both with `id_type: string`."
        )
    missing = [item for item, row in zip(log_items, catalog.rows(log_items), strict=True) if row < 0]
    _check_known(missing, log_items, catalog)
    num_given = len(catalog)
    if config.catalog_items == "log":
        in_log = ItemIndex(as_id_array(log_items)).rows(catalog.item_ids) >= 0  # `np.isin` compares texts one by one
        catalog = catalog.select(np.flatnonzero(in_log))
    counts = {"given": num_given, "left_out": num_given - len(catalog), "added": len(missing)}
    return (catalog.with_items(missing) if missing else catalog), counts


def _check_known(missing: list[Any], log_items: list[Any], catalog: Catalog) -> None:
    """Refuse a catalog of other items; warn of items that it lacks."""
    if len(missing) == len(log_items):
        given = catalog.item_ids.tolist()[0]
        raise ValueError(
            f"The catalog has none of the log's {len(log_items)} items: its ids are like {given!r}, the log's like "
            f"{missing[0]!r}. Name the right id columns, or leave the catalog out."
        )
    if missing:
        logger.warning(
            "The catalog lacks %d of the log's %d items, such as %r; they are added with nothing known about them.",
            *(len(missing), len(log_items), missing[0]),
        )


def _origin(log: InteractionLog, config: DataConfig, catalog: Catalog) -> dict[str, Any]:
    source = {"name": log.source_name, "fingerprint": log.fingerprint, "interactions": len(log)}
    return {
        "format": FORMAT,
        "genrec_version": __version__,
        "fingerprint": fingerprint(
            log.fingerprint, catalog.fingerprint, config.to_dict(), str(log.ladder), __version__
        ),
        "source": {**source, "has_times": log.has_times},
        "config": config.to_dict(),
        "behaviors": str(log.ladder),
        "notes": [DUPLICATES_NOTE, LAST_SESSION_NOTE, TEMPORAL_NOTE],
    }


def _integer_columns(table: "ir.Table", ladder: BehaviorLadder, catalog: Catalog) -> "ir.Table":
    """Return the log in its order, with rows of users, items and behaviors beside their names."""
    users = table.select("user_id").distinct()
    users = users.mutate(user_index=ibis.row_number().over(ibis.window(order_by="user_id")))
    items = pa.table({"item_id": catalog.to_arrow()[ITEM_COLUMN], "item_row": np.arange(len(catalog))})
    behavior_index = table.behavior.cases(*((name, index) for index, name in enumerate(ladder.names)))
    joined = table.mutate(behavior_index=behavior_index, timestamp=(table.time // MICROSECONDS).cast("int64"))
    joined = joined.inner_join(users, "user_id").inner_join(ibis.memtable(items), "item_id")
    return joined.order_by(["user_index", "time", "row"]).select(
        "user_id", "item_id", "behavior", "timestamp", "row", "user_index", "item_row", "behavior_index", "session"
    )


def _save_codes(log: InteractionLog, catalog: Catalog, folder: Path) -> None:
    """Write the released codes in catalog order, -1 for an item that has none."""
    if log.released_codes is None:
        return
    rows = ItemIndex(log.released_codes.item_ids).rows(catalog.item_ids)
    codes = np.where(rows[:, None] >= 0, log.released_codes.codes[rows], -1)
    pq.write_table(pa.table({f"code_{level}": codes[:, level] for level in range(codes.shape[1])}), folder / CODES_FILE)
