"""The search over settings: its space, its budget, and going on, mostly with a trainer made of arithmetic."""

import json
import math
import sys

import pytest
import yaml

from genrec.cli.bench import BenchSettings
from genrec.cli.recipe import load_recipe
from genrec.cli.tuning import Budget, load_space, train_trial, tune, tune_all

RATES = {"training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "model.hidden_size": [8, 16, 32]}

pytest.importorskip("optuna")


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "market_sasrec.yaml"
    sections = {
        "name": "market_sasrec",
        "market": {"num_users": 60, "num_items": 40},
        "model": {"preset": "sasrec", "hidden_size": 8},
        "training": {"num_train_epochs": 2, "use_cpu": True},
    }
    path.write_text(yaml.safe_dump(sections))
    return str(path)


class Trainer:
    """A validation that is best at a learning rate of 0.01 and a hidden size of 16; it notes what it trained."""

    def __init__(self, stop_at=None):
        self.trained, self.stop_at = [], stop_at

    def __call__(self, recipe, say):
        if self.stop_at == len(self.trained):
            raise KeyboardInterrupt
        self.trained.append(recipe)
        size = recipe.model["hidden_size"]
        if size == 32:
            raise ValueError("`hidden_size` is too large.")
        return 1 - abs(math.log10(recipe.training["learning_rate"]) + 2) / 10 - (size != 16) / 2


def search(recipe, tmp_path, train, trials=6, space=RATES, say=print, **budget):
    settings = BenchSettings(output=str(tmp_path / "bench"), csv=str(tmp_path / "a.csv"))
    return tune(recipe, space, settings, Budget(trials, **budget), say=say, train=train)


def kept(tmp_path):
    return json.loads((tmp_path / "bench" / "market_sasrec" / "tuned.json").read_text())


def test_the_best_trial_is_chosen_and_written_with_its_budget(recipe, tmp_path):
    trainer, said = Trainer(), []
    name, tuned = search(recipe, tmp_path, trainer, trials=8, say=said.append)
    assert (name, set(tuned)) == ("market_sasrec", set(RATES))
    content = kept(tmp_path)
    values = [trial["value"] for trial in content["trials"] if trial["value"] is not None]
    assert content["value"] == max(values)
    assert content["tuned"] == tuned
    assert content["budget"] == {"trials": 8, "minutes": 3.0, "seed": 0}
    assert "8 trials of at most 3 minutes of training each" in said[0]
    load_recipe(recipe, [f"{key}={value}" for key, value in tuned.items()])  # the recipe takes them


def test_a_trial_trains_within_the_time_and_with_the_same_seed(recipe, tmp_path):
    trainer = Trainer()
    search(recipe, tmp_path, trainer, trials=3, minutes=0.5, seed=4)
    assert {trained.training["max_seconds"] for trained in trainer.trained} == {30.0}
    assert {trained.seed for trained in trainer.trained} == {4}
    assert all(1e-4 <= trained.training["learning_rate"] <= 1e-1 for trained in trainer.trained)
    assert len({trained.output for trained in trainer.trained}) == 3


def test_a_failed_trial_costs_its_trial_and_not_the_search(recipe, tmp_path):
    said = []
    search(recipe, tmp_path, Trainer(), trials=8, say=said.append)
    failed = [trial for trial in kept(tmp_path)["trials"] if trial["error"]]
    assert failed, "no trial drew the size that fails, so nothing was tested"
    assert failed[0]["error"] == "`hidden_size` is too large."
    assert len(kept(tmp_path)["trials"]) == 8
    assert any("FAILED, `hidden_size` is too large." in line for line in said)


def test_a_search_whose_trials_all_fail_is_an_error(recipe, tmp_path):
    with pytest.raises(ValueError, match=r"No trial of 'market_sasrec' succeeded; the last said: `hidden_size` is too"):
        search(recipe, tmp_path, Trainer(), trials=2, space={**RATES, "model.hidden_size": [32]})
    assert not (tmp_path / "bench" / "market_sasrec" / "tuned.json").exists()


def test_a_stopped_search_goes_on_and_the_kill_costs_nothing(recipe, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(recipe, tmp_path, Trainer(stop_at=2))
    trainer = Trainer()
    search(recipe, tmp_path, trainer)
    assert len(trainer.trained) == 4
    finished = Trainer()
    search(recipe, tmp_path, finished)
    assert finished.trained == []


def test_a_larger_budget_adds_trials_and_another_space_starts_anew(recipe, tmp_path):
    search(recipe, tmp_path, Trainer(), trials=3)
    more, anew = Trainer(), Trainer()
    search(recipe, tmp_path, more, trials=5)
    assert len(more.trained) == 2
    search(recipe, tmp_path, anew, trials=2, space={"model.hidden_size": [8, 16]} | {"training.learning_rate": [0.01]})
    assert len(anew.trained) == 2


def test_the_same_search_draws_the_same_settings(recipe, tmp_path):
    drawn = []
    for folder in ("a", "b"):
        trainer = Trainer()
        search(recipe, tmp_path / folder, trainer)
        drawn.append([(run.model["hidden_size"], run.training["learning_rate"]) for run in trainer.trained])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.learning_rate: {low: 1e-2, high: 1e-3}", "`low` below `high`"),
        ("training.learning_rate: {low: 0, high: 1, log: true}", "above 0 where `log` is true"),
        ("training.learning_rate: 0.1", "must be a list of values or a range"),
        ("training.learning_rate: []", "must be a list of values or a range"),
        ("training.learning_rate: {low: 0, high: 1, step: 2}", "must be a list of values or a range"),
        ("[1, 2]", "must map settings to their values"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_wrong_space_is_refused(tmp_path, text, message):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_space(tmp_path / "space.yaml")


def test_a_space_reads_numbers_that_yaml_takes_for_text(tmp_path):
    (tmp_path / "space.yaml").write_text("a.b: {low: 1e-4, high: 1e-2, log: true}\nc.d: [x, 2]\n")
    assert load_space(tmp_path / "space.yaml") == {"a.b": {"low": 1e-4, "high": 1e-2, "log": True}, "c.d": ["x", 2]}


def test_a_space_of_settings_that_the_recipe_does_not_have_is_refused_before_any_trial(recipe, tmp_path):
    trainer = Trainer()
    with pytest.raises(ValueError, match="num_exprts"):
        search(recipe, tmp_path, trainer, space={"model.num_exprts": [1, 2]})
    assert trainer.trained == []


def test_a_budget_must_be_positive():
    with pytest.raises(ValueError, match="must be positive, got 8, 0"):
        Budget(8, 0)


def test_without_optuna_the_extra_is_named(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"needs Optuna, which is missing. `pip install 'genrec\[tune\]'`"):
        tune_all([recipe], tmp_path / "space.yaml", BenchSettings(), Budget(), say=print)


def test_a_trial_is_judged_by_its_best_validation(recipe, tmp_path):
    trained = load_recipe(recipe, output=str(tmp_path / "trial"))
    value = train_trial(trained, print)
    curve = json.loads((tmp_path / "trial" / "checkpoint" / "training_report.json").read_text())["curve"]
    assert value == max(entry["eval_ndcg@10"] for entry in curve)


@pytest.mark.parametrize("option", ["--trials", "--trial-minutes"])
def test_the_budget_of_no_search_is_refused(recipe, genrec, option):
    result = genrec("bench", recipe, option, 2)
    assert result.exit_code == 2
    assert "are the budget of a search. Add `--tune SPACE.yaml`" in result.stderr


def test_the_command_searches_then_runs_the_seeds_with_what_was_chosen(recipe, tmp_path, genrec):
    space = tmp_path / "space.yaml"
    space.write_text("training.learning_rate: [0.004]\n")
    options = ["--seeds", "0", "--output", tmp_path / "bench", "--csv", tmp_path / "csv", "--in-process"]
    quick = ["--set", "evaluation.baselines=[]", "--set", "evaluation.num_bootstrap=20"]
    result = genrec(
        "bench", recipe, "--tune", space, "--trials", 1, "--trial-minutes", 0.2, *options, *quick, "--debug"
    )
    assert result.exit_code == 0, result.output
    assert "1 trials of at most 0.2 minutes" in result.stdout
    record = json.loads((tmp_path / "bench" / "market_sasrec" / "seed-0" / "bench.json").read_text())
    assert record["tuned"] == {"training.learning_rate": 0.004}
    assert record["settings"]["training"]["learning_rate"] == 0.004
    assert (tmp_path / "csv" / "market.csv").is_file()
