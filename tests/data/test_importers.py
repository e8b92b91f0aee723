import json

import pytest

from genrec.data.importers import IMPORTERS

TABLE_1 = {
    "shortvideoad": (48_779, 168_530, 1_874_719, 7_877_083),
    "tmall": (217_374, 379_450, 856_756, 3_818_122),
    "jdata": (10_010, 17_100, 195_860, 1_643_212),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_rules_are_those_of_the_paper(name):
    importer = IMPORTERS[name]
    changes = {"start_time": "2014-11-01"} if "num_days" in importer.settings else {}
    config = importer.config("log.csv", **changes)
    assert importer.name == name
    assert config.interactions == "log.csv"
    assert (
        tuple(config.expected_counts[count] for count in ("users", "items", "sessions", "interactions"))
        == TABLE_1[name]
    )
    assert (config.short_users, config.min_sessions, config.strict_counts) == ("drop", 3, False)
    rules = {"shortvideoad": ("column", None, 1.0), "tmall": ("day", None, 0.25), "jdata": ("gap", 30.0, 0.1)}
    assert (config.sessions, config.gap_minutes, config.user_share) == rules[name]


def test_any_field_can_be_changed_and_an_unknown_one_is_named():
    assert IMPORTERS["jdata"].config(["a.csv", "b.csv"], user_share=1.0).user_share == 1.0
    with pytest.raises(ValueError, match="unknown key 'user_shares'. Did you mean 'user_share'"):
        IMPORTERS["jdata"].config("a.csv", user_shares=1.0)


def test_tmall_needs_the_week():
    with pytest.raises(ValueError, match="`num_days` is 7, but `start_time` is missing"):
        IMPORTERS["tmall"].config("log.csv")
    config = IMPORTERS["tmall"].config("log.csv", start_time="2014-11-01")
    start, end = config.time_window
    assert end - start == 7 * 86_400 * 10**6
    assert start == (1_414_800_000 - 8 * 3600) * 10**6  # midnight in China


def test_tmall_rows_are_cut_into_days_of_china(tmp_path):
    rows = [
        "item_id,user_id,action,vtime",
        "5,1,click,2014-10-31 23:59:59.0",  # before the week
        "5,1,click,2014-11-01 00:00:00.0",
        "6,1,cart,2014-11-01 23:59:00.0",
        "6,1,alipay,2014-11-02 00:01:00.0",
        "7,1,collect,2014-11-07 23:59:59.0",
        "7,1,click,2014-11-08 00:00:00.0",  # after it
        "8,2,click,2014-11-03 00:00:00.0",  # a single session
    ]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    prepared = IMPORTERS["tmall"].prepare(tmp_path / "log.csv", tmp_path / "p", start_time="2014-11-01", user_share=1.0)
    assert prepared.histories.users.tolist() == [1]
    assert prepared.histories.sessions.tolist() == [0, 0, 1, 2]
    assert [prepared.ladder.names[b] for b in prepared.histories.behaviors] == ["click", "cart", "alipay", "collect"]
    assert prepared.manifest["dropped"] == {
        "outside the 7 days from 2014-11-01": 2,
        "the user has fewer than 3 sessions": 1,
    }


def test_jdata_types_are_named_and_cart_removal_left_out(tmp_path):
    rows = ["user_id,sku_id,time,model_id,type,cate,brand"]
    for hour, kind in enumerate([1, 6, 3, 5, 2, 4]):
        rows.append(f"266079.0,16{kind},2016-02-01 {hour:02}:00:00,0,{kind},8,1")
    (tmp_path / "a.csv").write_text("\n".join(rows))
    (tmp_path / "b.csv").write_text("\n".join([rows[0], rows[1].replace("02-01", "03-01")]))
    paths = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    prepared = IMPORTERS["jdata"].prepare(paths, tmp_path / "p", user_share=1.0)
    names = [prepared.ladder.names[b] for b in prepared.histories.behaviors]
    assert names == ["page_view", "click", "collect", "cart", "purchase", "page_view"]
    assert prepared.histories.users.tolist() == ["266079.0"]
    assert prepared.manifest["expected_counts"]["users"] == {"expected": 10_010, "counted": 1, "agree": False}
    with pytest.raises(ValueError, match="users: expected 10,010, counted 1; items"):
        IMPORTERS["jdata"].prepare(paths, tmp_path / "strict", user_share=1.0, strict_counts=True)


def test_shortvideoad_takes_sessions_and_ladder_from_the_release(tmp_path):
    folder = tmp_path / "ShortVideoAD"
    folder.mkdir()
    content = {
        "SMB.inter": {"1": [0, 1, 0], "2": [1]},
        "SMB.behavior": {"1": ["p3s", "click", "conversion"], "2": ["p3s"]},
        "SMB.session": {"1": [0, 1, 2], "2": [0]},
        "behavior_level": {"p3s": 0, "click": 1, "conversion": 2},
        "index": {"0": ["<a_1>", "<b_2>"], "1": ["<a_1>", "<b_3>"]},
    }
    for name, value in content.items():
        (folder / f"ShortVideoAD.{name}.json").write_text(json.dumps(value))
    prepared = IMPORTERS["shortvideoad"].prepare(folder, tmp_path / "p")
    assert prepared.ladder.target == "conversion"
    assert prepared.histories.users.tolist() == ["1"]
    assert prepared.released_codes().tolist() == [[1, 2], [1, 3]]
