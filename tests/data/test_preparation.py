"""`prepare` against a naive second implementation of the whole way from rows to splits, and its promises one by one."""

import dataclasses
import json
import uuid
from datetime import datetime
from itertools import groupby
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.data import preparation
from genrec.data.catalog import Catalog
from genrec.data.config import DataConfig
from genrec.data.interactions import InteractionLog
from genrec.data.preparation import prepare, read_sources
from genrec.data.prepared import PreparedDataset

LADDER = "view,like=save,buy"
NAMES = ["view", "like", "save", "buy"]
HOUR = 3600


def random_columns(seed, num_events=400):
    """Many ties in time, users of every length, text ids whose order is not that of numbers."""
    generator = np.random.default_rng(seed)
    return {
        "user_id": [f"u{n}" for n in (40 * generator.random(num_events) ** 2).astype(int)],
        "item_id": generator.integers(0, 30, num_events).tolist(),
        "behavior": generator.choice(NAMES, num_events, p=[0.6, 0.2, 0.1, 0.1]).tolist(),
        "timestamp": (generator.integers(0, 600, num_events) * 600 + 1_585_000_000).tolist(),
        "visit": [f"v{n}" for n in generator.integers(0, 4, num_events)],
    }


def naive_sessions(columns, config):
    """User -> list of sessions, each a list of (item, behavior, second), by plain loops."""
    rows = sorted(
        zip(columns["user_id"], columns["timestamp"], range(len(columns["user_id"])), columns["visit"], strict=True)
    )
    zone = ZoneInfo("Europe/Berlin")
    users = {}
    for user, events in groupby(rows, key=lambda row: row[0]):
        before = None
        users[user] = []
        for _, second, row, visit in events:
            starts = {
                "gap": lambda a, b: b[0] - a[0] > 20 * 60,
                "day": lambda a, b: (
                    datetime.fromtimestamp(a[0], zone).date() != datetime.fromtimestamp(b[0], zone).date()
                ),
                "column": lambda a, b: a[1] != b[1],
            }[config.sessions]
            if before is None or starts(before, (second, visit)):
                users[user].append([])
            users[user][-1].append((columns["item_id"][row], columns["behavior"][row], second))
            before = (second, visit)
    return users


def flat(sessions):
    return [event for session in sessions for event in session]


def naive_last_session(users):
    train, validation, test = {}, {}, {}
    for user, sessions in users.items():
        if len(sessions) < 3:
            train[user] = flat(sessions)
        else:
            train[user] = flat(sessions[:-2])
            validation[user] = (flat(sessions[:-2]), sessions[-2])
            test[user] = (flat(sessions[:-1]), sessions[-1])
    return train, validation, test


def naive_temporal(users):
    starts = sorted(session[0][2] for sessions in users.values() for session in sessions)
    tenth = round(len(starts) * 0.1)
    first, second = starts[-2 * tenth], starts[-tenth]
    train, validation, test = {}, {}, {}
    for user, sessions in users.items():
        early = [session for session in sessions if session[-1][2] < first]
        if early:
            train[user] = flat(early)
        for part, begin, end in ((validation, first, second), (test, second, float("inf"))):
            asked = [n for n, session in enumerate(sessions) if begin <= session[0][2] < end][:1]
            if asked and asked[0] > 0 and len(sessions) >= 3:
                part[user] = (flat(sessions[: asked[0]]), sessions[asked[0]])
    return train, validation, test


def as_events(histories):
    """User -> list of (item id, behavior name, second)."""
    return {
        user: [
            (histories.item_ids[item], histories.ladder.names[behavior], second)
            for item, behavior, second in zip(
                history.items.tolist(), history.behaviors.tolist(), history.times.tolist(), strict=True
            )
        ]
        for user, history in zip(histories.users.tolist(), histories, strict=True)
    }


def as_queries(queries):
    before, asked = as_events(queries.histories), as_events(queries.targets)
    return {user: (before[user], asked[user]) for user in before}


CONFIGS = {
    "gap": DataConfig(gap_minutes=20),
    "day": DataConfig(sessions="day", day_time_zone="Europe/Berlin"),
    "column": DataConfig(sessions="column", session_column="visit"),
}


@pytest.mark.parametrize("rule", CONFIGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_splits_equal_a_naive_implementation(tmp_path, rule, seed):
    columns = random_columns(seed)
    log = InteractionLog.read(columns, behaviors=LADDER, columns={"session": "visit"})
    prepared = prepare(log, CONFIGS[rule], tmp_path / "prepared")
    users = naive_sessions(columns, CONFIGS[rule])
    for protocol, naive in (("last-session", naive_last_session), ("temporal", naive_temporal)):
        split, (train, validation, test) = prepared.split(protocol), naive(users)
        assert as_events(split.train) == train
        assert as_queries(split.validation) == validation
        assert as_queries(split.test) == test
        assert len(test) > 5


def test_result_does_not_depend_on_the_order_of_an_engines_rows(tmp_path):
    log = InteractionLog.read(random_columns(2), behaviors=LADDER, columns={"session": "visit"})
    order = np.random.default_rng(0).permutation(len(log))
    backend = ibis.duckdb.connect()
    shuffled = backend.create_table("shuffled", ibis.memtable(log.table.to_pyarrow().take(order)))
    assert shuffled.to_pyarrow()["row"].to_pylist() != log.table.to_pyarrow()["row"].to_pylist()
    config = DataConfig(gap_minutes=20, k_core=3, user_share=0.9, min_interactions=2)
    first = prepare(log, config, tmp_path / "first")
    second = prepare(dataclasses.replace(log, table=shuffled), config, tmp_path / "second")
    tables = [pq.read_table(prepared.folder / "interactions.parquet") for prepared in (first, second)]
    assert tables[0].equals(tables[1])
    assert first.manifest == second.manifest


def test_result_does_not_depend_on_the_number_of_threads(tmp_path):
    config = DataConfig(gap_minutes=20, k_core=3, user_share=0.9, min_interactions=2)
    prepared = []
    for threads in (1, 4):
        log = InteractionLog.read(random_columns(4, num_events=3000), behaviors=LADDER)
        log.table.get_backend().raw_sql(f"SET threads = {threads}")
        prepared.append(prepare(log, config, tmp_path / str(threads)))
    first, second = (dataset.folder.joinpath("interactions.parquet").read_bytes() for dataset in prepared)
    assert first == second
    assert prepared[0].manifest == prepared[1].manifest


def test_interactions_stand_in_the_order_user_time_source_row(tmp_path):
    prepared = prepare(InteractionLog.read(random_columns(3), behaviors=LADDER), DataConfig(), tmp_path / "p")
    table = pq.read_table(prepared.folder / "interactions.parquet").to_pydict()
    keys = list(zip(table["user_id"], table["timestamp"], table["row"], strict=True))
    assert keys == sorted(keys)
    assert [prepared.ladder.names[index] for index in table["behavior_index"]] == table["behavior"]
    assert prepared.catalog.item_ids[table["item_row"]].tolist() == table["item_id"]
    assert prepared.histories.users.tolist() == sorted(set(table["user_id"]))


def test_repeated_rows_are_all_kept(tmp_path):
    columns = small_columns()
    doubled = {name: values * 2 for name, values in columns.items()}
    prepared = prepare(InteractionLog.read(doubled, behaviors="view,buy"), DataConfig(), tmp_path / "p")
    assert prepared.manifest["counts"]["interactions"] == 2 * len(columns["user_id"])


def small_columns():
    """User 1 has three sessions, user 2 two."""
    return {
        "user_id": [1, 1, 1, 1, 2, 2],
        "item_id": ["a", "b", "c", "a", "c", "d"],
        "behavior": ["view", "buy", "view", "view", "view", "view"],
        "timestamp": [0, 60, 5 * HOUR, 10 * HOUR, 0, 9 * HOUR],
    }


def small_log(**changes):
    return InteractionLog.read({**small_columns(), **changes}, behaviors="view,buy", other_behaviors="drop")


def test_every_dropped_row_has_a_reason(tmp_path):
    columns = random_columns(4)
    columns["behavior"][:20] = ["noise"] * 20
    log = InteractionLog.read(columns, behaviors=LADDER, other_behaviors="drop")
    config = DataConfig(
        other_behaviors="drop",
        start_time=1_585_020_000,
        user_share=0.8,
        min_interactions=4,
        k_core=3,
        short_users="drop",
        gap_minutes=20,
    )
    manifest = prepare(log, config, tmp_path / "p").manifest
    names = [step["name"] for step in manifest["steps"]]
    assert names == ["behaviors", "time_window", "user_share", "min_interactions", "k_core", "min_sessions"]
    assert all(step["before"]["interactions"] >= step["after"]["interactions"] for step in manifest["steps"])
    for step, following in zip(manifest["steps"], manifest["steps"][1:], strict=False):
        assert step["after"] == following["before"]
    assert manifest["dropped"]["the behavior is none of view, like, save, buy"] == 20
    assert sum(manifest["dropped"].values()) == 400 - manifest["counts"]["interactions"]
    assert {name: manifest["counts"][name] for name in ("users", "items", "interactions")} == manifest["steps"][-1][
        "after"
    ]


def test_short_users_train_or_are_dropped(tmp_path):
    kept = prepare(small_log(), DataConfig(), tmp_path / "kept")
    assert kept.manifest["counts"] == {
        "users": 2,
        "items": 4,
        "interactions": 6,
        "sessions": 5,
        "evaluation_users": 1,
        "short_users": 1,
    }
    assert kept.split("last-session").train.users.tolist() == [1, 2]
    dropped = prepare(small_log(), DataConfig(short_users="drop"), tmp_path / "dropped")
    assert dropped.manifest["counts"]["short_users"] == 0
    assert dropped.split("last-session").train.users.tolist() == [1]
    assert dropped.manifest["dropped"] == {"the user has fewer than 3 sessions": 2}


def test_sessions_are_numbered_without_holes_after_a_filter(tmp_path):
    log = small_log(item_id=["a", "a", "rare", "a", "a", "a"], timestamp=[0, HOUR, 2 * HOUR, 3 * HOUR, 0, HOUR])
    prepared = prepare(log, DataConfig(k_core=2), tmp_path / "p")
    assert prepared.histories[0].sessions.tolist() == [0, 1, 2]


def test_catalog_gains_the_logs_missing_items(tmp_path):
    catalog = Catalog.read({"item_id": ["z", "c", "a"], "title": ["Zed", "Cee", "Ay"]})
    prepared = prepare(small_log(), DataConfig(), tmp_path / "p", catalog)
    assert prepared.catalog.item_ids.tolist() == ["z", "c", "a", "b", "d"]
    assert prepared.catalog.texts() == ["Zed", "Cee", "Ay", "", ""]
    assert prepared.manifest["catalog"] == {"given": 3, "left_out": 0, "added": 2, "items": 5}
    only_log = prepare(small_log(), DataConfig(catalog_items="log"), tmp_path / "p", catalog)
    assert only_log.catalog.item_ids.tolist() == ["c", "a", "b", "d"]
    assert only_log.manifest["catalog"] == {"given": 3, "left_out": 1, "added": 2, "items": 4}


def test_without_a_catalog_the_items_are_those_of_the_log(tmp_path):
    prepared = prepare(small_log(), DataConfig(), tmp_path / "p")
    assert prepared.catalog.item_ids.tolist() == ["a", "b", "c", "d"]
    assert prepared.manifest["catalog"] == {"given": 0, "left_out": 0, "added": 4, "items": 4}


def test_fingerprint_follows_log_catalog_and_config(tmp_path):
    def print_of(log, config, catalog=None):
        return prepare(log, config, tmp_path / uuid.uuid4().hex, catalog).manifest["fingerprint"]

    prints = [
        print_of(small_log(), DataConfig()),
        print_of(small_log(item_id=[*"abcabd"]), DataConfig()),
        print_of(small_log(), DataConfig(gap_minutes=31)),
        print_of(small_log(), DataConfig(), Catalog([*"abcde"])),
    ]
    assert print_of(small_log(), DataConfig()) == prints[0]
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    ("log_changes", "config", "message"),
    [
        ({}, {"behaviors": "view,buy,pay"}, "`behaviors` is 'view,buy,pay' in the config, but 'view,buy' in the log"),
        ({}, {"sessions": "column", "session_column": "visit"}, "`sessions` is 'column', but the log was read without"),
        ({}, {"start_time": 99 * HOUR}, "No interaction is left after the filter `time_window`: all 6 before it"),
        ({}, {"min_interactions": 9}, "left after the filter `min_interactions`"),
        ({}, {"gap_minutes": 6000.0}, r"No user has the 3 sessions.* the most any has is 1. Shorten `gap_minutes`"),
        ({}, {"sessions": "day"}, "the most any has is 1. Choose another rule for `sessions`"),
        ({}, {"min_sessions": 4}, "No user has the 4 sessions that `min_sessions` asks"),
        ({}, {"short_users": "drop", "min_sessions": 4}, "No user has the 4 sessions that `min_sessions` asks"),
        ({"behavior": ["x"] * 6}, {"other_behaviors": "drop"}, "left after the filter `behaviors`"),
        (
            {"behavior": ["view"] * 6},
            {},
            "target behavior 'buy' has no interaction left.* view \\(6\\). Put the behavior",
        ),
    ],
)
def test_bad_combinations_are_refused_and_leave_earlier_output_alone(tmp_path, log_changes, config, message):
    folder = tmp_path / "p"
    prepare(small_log(), DataConfig(), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=message):
        prepare(small_log(**log_changes), DataConfig(**config), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_catalog_with_ids_of_another_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"catalog's ids are like 1, the log's like 'a'.*`id_type: string`"):
        prepare(small_log(), DataConfig(), tmp_path / "p", Catalog([1, 2]))


def test_a_catalog_without_items_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"The catalog has no item. Give one .* or leave it out"):
        prepare(small_log(), DataConfig(), tmp_path / "p", Catalog([]))


def test_the_folder_that_one_works_in_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preparation, "_filtered", lambda *_: pytest.fail("the log was filtered"))
    with pytest.raises(
        ValueError, match=r"The folder '\.' would be replaced, but it is, or holds, the one you work in"
    ):
        prepare(small_log(), DataConfig(), ".")


def test_a_config_with_paths_prepares_what_one_with_text_does(tmp_path):
    columns = small_columns()
    rows = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "log.csv").write_text("\n".join([",".join(columns), *rows]))
    config = DataConfig(interactions=tmp_path / "log.csv", behaviors="view,buy")
    prepared = prepare(read_sources(config)[0], config, tmp_path / "p")
    assert prepared.config.interactions == str(tmp_path / "log.csv")


def test_a_catalog_of_other_items_is_refused_and_lacking_ones_are_counted(tmp_path, caplog):
    with pytest.raises(ValueError, match="has none of the log's 4 items: its ids are like 'x', the log's like 'a'"):
        prepare(small_log(), DataConfig(), tmp_path / "p", Catalog(["x", "y"]))
    prepare(small_log(), DataConfig(), tmp_path / "p", Catalog(["x", "b"]))
    assert "The catalog lacks 3 of the log's 4 items, such as 'a'" in caplog.text


def test_a_target_behavior_that_the_filters_left_out_is_refused_with_the_logs_counts(tmp_path):
    columns = small_columns() | {"behavior": ["view", "buy", "view", "view", "cart", "view"]}
    log = InteractionLog.read(columns, behaviors="view,cart,purchase", other_behaviors="drop")
    message = r"'purchase' has no interaction left.* before all filters: view \(4\), buy \(1\), cart \(1\)\."
    with pytest.raises(ValueError, match=message):
        prepare(log, DataConfig(other_behaviors="drop"), tmp_path / "p")
    log = small_log(behavior=["view"] * 5 + ["buy"])
    with pytest.raises(ValueError, match=r"'buy' has no interaction left.* view \(5\), buy \(1\)"):
        prepare(log, DataConfig(min_interactions=3), tmp_path / "p")


def test_a_weaker_behavior_without_interactions_is_warned_of(tmp_path, caplog):
    log = InteractionLog.read(small_columns(), behaviors="view,like=cart,buy")
    prepare(log, DataConfig(), tmp_path / "p")
    assert (
        "No interaction is left of the behavior 'like', 'cart'; the log has, before all filters: view (5), buy (1)"
        in (caplog.text)
    )
    caplog.clear()
    prepare(small_log(), DataConfig(), tmp_path / "p")
    assert not caplog.text


def test_a_failure_while_writing_leaves_earlier_output_alone(tmp_path, monkeypatch):
    folder = tmp_path / "p"
    prepare(small_log(), DataConfig(), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(preparation, "write_json", broken)
    with pytest.raises(OSError, match="disk full"):
        prepare(small_log(), DataConfig(gap_minutes=10), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds 'thesis.txt', which `prepare` did not write"):
        prepare(small_log(), DataConfig(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        prepare(small_log(), DataConfig(), tmp_path / "file")


def test_a_new_output_replaces_the_old_one_and_its_samples(tmp_path):
    first = prepare(small_log(), DataConfig(), tmp_path / "p")
    first.train_dataset("last-session")
    assert (tmp_path / "p" / "samples").exists()
    prepare(small_log(), DataConfig(gap_minutes=10), tmp_path / "p")
    assert not (tmp_path / "p" / "samples").exists()


def test_expected_counts_are_compared(tmp_path, caplog):
    expected = {"users": 2, "sessions": 7}
    manifest = prepare(small_log(), DataConfig(expected_counts=expected), tmp_path / "p").manifest
    assert manifest["expected_counts"] == {
        "users": {"expected": 2, "counted": 2, "agree": True},
        "sessions": {"expected": 7, "counted": 5, "agree": False},
    }
    assert caplog.messages == ["sessions: expected 7, counted 5"]
    with pytest.raises(ValueError, match=r"does not count what it should \(sessions: expected 7, counted 5\)"):
        prepare(small_log(), DataConfig(expected_counts=expected, strict_counts=True), tmp_path / "strict")
    assert not (tmp_path / "strict").exists()


def test_sources_are_read_as_the_config_says(tmp_path):
    (tmp_path / "log.csv").write_text("u;i;b;t;s\n1;10;1;1000;x\n1;11;9;2000;x\n")
    (tmp_path / "items.csv").write_text("sku;title\n10;Ten\n11;Eleven\n")
    config = DataConfig(
        interactions=str(tmp_path / "log.csv"),
        items=str(tmp_path / "items.csv"),
        behaviors="view",
        user_column="u",
        item_column="i",
        behavior_column="b",
        time_column="t",
        session_column="s",
        sessions="column",
        catalog_item_column="sku",
        behavior_names={"1": "view"},
        other_behaviors="drop",
        time_unit="ms",
        id_type="string",
    )
    log, catalog = read_sources(config)
    assert log.to_arrow().slice(0, 1).to_pylist() == [
        {"row": 0, "user_id": "1", "item_id": "10", "behavior": "view", "session": "x", "time": 1_000_000}
    ]
    assert catalog.item_ids.tolist() == ["10", "11"]
    assert read_sources(dataclasses.replace(config, items=None))[1] is None
    with pytest.raises(ValueError, match="`interactions` is missing"):
        read_sources(DataConfig())


def test_manifest_is_plain_json_with_the_rules(tmp_path):
    prepared = prepare(small_log(), DataConfig(gap_minutes=45), tmp_path / "p")
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert manifest == prepared.manifest
    assert manifest["config"]["gap_minutes"] == 45.0
    assert manifest["behaviors"] == "view,buy"
    assert manifest["source"]["interactions"] == 6
    assert any("training sees other users' behavior from after a test session" in note for note in manifest["notes"])
    assert PreparedDataset.load(tmp_path / "p").config == DataConfig(gap_minutes=45)


def test_intermediate_tables_are_dropped_from_the_engine(tmp_path):
    log = small_log(item_id=["a"] * 6)
    backend = log.table.get_backend()
    prepare(log, DataConfig(k_core=2, gap_minutes=10), tmp_path / "p")
    names = [name for (name,) in backend.raw_sql("SHOW TABLES").fetchall()]
    assert "log" in names
    assert not [name for name in names if name.startswith("prepare_")]
    assert len(log) == 6


def test_given_sessions_that_alternate_are_counted_as_runs(tmp_path):
    columns = {**small_columns(), "s": [1, 2, 1, 2, 1, 1]}
    log = InteractionLog.read(pa.table(columns), behaviors="view,buy", columns={"session": "s"})
    prepared = prepare(log, DataConfig(sessions="column", session_column="s"), tmp_path / "p")
    assert prepared.histories[0].sessions.tolist() == [0, 1, 2, 3]
