import json
import re
from datetime import datetime, timedelta

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.data.interactions import InteractionLog

COLUMNS = {
    "user_id": [2, 1, 2, 1],
    "item_id": ["b", "a", "b", "c"],
    "behavior": ["view", "view", "view", "buy"],
    "timestamp": [1_500_000_000, 1_500_000_060, 1_500_000_000, 1_400_000_000],
}
LADDER = "view,buy"
ROWS = {
    "row": [0, 1, 2, 3],
    "user_id": COLUMNS["user_id"],
    "item_id": COLUMNS["item_id"],
    "behavior": COLUMNS["behavior"],
    "time": [moment * 1_000_000 for moment in COLUMNS["timestamp"]],
}


def source_of_kind(kind, folder, columns):
    table = pa.table(columns)
    if kind == "parquet":
        pq.write_table(table, folder / "log.parquet")
    elif kind == "csv":
        table.to_pandas().to_csv(folder / "log.csv", index=False)
    elif kind == "jsonl":
        (folder / "log.jsonl").write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    elif kind == "json":
        (folder / "log.json").write_text(json.dumps(table.to_pylist()))
    in_memory = {
        "mapping": columns,
        "arrow": table,
        "pandas": table.to_pandas(),
        "categories": table.to_pandas().astype({"behavior": "category"}),
        "polars": pl.from_arrow(table),
        "lazy": pl.from_arrow(table).lazy(),
        "datasets": datasets.Dataset.from_dict(columns),
    }
    return in_memory[kind] if kind in in_memory else folder / f"log.{kind}"


FILES = ["parquet", "csv", "jsonl", "json"]
TABLES = ["mapping", "arrow", "pandas", "categories", "polars", "lazy", "datasets"]


@pytest.mark.parametrize("kind", FILES + TABLES)
@pytest.mark.parametrize("ids", ["integers", "text"])
def test_every_source_gives_the_same_log(tmp_path, kind, ids):
    users = COLUMNS["user_id"] if ids == "integers" else [f"u{user}" for user in COLUMNS["user_id"]]
    log = InteractionLog.read(source_of_kind(kind, tmp_path, {**COLUMNS, "user_id": users}), behaviors=LADDER)
    assert log.to_arrow().select(list(ROWS)).to_pydict() == {**ROWS, "user_id": users}
    assert len(log) == 4
    assert not log.has_sessions


def test_a_selected_dataset_is_read_as_selected():
    dataset = datasets.Dataset.from_dict(COLUMNS).select([3, 0])
    assert InteractionLog.read(dataset, behaviors=LADDER).to_arrow()["item_id"].to_pylist() == ["c", "b"]


def test_columns_can_have_other_names():
    renamed = {"who": [1], "what": [2], "did": ["view"], "when": [3], "visit": [7], "more": [None]}
    names = {"user_id": "who", "item_id": "what", "behavior": "did", "timestamp": "when", "session": "visit"}
    log = InteractionLog.read(renamed, behaviors="view", columns=names)
    assert log.has_sessions
    assert log.to_arrow().to_pylist() == [
        {"row": 0, "user_id": 1, "item_id": 2, "behavior": "view", "session": "7", "time": 3_000_000}
    ]


def test_a_zone_written_in_json_lines_wins(tmp_path):
    row = {"user_id": 1, "item_id": "2024-01-01", "behavior": "view"}
    times = ["2024-01-01T08:00:00Z", "2024-01-01T16:00:00+08:00", "2024-01-01 08:00:00 UTC", "2024-01-01T16:00:00"]
    for time in times:
        (tmp_path / "log.jsonl").write_text(json.dumps({**row, "timestamp": time}))
        read = InteractionLog.read(tmp_path / "log.jsonl", behaviors="view", time_zone="Asia/Shanghai").to_arrow()
        assert read["time"].to_pylist() == [1_704_096_000_000_000]
        assert read["item_id"].to_pylist() == ["2024-01-01"]


def test_behaviors_can_be_renamed_and_others_kept_for_dropping():
    columns = {**COLUMNS, "behavior": [1, 4, 1, 2]}
    names = {"1": "view", 2: "buy"}
    log = InteractionLog.read(columns, behaviors=LADDER, behavior_names=names, other_behaviors="drop")
    assert log.to_arrow()["behavior"].to_pylist() == ["view", "4", "view", "buy"]


def test_fingerprint_follows_the_content():
    other = {**COLUMNS, "item_id": ["b", "a", "b", "d"]}
    prints = [InteractionLog.read(columns, behaviors=LADDER).fingerprint for columns in (COLUMNS, COLUMNS, other)]
    assert prints[0] == prints[1] != prints[2]


def changed(**columns):
    return {**COLUMNS, **columns}


@pytest.mark.parametrize("kind", ["DatasetDict", "IterableDataset"])
def test_several_splits_or_a_stream_are_no_table(kind):
    dataset = datasets.Dataset.from_dict(COLUMNS)
    source = datasets.DatasetDict(train=dataset) if kind == "DatasetDict" else dataset.to_iterable_dataset()
    with pytest.raises(ValueError, match=f"one split, not streamed.* got datasets.*{kind}"):
        InteractionLog.read(source, behaviors=LADDER)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"behaviour": ["view"], "user_id": [1], "item_id": [1], "timestamp": [1]}, "`behavior`.*'behaviour'"),
        (changed(user_id=[1, None, 2, None]), "Column `user_id` is empty in row 1 "),
        (changed(item_id=["a", "b", "", "c"]), "Column `item_id` is empty in row 2 "),
        (changed(behavior=[None, "view", "view", "buy"]), "Column `behavior` is empty in row 0 "),
        (changed(timestamp=[1, 2, 3, None]), "Column `timestamp` is empty in row 3 "),
        (changed(timestamp=[1.0, 2.0, float("nan"), 3.0]), "Column `timestamp` is empty in row 2 "),
        (changed(item_id=[0.5, 1.5, 2.5, 3.5]), "`item_id` of the table has the type double .row 0: 0.5."),
        (changed(behavior=["view", "vew", "buy", "x"]), "unknown behavior 'vew' in row 1 .*Did you mean 'view'"),
        (changed(behavior=["view", "x", "buy", "x"]), "unknown behavior 'x' in row 1 .*has: buy, view, x"),
        (changed(behavior=[True] * 4), "`behavior` of the table has the type bool"),
        (changed(timestamp=["2020-01-01", "2020-01-02", "soon", "later"]), "holds 'soon' in row 2 .* no ISO date-time"),
        (changed(timestamp=["2024-01-02 08:00:00 PM"] * 4), "holds '2024.* PM' in row 0 .* no ISO date-time"),
        (changed(timestamp=["1", "2", "3", "2020-01-01"]), "holds '2020-01-01' in row 3 .* no number of 's'"),
        (changed(timestamp=[1.0, float("inf"), 2.0, 3.0]), "holds inf in row 1 .* cannot be sorted"),
        (changed(timestamp=[True] * 4), "`timestamp` of the table has the type bool .row 0: True., but times are"),
        (changed(timestamp=[timedelta(1)] * 4), r"has the type duration\[us\] .row 0: .*but a time is a moment"),
        (changed(user_id=pa.array(["x", "", "y", "x"]).dictionary_encode()), "`user_id` is empty in row 1 "),
        (changed(item_id=pa.array(["x", "y", "", "x"], pa.string_view())), "`item_id` is empty in row 2 "),
        (changed(timestamp=[[1]] * 4), "`timestamp` of the table has the type list"),
        (changed(timestamp=[1, 2, 1_500_000_000_000, 3]), "holds 1500000000000 in row 2 .*set `time_unit: ms`"),
        (changed(timestamp=[datetime(9999, 1, 1)] * 4), "in row 0 .* after the year 2286"),
        ({name: [] for name in COLUMNS}, "There is no row in the table"),
    ],
)
def test_bad_input_names_column_row_and_remedy(columns, message):
    with pytest.raises(ValueError, match=message):
        InteractionLog.read(columns, behaviors=LADDER)


def test_bad_row_of_a_text_file_is_named_with_its_line(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,behavior,timestamp\n1,a,view,1\n1,,view,2\n")
    with pytest.raises(ValueError, match=re.escape("row 1 (counted from 0; line 3) of ")):
        InteractionLog.read(tmp_path / "log.csv", behaviors=LADDER)


def test_too_fine_a_unit_is_named_for_every_unit():
    columns = changed(timestamp=[10**17] * 4)
    for unit, finer in (("s", "ms"), ("ms", "us"), ("us", "ns")):
        with pytest.raises(ValueError, match=f"as '{unit}' lies centuries away.*`time_unit: {finer}`"):
            InteractionLog.read(columns, behaviors=LADDER, time_unit=unit)


def test_missing_ladder_lists_the_behaviors():
    with pytest.raises(ValueError, match=r"`behaviors` is missing.*the table: view \(3\), buy \(1\)"):
        InteractionLog.read(COLUMNS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": {"user": "user_id"}}, "unknown key 'user'. Did you mean 'user_id'"),
        ({"other_behaviors": "keep"}, "`other_behaviors` must be 'error' or 'drop', got 'keep'"),
        ({"time_unit": "minutes"}, "`time_unit` must be one of s, ms, us, ns, got 'minutes'"),
        ({"time_zone": "Nowhere"}, "Unknown time zone 'Nowhere'"),
        ({"behaviors": "buy,view,buy"}, "'buy' stands twice"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        InteractionLog.read(COLUMNS, **{"behaviors": LADDER, **settings})


def test_mixed_pandas_ids_name_the_row():
    frame = pd.DataFrame({**COLUMNS, "user_id": pd.Series([1, "x", 2, 3], dtype=object)})
    with pytest.raises(ValueError, match="`user_id` of the pandas table mixes types: row 0 is int, row 1"):
        InteractionLog.read(frame, behaviors=LADDER)
