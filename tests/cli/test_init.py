import json

import pytest
import yaml

from genrec.cli.init import write_recipe
from genrec.cli.recipe import load_recipe


@pytest.fixture
def log(tmp_path):
    rows = [
        {"visitor": f"v{row % 5}", "sku": row % 7, "event": name, "ts": 1_700_000_000_000 + row * 60_000}
        for row, name in enumerate(["view"] * 6 + ["addtocart"] * 3 + ["purchase"] * 2)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_init_writes_a_recipe_that_run_accepts(genrec, tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    result = genrec("init", "shop.csv", "--yes")
    assert result.exit_code == 0, result.output
    assert "ladder: view < cart < buy" in result.stdout
    recipe = load_recipe(tmp_path / "shop.yaml")
    expected = {key: value for key, value in settings["data"].items() if key != "interactions"}
    assert {key: recipe.data[key] for key in expected} == expected
    assert genrec("run", "shop.yaml", "--check").exit_code == 0


def test_units_names_and_a_given_ladder_are_written(log, tmp_path):
    path = write_recipe(
        log, behaviors="view,addtocart,purchase", items=None, recipe=tmp_path / "mine.yaml", ask=None, say=[].append
    )
    data = yaml.safe_load(path.read_text())["data"]
    assert data["time_unit"] == "ms"
    assert (data["user_column"], data["item_column"], data["behavior_column"]) == ("visitor", "sku", "event")
    assert data["behaviors"] == "view,addtocart,purchase"


def test_the_ladder_is_asked_for_with_the_guess_as_default(log, tmp_path):
    def ask(question, default):
        assert (question, default) == ("Behaviors, weakest to strongest", "view,addtocart,purchase")
        return "view,addtocart=purchase2,purchase"

    path = write_recipe(log, behaviors=None, items=None, recipe=tmp_path / "a.yaml", ask=ask, say=[].append)
    assert "view,addtocart=purchase2,purchase" in path.read_text()


def test_a_table_of_items_gives_codes_from_titles(log, tmp_path):
    path = write_recipe(log, behaviors=None, items=log, recipe=tmp_path / "a.yaml", ask=None, say=[].append)
    sections = yaml.safe_load(path.read_text())
    assert sections["embedder"] == {"name": "tfidf"}
    assert sections["data"]["items"] == str(log)


def test_what_the_ladder_leaves_out_is_dropped_and_said(log, tmp_path):
    said = []
    path = write_recipe(
        log, behaviors="view,purchase", items=None, recipe=tmp_path / "a.yaml", ask=None, say=said.append
    )
    assert load_recipe(path).data["other_behaviors"] == "drop"
    assert said[-1] == " left out: addtocart  (`data.other_behaviors: drop` in the recipe)"


def test_a_ladder_that_may_be_misspelt_is_refused_and_nothing_written(log, tmp_path):
    with pytest.raises(ValueError, match="leaves out 'addtocart', which the log has 3 times, and names 'addtocrt'"):
        write_recipe(
            log, behaviors="view,addtocrt,purchase", items=None, recipe=tmp_path / "a.yaml", ask=None, say=[].append
        )
    assert not (tmp_path / "a.yaml").exists()


def write_csv(path, columns, behaviors=("view", "buy")):
    rows = [f"u{row % 3},i{row % 4},{behaviors[row % 2]},{1_700_000_000 + row}" for row in range(12)]
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "columns", "behaviors"),
    [
        ("20240101.csv", "user,item,behavior,time", ("view", "buy")),
        ("no.csv", "user id,item #,event: type,time", ("view", "buy")),
        ("we: ird #1.csv", "user,item,behavior,time", ("no", "no")),
    ],
)
def test_names_that_yaml_reads_otherwise_are_quoted(tmp_path, name, columns, behaviors):
    log = write_csv(tmp_path / name, columns, behaviors)
    recipe = tmp_path / f"{log.stem}.yaml"
    data = load_recipe(write_recipe(log, behaviors=None, items=None, recipe=recipe, ask=None, say=[].append)).data
    roles = [data[f"{role}_column"] for role in ("user", "item", "behavior", "time")]
    assert (data["interactions"], ",".join(roles)) == (str(log), columns)
    assert set(data["behaviors"].split(",")) == set(behaviors)


def test_rows_without_a_behavior_are_said(tmp_path):
    said, log = [], write_csv(tmp_path / "log.csv", "user,item,behavior,time", ("view", ""))
    write_recipe(log, behaviors=None, items=None, recipe=tmp_path / "a.yaml", ask=None, say=said.append)
    assert "           6 rows have none: remove them, `genrec run` refuses them" in said


def test_a_missing_table_of_items_is_named(log, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nope.csv. Check `--items`."):
        write_recipe(log, behaviors=None, items=tmp_path / "nope.csv", recipe=None, ask=None, say=[].append)


def test_an_existing_recipe_is_not_overwritten(log, tmp_path):
    (tmp_path / "a.yaml").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        write_recipe(log, behaviors=None, items=None, recipe=tmp_path / "a.yaml", ask=None, say=[].append)
