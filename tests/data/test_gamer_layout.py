import json

import numpy as np
import pytest

from genrec.data.config import DataConfig
from genrec.data.gamer_layout import is_gamer_layout, read_gamer_layout, read_semantic_ids
from genrec.data.interactions import InteractionLog
from genrec.data.preparation import prepare

FILES = {
    "X.SMB.inter.json": {"5": [3, 1, 3, 1], "2": [1]},
    "X.SMB.behavior.json": {"5": ["p3s", "click", "p3s", "conversion"], "2": ["p3s"]},
    "X.SMB.session.json": {"5": [4, 4, 6, 9], "2": [0]},
    "X.SMB.time.json": {
        "5": ["2025-01-01 08:00:00", "2025-01-01 08:00:01", "2025-01-02 00:00:00", "2025-01-03 00:00:00"],
        "2": ["2025-01-01 00:00:00"],
    },
    "X.behavior_level.json": {"conversion": 2, "p3s": 0, "click": 1},
    "X.index.json": {"1": ["<a_4>", "<b_0>"], "3": ["<a_4>", "<b_0>"], "7": ["<a_0>", "<b_12>"]},
    "X.item.json": {"1": {"title": "one", "tags": ["x", "y"], "price": 3}, "3": {"title": "three"}},
}
SECONDS = [1_735_689_600, 1_735_689_601, 1_735_747_200, 1_735_833_600, 1_735_660_800]  # Asia/Shanghai = UTC + 8 hours


def write(folder, **changes):
    for name, content in {**FILES, **changes}.items():
        if content is not None:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_layout_is_recognised_by_its_ladder_file(tmp_path):
    assert not is_gamer_layout(tmp_path)
    assert is_gamer_layout(write(tmp_path))
    assert not is_gamer_layout({"user_id": [1]})


def test_layout_becomes_a_log(tmp_path):
    log = InteractionLog.read(write(tmp_path), time_zone="Asia/Shanghai")
    assert log.ladder.names == ("p3s", "click", "conversion")
    assert log.ladder.levels == (0, 1, 2)
    assert log.to_arrow().to_pydict() == {
        "row": [0, 1, 2, 3, 4],
        "user_id": ["5", "5", "5", "5", "2"],
        "item_id": [3, 1, 3, 1, 1],
        "behavior": ["p3s", "click", "p3s", "conversion", "p3s"],
        "session": ["4", "4", "6", "9", "0"],
        "time": [second * 1_000_000 for second in SECONDS],
    }


def test_catalog_and_codes_come_along(tmp_path):
    log = InteractionLog.read(write(tmp_path))
    assert log.catalog.item_ids.tolist() == [1, 3, 7]
    assert log.catalog.titles() == ["one", "three", "7"]
    assert log.catalog.column("tags") == ["x y", None, None]
    assert log.catalog.column("price") == ["3", None, None]
    assert log.released_codes.item_ids.tolist() == [1, 3, 7]
    assert log.released_codes.codes.tolist() == [[4, 0], [4, 0], [0, 12]]


def test_without_optional_files_the_log_has_no_times_and_no_codes(tmp_path):
    optional = {"X.SMB.time.json": None, "X.index.json": None, "X.item.json": None}
    log = InteractionLog.read(write(tmp_path, **optional))
    assert not log.has_times
    assert log.to_arrow()["time"].to_pylist() == [0] * 5
    assert log.released_codes is None
    assert log.catalog.item_ids.tolist() == [1, 3]


def test_released_codes_survive_preparation_in_catalog_order(tmp_path):
    (tmp_path / "raw").mkdir()
    index = {"7": ["<a_0>", "<b_12>"], "1": ["<a_4>", "<b_0>"]}
    log = InteractionLog.read(write(tmp_path / "raw", **{"X.SMB.time.json": None, "X.index.json": index}))
    config = DataConfig(sessions="column", session_column="session")
    prepared = prepare(log, config, tmp_path / "prepared")
    assert prepared.catalog.item_ids.tolist() == [1, 3, 7]
    assert prepared.released_codes().tolist() == [[4, 0], [-1, -1], [0, 12]]
    split = prepared.split("last-session")
    assert split.train.users.tolist() == ["2", "5"]
    assert split.train[1].items.tolist() == [1, 0]
    assert split.test.targets[0].behaviors.tolist() == [2]
    with pytest.raises(ValueError, match="no times, so it has no temporal split"):
        prepared.split("temporal")


def test_semantic_ids_are_read_without_a_log(tmp_path):
    codes = read_semantic_ids(write(tmp_path) / "X.index.json")
    assert codes.item_ids.tolist() == [1, 3, 7]
    assert codes.codes.tolist() == [[4, 0], [4, 0], [0, 12]]


def test_a_log_without_times_needs_its_own_sessions(tmp_path):
    (tmp_path / "raw").mkdir()
    log = InteractionLog.read(write(tmp_path / "raw", **{"X.SMB.time.json": None}))
    with pytest.raises(ValueError, match="has no times, so only its own sessions can be used"):
        prepare(log, DataConfig(), tmp_path / "prepared")


def test_one_index_variant_is_taken_and_several_refused(tmp_path):
    write(tmp_path, **{"X.index.json": None, "X.index.cid.json": {"1": ["<a_9>"]}})
    assert read_gamer_layout(tmp_path).codes.codes.tolist() == [[9]]
    write(tmp_path, **{"X.index.json": None, "X.index.rid.json": {"1": ["<a_9>"]}})
    with pytest.raises(ValueError, match=r"several index files: \['X.index.cid.json', 'X.index.rid.json'\]"):
        read_gamer_layout(tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"X.SMB.inter.json": None}, FileNotFoundError, "X.SMB.inter.json does not exist"),
        ({"X.SMB.session.json": {"5": [1, 2], "2": [0]}}, ValueError, "session.json has 2 entries for user '5', but"),
        ({"X.SMB.behavior.json": {"5": ["p3s"] * 4}}, ValueError, "behavior.json has no list entries for user '2'"),
        ({"X.SMB.inter.json": '{"5": [1,'}, ValueError, "X.SMB.inter.json is not valid JSON"),
        ({"X.SMB.inter.json": [1]}, ValueError, "must hold one JSON object, got list"),
        (
            {"X.SMB.inter.json": {"5": [3, 1, "b", 1], "2": [1]}},
            ValueError,
            "inter.json lists the item 'b' for user '5', but items of the released layout are whole numbers. Number",
        ),
        (
            {"X.SMB.inter.json": {"5": [3, 1, "3", 1], "2": [1]}},
            ValueError,
            "inter.json lists the item '3' for user '5'",
        ),
        ({"X.item.json": {"tent": {"title": "x"}}}, ValueError, "X.item.json names the item 'tent', but items of the"),
        ({"X.index.json": {"tent": ["<a_4>"]}}, ValueError, "X.index.json names the item 'tent', but items of the"),
        ({"X.index.json": {"1": ["a4"]}}, ValueError, "gives item '1' the token 'a4'"),
        ({"X.index.json": {"1": ["<a_1>"], "3": []}}, ValueError, r"codes of the lengths \[0, 1\]"),
        ({"Y.behavior_level.json": {"p3s": 0}}, ValueError, r"holds the datasets \['X', 'Y'\]"),
    ],
)
def test_broken_layout_names_the_file(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        read_gamer_layout(write(tmp_path, **changes))


def test_its_columns_cannot_be_renamed(tmp_path):
    with pytest.raises(ValueError, match="fixed columns, but `columns` renames {'user_id': 'uid'}"):
        InteractionLog.read(write(tmp_path), columns={"user_id": "uid"})


def test_unreadable_time_names_the_row(tmp_path):
    times = {**FILES["X.SMB.time.json"], "2": ["noon"]}
    with pytest.raises(ValueError, match="`timestamp` holds 'noon' in row 4"):
        InteractionLog.read(write(tmp_path, **{"X.SMB.time.json": times}))


def test_items_may_be_described_by_text_alone(tmp_path):
    layout = read_gamer_layout(write(tmp_path, **{"X.item.json": {"1": "a video", "3": None}}))
    assert layout.catalog.texts()[0] == "a video"
    assert np.array_equal(layout.catalog.item_ids, [1, 3, 7])
