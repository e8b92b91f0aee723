"""The folder layout in which GAMER's data were released (github.com/wzf2000/GAMER): aligned JSON lists per user.

`X.SMB.inter.json`, `X.SMB.behavior.json` and `X.SMB.session.json` map a user to aligned lists; `X.SMB.time.json` (not
always released) holds local date-times; `X.behavior_level.json` the ladder; `X.index.json` the released semantic IDs
(`["<a_12>", "<b_7>", ...]` per item); `X.item.json` what is known about the items.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genrec.data.behaviors import BehaviorLadder
from genrec.data.catalog import ITEM_COLUMN, Catalog
from genrec.files import read_json

LEVEL_SUFFIX = ".behavior_level.json"
ITEMS_ARE_NUMBERS = (
    "but items of the released layout are whole numbers. Number the items, in all files alike, or hand the "
    "interactions to `InteractionLog.read` as a table, whose ids may be text."
)


@dataclass(frozen=True, eq=False)
class ReleasedCodes:
    """Item codes that came with a dataset.

    Args:
        item_ids: The items that have a code, `[items]`.
        codes: Their codes, `[items, levels]` int64, numbered from 0 as released; several items may share one.
    """

    item_ids: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True, eq=False)
class GamerLayout:
    """What a released folder holds.

    Args:
        events: Columns `user_id`, `item_id`, `behavior`, `session` and, where released, `timestamp`.
        ladder: The behavior ladder.
        catalog: The items of `X.item.json`, `X.index.json` and the events, by rising id.
        codes: The released semantic IDs, or None.
        files: The files read.
    """

    events: pa.Table
    ladder: BehaviorLadder
    catalog: Catalog
    codes: ReleasedCodes | None
    files: tuple[Path, ...]


def is_gamer_layout(source: Any) -> bool:
    """Say whether a source is a folder in this layout."""
    return isinstance(source, (str, Path)) and Path(source).is_dir() and any(Path(source).glob(f"*{LEVEL_SUFFIX}"))


def read_gamer_layout(folder: str | Path) -> GamerLayout:
    """Read a released folder.

    Raises:
        FileNotFoundError: If a needed file is missing.
        ValueError: If the lists of a user have different lengths, or a file is not as the layout says.
    """
    folder = Path(folder)
    prefix = _prefix(folder)
    paths = {kind: folder / f"{prefix}.SMB.{kind}.json" for kind in ("inter", "behavior", "session", "time")}
    if not paths["time"].exists():
        del paths["time"]
    lists = {kind: _read_mapping(path) for kind, path in paths.items()}
    _check_aligned(lists, paths)
    _check_numbers(lists["inter"], paths["inter"])
    events = _events(lists)
    index_path, item_path = _index_path(folder, prefix), folder / f"{prefix}.item.json"
    codes = None if index_path is None else read_semantic_ids(index_path)
    metadata = _read_mapping(item_path) if item_path.exists() else {}
    files = [folder / f"{prefix}{LEVEL_SUFFIX}", *paths.values(), *filter(None, [index_path]), item_path]
    return GamerLayout(
        events=events,
        ladder=_ladder(folder / f"{prefix}{LEVEL_SUFFIX}"),
        catalog=_catalog(events, codes, {_item_number(item, item_path): known for item, known in metadata.items()}),
        codes=codes,
        files=tuple(path for path in files if path.exists()),
    )


def _prefix(folder: Path) -> str:
    names = sorted(path.name.removesuffix(LEVEL_SUFFIX) for path in folder.glob(f"*{LEVEL_SUFFIX}"))
    if len(names) != 1:
        raise ValueError(f"{folder} holds the datasets {names}, but one folder is one dataset. Move the others away.")
    return names[0]


def _read_mapping(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist. The released layout needs it; only the time file may be missing."
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold one JSON object, got {type(content).__name__}. Copy the released file again."
        )
    return content


def _check_aligned(lists: Mapping[str, dict[str, list[Any]]], paths: Mapping[str, Path]) -> None:
    for user, items in lists["inter"].items():
        for kind, per_user in lists.items():
            length = len(per_user[user]) if user in per_user else "no list"
            if length != len(items):
                raise ValueError(
                    f"{paths[kind]} has {length} entries for user {user!r}, but {paths['inter'].name} has "
                    f"{len(items)}. The lists must be aligned; copy the released files again."
                )


def _check_numbers(items: Mapping[str, list[Any]], path: Path) -> None:
    for user, listed in items.items():
        for item in listed:
            if type(item) is not int:
                raise ValueError(f"{path} lists the item {item!r} for user {user!r}, {ITEMS_ARE_NUMBERS}")


def _item_number(item: str, path: Path) -> int:
    """Return the number of an item that is a key of a JSON object, where it is text."""
    try:
        return int(item)
    except ValueError as error:
        raise ValueError(f"{path} names the item {item!r}, {ITEMS_ARE_NUMBERS}") from error


def _events(lists: Mapping[str, dict[str, list[Any]]]) -> pa.Table:
    users = list(lists["inter"])
    lengths = [len(lists["inter"][user]) for user in users]
    columns: dict[str, Any] = {"user_id": np.repeat(np.array(users, dtype=object), lengths).tolist()}
    names = {"inter": "item_id", "behavior": "behavior", "session": "session", "time": "timestamp"}
    for kind, per_user in lists.items():
        columns[names[kind]] = [value for user in users for value in per_user[user]]
    return pa.table(columns)


def _ladder(path: Path) -> BehaviorLadder:
    levels = _read_mapping(path)
    names = sorted(levels, key=lambda name: levels[name])  # stable: equal levels keep the file's order
    return BehaviorLadder(tuple(names), tuple(int(levels[name]) for name in names))


def _index_path(folder: Path, prefix: str) -> Path | None:
    if (folder / f"{prefix}.index.json").exists():
        return folder / f"{prefix}.index.json"
    variants = sorted(folder.glob(f"{prefix}.index.*.json"))
    if len(variants) > 1:
        raise ValueError(
            f"{folder} has several index files: {[path.name for path in variants]}. Name the wanted one "
            f"{prefix}.index.json."
        )
    return variants[0] if variants else None


def read_semantic_ids(path: str | Path) -> ReleasedCodes:
    """Read released semantic IDs: a JSON object of item id -> tokens that end in their code's number (`<a_12>`).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an item is no number, a token is none, or items have different numbers of tokens.
    """
    path = Path(path)
    index: dict[str, list[str]] = _read_mapping(path)
    items = [_item_number(item, path) for item in index]
    codes = [[_code_number(token, item, path) for token in tokens] for item, tokens in index.items()]
    lengths = {len(code) for code in codes}
    if len(lengths) != 1:
        raise ValueError(
            f"{path} holds codes of the lengths {sorted(lengths)}; all items need the same number of levels."
        )
    return ReleasedCodes(np.array(items, dtype=np.int64), np.array(codes, dtype=np.int64))


def _code_number(token: str, item: str, path: Path) -> int:
    match = re.fullmatch(r"<[a-z]+_(\d+)>", token)
    if match is None:
        raise ValueError(f"{path} gives item {item!r} the token {token!r}, but tokens look like '<a_12>'.")
    return int(match.group(1))


def _catalog(events: pa.Table, codes: ReleasedCodes | None, metadata: dict[int, Any]) -> Catalog:
    known = set(metadata) | set(events["item_id"].unique().to_pylist())
    ids = sorted(known if codes is None else known | set(codes.item_ids.tolist()))
    if not metadata:
        return Catalog(np.array(ids, dtype=np.int64))
    rows = [metadata.get(item, {}) for item in ids]
    rows = [row if isinstance(row, dict) else {"text": str(row)} for row in rows]
    names = sorted({name for row in rows for name in row} - {ITEM_COLUMN})
    columns = {name: pa.array([_as_text(row.get(name)) for row in rows], pa.string()) for name in names}
    return Catalog(np.array(ids, dtype=np.int64), pa.table({ITEM_COLUMN: pa.array(ids, pa.int64()), **columns}))


def _as_text(value: Any) -> str | None:
    return (
        value
        if value is None or isinstance(value, str)
        else " ".join(map(str, value if isinstance(value, list) else [value]))
    )
