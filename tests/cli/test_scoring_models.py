"""`genrec run` with a model that scores items: no codes, the same stages, report, card and commands."""

import json
import re

import pytest

from genrec import SequentialRecommender
from genrec.cli.recipe import check_recipe
from genrec.data import PreparedDataset
from genrec.hub import check_checkpoint_folder, push_folder
from genrec.recommender import GenerativeRecommender, RecencyRecommender, load_recommender

MODEL = {"preset": "sasrec", "hidden_size": 16, "intermediate_size": 32, "max_history_items": 12}
TRAINING = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "use_cpu": True, "max_ranking_queries": 50}
FILES = {"config.json", "model.safetensors", "recommender.json", "item_ids.json", "catalog.parquet"}


@pytest.fixture
def scoring(settings):
    """The recipe of the shop with SASRec instead of item codes and GAMER."""
    del settings["item_tokenizer"], settings["embedder"]
    return settings | {"model": dict(MODEL), "training": dict(TRAINING), "evaluation": {"num_bootstrap": 20}}


@pytest.fixture
def finished_run(scoring, write, genrec, tmp_path):
    result = genrec("run", write(scoring), "--csv", tmp_path / "figures.csv", "--debug")
    assert result.exit_code == 0, result.output
    return tmp_path / "run", result.stdout


def test_a_run_has_no_codes_and_leaves_a_checkpoint_and_a_report(finished_run, genrec, tmp_path):
    run, printed = finished_run
    stages = [line.split("]")[0][1:] for line in printed.splitlines() if "] done in" in line]
    assert stages == ["prepare", "last-session/train", "evaluate"]
    names = {path.name for path in (run / "checkpoint").iterdir()}
    assert names == FILES | {"README.md", "training_report.json"}
    results = json.loads((run / "report.json").read_text())["results"]
    assert "sasrec" in {row["model"] for row in results}
    assert "sasrec" in (tmp_path / "figures.csv").read_text()
    card = (run / "checkpoint" / "README.md").read_text()
    assert "SequentialRecommender.from_pretrained" in card
    assert "sequential-recommendation" in card
    assert "model-index" in card
    assert "$" not in card
    answer = genrec("recommend", run / "checkpoint", "--user", "u3", "-k", "3")
    assert answer.exit_code == 0, answer.output
    assert len(answer.stdout.splitlines()) == 4


def test_the_same_command_keeps_everything_and_a_stopped_one_is_checked(finished_run, scoring, write, genrec):
    result = genrec("run", write(scoring))
    assert sum("kept, nothing changed" in line for line in result.stdout.splitlines()) == 3
    assert genrec("tokenize", write(scoring)).exit_code == 0  # there is nothing to do


def test_check_estimates_without_codes(scoring, write, genrec):
    result = genrec("run", write(scoring), "--check")
    assert result.exit_code == 0, result.output
    assert "codes:" not in result.stdout
    assert "parameters;" in result.stdout


def test_a_checkpoint_is_loaded_by_its_kind(finished_run, tmp_path):
    run, _ = finished_run
    recommender = load_recommender(run / "checkpoint", batch_size=7)
    assert isinstance(recommender, SequentialRecommender)
    assert recommender.batch_size == 7
    check_checkpoint_folder(run / "checkpoint")
    with pytest.raises(ValueError, match="`portable` is for models that write item codes"):
        push_folder(run / "checkpoint", "owner/name", portable=True)
    (run / "checkpoint" / "item_ids.json").unlink()
    with pytest.raises(ValueError, match="no checkpoint folder: item_ids.json is missing"):
        check_checkpoint_folder(run / "checkpoint")


def test_rules_and_generative_models_are_loaded_by_their_kind_too(finished, tmp_path):
    assert isinstance(load_recommender(finished.run / "checkpoint"), GenerativeRecommender)
    rule = RecencyRecommender().fit(PreparedDataset.load(finished.run / "prepared").split("last-session").train)
    rule.save_pretrained(tmp_path / "rule")
    assert isinstance(load_recommender(tmp_path / "rule"), RecencyRecommender)
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load_recommender(tmp_path)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("item_tokenizer", {"name": "rqkmeans"}, "`item_tokenizer` would be ignored: the model 'sasrec' scores items"),
        ("embedder", {"name": "collaborative"}, "`embedder` would be ignored"),
        ("evaluation", {"num_beams": 5}, "`evaluation.num_beams` would be ignored"),
        ("model", {"preset": "sasrec", "num_items": 5}, "`model.num_items` follows from the data. Remove it."),
        ("model", {"preset": "sasrec", "session_wyse": True}, "Did you mean `model.session_wise`"),
        ("model", {"preset": "sasrek"}, "Did you mean `sasrec`"),
        ("model", {"hidden_size": 5}, "`model` needs a `preset`"),
        ("training", {"temperature": 0.7}, "Unknown key `training.temperature`"),
        ("training", {"augmentation_copies": "two"}, "`training.augmentation_copies` must be"),
        ("training", {"samples": 3}, "`training.samples` must be text"),
    ],
)
def test_a_recipe_with_what_such_a_model_would_ignore_is_refused(scoring, section, value, message):
    with pytest.raises(ValueError, match=message):
        check_recipe(scoring | {section: value})


def test_a_wrong_value_is_refused_before_any_work(scoring, write, genrec, tmp_path):
    scoring["training"]["samples"] = "session"
    result = genrec("run", write(scoring))
    assert result.exit_code != 0
    assert "`samples` must be one of user, window, interaction" in result.output
    assert not (tmp_path / "run").exists()


def test_the_model_is_called_by_its_preset_unless_named(scoring):
    assert check_recipe(scoring).evaluation.model_name == "sasrec"
    named = check_recipe(scoring | {"evaluation": {"model_name": "sasrec-wide"}})
    assert named.evaluation.model_name == "sasrec-wide"


@pytest.mark.parametrize(
    ("preset", "training"),
    [("pbat", {}), ("mbht", {"samples": "interaction", "target_behaviors_only": True})],
)
def test_multi_behavior_models_run_as_they_are(preset, training, scoring, write, genrec, tmp_path):
    scoring["model"] = {**MODEL, "preset": preset}
    scoring["training"] |= {"num_train_epochs": 1, **training}
    result = genrec("run", write(scoring), "--debug")
    assert result.exit_code == 0, result.output
    recommender = load_recommender(tmp_path / "run" / "checkpoint")
    assert isinstance(recommender, SequentialRecommender)
    answer = genrec("recommend", tmp_path / "run" / "checkpoint", "--user", "u3", "-k", "3")
    assert len(answer.stdout.splitlines()) == 4


@pytest.mark.parametrize(("preset", "samples"), [("mb-gmn", "user"), ("s-mbrec", "interaction")])
def test_graph_models_run_and_keep_the_graph_of_the_training_part(preset, samples, scoring, write, genrec, tmp_path):
    scoring["model"] = {"preset": preset, "hidden_size": 8}
    scoring["training"] |= {"num_train_epochs": 2, "samples": samples}
    result = genrec("run", write(scoring), "--debug")
    assert result.exit_code == 0, result.output
    model = load_recommender(tmp_path / "run" / "checkpoint").model
    train = PreparedDataset.load(tmp_path / "run" / "prepared").split("last-session").train
    links = set(zip(train.rows.tolist(), train.items.tolist(), train.behaviors.tolist()))
    assert model.edges.shape == (2, len(links))
    assert int(model.item_degrees.sum()) == len(links) == model.config.num_edges
    answer = genrec("recommend", tmp_path / "run" / "checkpoint", "--user", "u3", "-k", "3")
    assert len(answer.stdout.splitlines()) == 4
    with pytest.raises(ValueError, match="`model.num_edges` follows from the data"):
        check_recipe(scoring | {"model": {"preset": preset, "num_edges": 3}})


def test_thinned_copies_of_histories_give_samples_too(scoring, write, genrec):
    scoring["training"] |= {"num_train_epochs": 1, "samples": "interaction"}
    samples = []
    for copies in (0, 2):
        scoring["training"]["augmentation_copies"] = copies
        result = genrec("run", write(scoring), "--debug")
        assert result.exit_code == 0, result.output
        samples.append(int(re.search(r"([\d,]+) training samples", result.stdout)[1].replace(",", "")))
    assert samples[1] > samples[0]
