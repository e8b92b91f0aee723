"""The demo in small: what it prints and where everything lies."""

import json

import pytest

from genrec.evaluation.tables import RULES

SMALL = {
    "market.num_users": 40,
    "market.num_items": 30,
    "model.preset": "gamer-tiny",
    "model.hidden_size": 16,
    "training.num_train_epochs": 1,
    "training.ranking_num_beams": 10,
    "evaluation.num_beams": 10,
    "evaluation.num_bootstrap": 20,
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What `genrec demo` prints on a market of 40 users, and its folder."""
    from typer.testing import CliRunner

    from genrec.cli.main import app

    folder = tmp_path_factory.mktemp("demo") / "run"
    sets = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    result = CliRunner().invoke(app, ["demo", "--output", str(folder), "--seed", "3", "--debug", *sets])
    assert result.exit_code == 0, result.output
    return result.stdout, folder


def test_the_demo_runs_both_splits_with_every_model_and_the_upper_bound(shown):
    _, folder = shown
    results = json.loads((folder / "report.json").read_text())["results"]
    assert {row["protocol"] for row in results} == {"last-session", "temporal"}
    assert {row["model"] for row in results} == {"gamer", *RULES, "upper-bound"}
    assert (folder / "checkpoint" / "model.safetensors").is_file()


def test_the_upper_bound_is_above_every_model(shown):
    _, folder = shown
    results = json.loads((folder / "report.json").read_text())["results"]
    merged = [row for row in results if row["behavior"] == "merged" and row["metric"] == "ndcg@10"]
    last = {row["model"]: row["value"] for row in merged if row["protocol"] == "last-session"}
    assert max(last, key=last.get) == "upper-bound"


def test_the_demo_prints_a_table_a_share_three_users_and_where_everything_lies(shown):
    output, folder = shown
    assert "ndcg@10, last-session" in output
    assert "ndcg@10, temporal" in output
    assert "of the upper bound" in output
    assert output.count("\nuser ") == 3
    assert output.count("  top 5: ") == 3
    assert f"checkpoint  {folder / 'checkpoint'}" in output
    assert f"report      {folder / 'report.json'}" in output


def test_quick_is_the_smaller_recipe_with_one_split(genrec, tmp_path):
    from genrec.cli.recipe import load_recipe

    quick, full = load_recipe("demo-quick"), load_recipe("demo")
    assert quick.evaluation.protocols == ["last-session"]
    assert full.evaluation.protocols == ["last-session", "temporal"]
    assert quick.market["num_users"] < full.market["num_users"]
    result = genrec("demo", "--quick", "--output", tmp_path, "--set", "market.num_users=0")
    assert result.exit_code == 2
    assert "`num_users` must be at least 1, got 0." in result.stderr
