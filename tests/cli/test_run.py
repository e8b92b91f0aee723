"""`genrec run` and its stages on a 200-row CSV, in this process."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from genrec.cli import check, stages
from genrec.cli.main import app
from genrec.cli.recipe import check_recipe, load_recipe
from genrec.data.histories import as_histories
from genrec.evaluation.benchmark_csv import read_benchmark_csv
from genrec.evaluation.protocols import SLICES
from genrec.evaluation.tables import RULES
from genrec.recommender import load_recommender
from genrec.training import GenRecTrainer

REPORT_KEYS = {"model", "protocol", "behavior", "metric", "value", "low", "high", "records"}


def lines_of(result):
    return [line for line in result.stdout.splitlines() if line.startswith("[")]


def test_a_run_prints_its_stages_and_leaves_its_files(finished):
    names = [line.split("]")[0][1:] for line in finished.stdout.splitlines() if "] done in" in line]
    assert names == ["prepare", "last-session/tokenize", "last-session/train", "evaluate"]
    for name in ("recipe.yaml", "report.json", "report.md", "prepared/manifest.json", "plots/metrics.png"):
        assert (finished.run / name).is_file(), name
    names = {path.name for path in (finished.run / "checkpoint").iterdir()}
    assert names == {
        *("config.json", "generation_config.json", "model.safetensors", "catalog.parquet", "README.md"),
        *("item_tokenizer.json", "item_tokenizer.safetensors", "item_ids.json", "training_report.json"),
        "serving.json",
    }


def test_a_run_ends_with_its_table_and_where_everything_lies(finished):
    lines = finished.stdout.splitlines()
    assert "ndcg@10, last-session (* best of its column)" in lines
    assert f"checkpoint  {finished.run / 'checkpoint'}" in lines
    assert lines[-1].startswith(f"Next: genrec recommend {finished.run / 'checkpoint'} --user ")


def test_the_report_has_the_promised_rows(finished):
    results = json.loads((finished.run / "report.json").read_text())["results"]
    assert all(set(row) == REPORT_KEYS for row in results)
    assert {row["model"] for row in results} == {"gamer", *RULES}
    assert {row["protocol"] for row in results} == {"last-session"}
    assert {"merged", "view"} <= {row["behavior"] for row in results}
    assert "ndcg@10" in {row["metric"] for row in results}


def test_the_training_report_says_how_training_went_and_on_what(finished):
    report = json.loads((finished.run / "checkpoint" / "training_report.json").read_text())
    assert [entry["epoch"] for entry in report["curve"]] == [1.0, 2.0, 3.0]
    best = max(report["curve"], key=lambda entry: entry["eval_ndcg@10"])
    assert report["best_epoch"] == best["epoch"]
    assert isinstance(report["still_improving"], bool)
    assert report["versions"]["torch"]
    assert report["seconds"] > 0
    assert report["peak_mb"] > 10
    assert report["data"]["items"] == 25
    assert len(report["data"]["source fingerprint"]) == 16
    assert {row["model"] for row in report["results"]} == {"gamer", *RULES}


def test_only_an_unfinished_training_keeps_optimizer_states(finished):
    assert not list(finished.run.rglob("*.pt"))
    assert not list(finished.run.rglob("checkpoint-*"))


def test_the_csv_file_gets_the_headline_figures_and_the_slices(finished):
    rows = read_benchmark_csv(finished.folder / "figures.csv")
    headline = {"hit@1", "hit@5", "hit@10", "recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10"}
    slices = {f"ndcg@10/{name}" for name in SLICES}
    assert headline < {row["metric"] for row in rows} <= headline | slices
    assert {"ndcg@10/repeat", "ndcg@10/first-time"} < {row["metric"] for row in rows}
    assert {(row["config"], row["seed"]) for row in rows} == {("shop", "0")}
    merged = {row["model"]: row for row in rows if row["behavior"] == "merged" and row["metric"] == "ndcg@10"}
    assert float(merged["gamer"]["seconds"]) > float(merged["popularity"]["seconds"])


def test_a_second_run_keeps_every_stage(finished, genrec, tmp_path):
    folder = finished.copy_to(tmp_path / "run")
    genrec("run", finished.recipe, "--output", folder)  # its recipe names the new folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    result = genrec("run", finished.recipe, "--output", folder)
    kept = [line for line in lines_of(result) if "kept, nothing changed" in line]
    assert len(kept) == 4
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("evaluation.num_bootstrap=10", ["evaluate"]),
        ("training.num_train_epochs=1", ["last-session/train", "evaluate"]),
        ("embedder.window=3", ["last-session/tokenize", "last-session/train", "evaluate"]),
    ],
)
def test_a_changed_setting_redoes_its_stage_and_those_after_it(finished, genrec, tmp_path, override, redone):
    folder = finished.copy_to(tmp_path / "run")
    result = genrec("run", finished.recipe, "--output", folder, "--set", override)
    assert result.exit_code == 0, result.output
    assert [line.split("]")[0][1:] for line in lines_of(result) if "] done in" in line] == redone


def test_stage_commands_stop_after_their_stage(settings, write, genrec, tmp_path):
    recipe, folder = write(settings), tmp_path / "run"
    assert genrec("prepare", recipe).exit_code == 0
    assert (folder / "prepared").is_dir()
    assert not (folder / "last-session").exists()
    assert genrec("tokenize", recipe).exit_code == 0
    assert (folder / "last-session" / "item_tokenizer" / "item_tokenizer.json").is_file()
    assert not (folder / "checkpoint").exists()


def test_ctrl_c_leaves_a_state_from_which_the_same_command_reaches_the_same_model(
    finished, settings, write, genrec, tmp_path, monkeypatch
):
    recipe = write(settings)
    train_step, steps = GenRecTrainer.training_step, []

    def interrupted(trainer, *arguments, **keywords):
        steps.append(trainer.state.global_step)
        if trainer.state.epoch and trainer.state.epoch > 2:
            raise KeyboardInterrupt
        return train_step(trainer, *arguments, **keywords)

    monkeypatch.setattr(GenRecTrainer, "training_step", interrupted)
    result = genrec("train", recipe)
    assert result.exit_code == 130
    assert "Stopped. Finished work is kept; go on with:" in result.stderr
    assert not (tmp_path / "run" / "checkpoint").exists()

    monkeypatch.setattr(GenRecTrainer, "training_step", train_step)
    result = genrec("train", recipe)
    assert result.exit_code == 0, result.output
    assert "going on from the last checkpoint of a run that was stopped" in result.stdout
    assert "[prepare] kept" in result.stdout
    resumed = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    straight = load_file(finished.run / "checkpoint" / "model.safetensors")
    assert all((resumed[name] == straight[name]).all() for name in straight)


def test_bad_input_leaves_earlier_outputs_untouched(finished, genrec, tmp_path):
    folder = finished.copy_to(tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "stages" not in path.parts}
    log = tmp_path / "broken.csv"
    log.write_text((finished.folder / "shop.csv").read_text().replace(",view,", ",vieww,", 1))
    result = genrec("run", finished.recipe, "--output", folder, "--set", f"data.interactions={log}")
    assert result.exit_code == 2
    assert "vieww" in result.stderr
    assert "Traceback" not in result.output
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "stages" not in path.parts}
    assert after == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.interactions=null"], "names no log: `data.interactions` is not set"),
        (["data.interactions=nowhere.csv"], "There is no file nowhere.csv. Check `data.interactions`"),
        (["data.user_column=person"], "no column `person` for the user_id"),
        (["item_tokenizer.codebook_sizes=[64, 64]"], "A codebook must not be larger than the catalog"),
        (["item_tokenizer={name: released}", "embedder=null"], "no codes came with the log"),
        (["model.num_attention_heads=5"], "`num_attention_heads` must be a multiple of `num_key_value_heads`"),
        (["training.preset=papr"], "There is no training preset 'papr'"),
        (["training.learningrate=1"], "Unknown key `training.learningrate`. Did you mean `training.learning_rate`?"),
        (["model.hidden_size=wide"], "`model.hidden_size` must be a whole number, got 'wide' (str)."),
    ],
)
def test_user_errors_are_one_message_and_exit_code_2(settings, write, genrec, overrides, message):
    sets = [part for override in overrides for part in ("--set", override)]
    result = genrec("run", write(settings), *sets)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("genrec: ")
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_debug_shows_the_error_itself(settings, write, genrec):
    result = genrec("run", write(settings), "--set", "data.interactions=null", "--debug")
    assert isinstance(result.exception, ValueError)


def test_both_splits_have_their_own_codes_and_checkpoint(settings, write, genrec, tmp_path):
    sets = ("evaluation.protocols=[temporal, last-session]", "training.num_train_epochs=1", "data.gap_minutes=600")
    result = genrec("run", write(settings), *(part for value in sets for part in ("--set", value)))
    assert result.exit_code == 0, result.output
    folder = tmp_path / "run"
    primary = json.loads((folder / "checkpoint" / "training_report.json").read_text())
    second = json.loads((folder / "last-session" / "checkpoint" / "training_report.json").read_text())
    assert (primary["protocol"], second["protocol"]) == ("temporal", "last-session")
    assert load_recommender(folder / "checkpoint").gap_minutes == 600  # as the log's sessions were made
    results = json.loads((folder / "report.json").read_text())["results"]
    assert {row["protocol"] for row in results} == {"temporal", "last-session"}


def test_check_estimates_without_writing(settings, write, genrec, tmp_path):
    result = genrec("run", write(settings), "--check")
    assert result.exit_code == 0, result.output
    assert "data: 12 users, 25 items, 200 interactions, view < cart < buy" in result.stdout
    assert "codes: 8x8" in result.stdout
    assert "9 steps in about" in result.stdout  # 12 users in batches of 4, 3 epochs
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("training", "steps", "batches"),
    [
        ({"gradient_accumulation_steps": 2}, 6, 9),  # 3 batches are 2 steps in each of 3 epochs
        ({"max_steps": 5}, 5, 5),
        ({"max_steps": 5, "gradient_accumulation_steps": 4}, 5, 20),
    ],
)
def test_check_counts_steps_as_updates_and_times_all_their_batches(settings, monkeypatch, training, steps, batches):
    monkeypatch.setattr(check, "_step_seconds", lambda *batch: 1.0)
    settings["training"] |= training
    estimate = check.check_run(check_recipe(settings), say=[].append)
    assert (estimate.steps, estimate.seconds) == (steps, batches)


@pytest.mark.parametrize("tokenizer", ["chunked", "rqkmeans"])
def test_check_refuses_what_the_run_would_refuse(settings, write, genrec, tokenizer):
    sets = ["--set", "item_tokenizer={name: rqkmeans, codebook_sizes: [512]}"]
    if tokenizer == "chunked":
        sets = ["--set", "item_tokenizer={name: chunked, chunk_size: 64}", "--set", "embedder=null"]
    result = genrec("run", write(settings), "--check", *sets)
    assert result.exit_code == 2
    assert "A codebook must not be larger than the catalog" in result.stderr


def test_a_moved_log_is_the_same_log(finished, genrec, tmp_path):
    folder = finished.copy_to(tmp_path / "run")
    moved = shutil.copy(finished.folder / "shop.csv", tmp_path / "moved.csv")
    result = genrec("prepare", finished.recipe, "--output", folder, "--set", f"data.interactions={moved}")
    assert "[prepare] kept, nothing changed" in result.stdout


def test_the_folder_holds_the_recipe_as_it_ran_last(finished, genrec, tmp_path):
    """Not as it was when the data was prepared, which later runs keep."""
    folder = finished.copy_to(tmp_path / "run")
    sets = ("--set", "evaluation.num_bootstrap=10", "--set", "evaluation.model_name=mine")
    assert genrec("run", finished.recipe, "--output", folder, *sets).exit_code == 0
    recipe = load_recipe(folder / "recipe.yaml")
    assert (recipe.evaluation.num_bootstrap, recipe.evaluation.model_name) == (10, "mine")
    again = genrec("run", folder / "recipe.yaml")
    assert len([line for line in lines_of(again) if "kept, nothing changed" in line]) == 4


def test_a_report_does_not_outlive_its_checkpoint(finished, genrec, tmp_path):
    folder = finished.copy_to(tmp_path / "run")
    shutil.rmtree(folder / "checkpoint")
    assert genrec("train", finished.recipe, "--output", folder).exit_code == 0
    result = genrec("run", finished.recipe, "--output", folder)
    assert [line.split("]")[0][1:] for line in lines_of(result) if "] done in" in line] == ["evaluate"]


@pytest.mark.parametrize("in_parts", [False, True])
def test_other_vectors_in_the_same_file_are_other_vectors(settings, write, genrec, tmp_path, in_parts):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(25, 4)).astype(np.float32))
    embedder = {"name": "precomputed", "path": str(tmp_path / "vectors.npy")}
    settings["embedder"] = {"name": "concat", "parts": [embedder]} if in_parts else embedder
    recipe = write(settings)
    assert genrec("tokenize", recipe, "--debug").exit_code == 0
    assert "[last-session/tokenize] kept" in genrec("tokenize", recipe).stdout
    np.save(tmp_path / "vectors.npy", np.random.default_rng(1).normal(size=(25, 4)).astype(np.float32))
    assert "[last-session/tokenize] done" in genrec("tokenize", recipe).stdout


@pytest.mark.parametrize("option", [[], ["--check"]])
def test_a_file_of_other_columns_is_refused_before_any_work(settings, write, genrec, tmp_path, option):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    settings["evaluation"]["csv"] = str(tmp_path / "mine.csv")
    result = genrec("run", write(settings), *option)
    assert result.exit_code == 2
    assert "mine.csv must have the columns model,config," in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_app_has_no_hidden_commands():
    assert not [command.name for command in app.registered_commands if command.hidden]


def test_a_recipe_with_a_repository_is_published_at_the_end(finished, genrec, tmp_path, monkeypatch):
    pushed = []

    def push_folder(folder, repo_id, **settings):
        pushed.append((folder, repo_id, settings))
        return "https://hub/me/shop"

    monkeypatch.setattr("genrec.hub.push_folder", push_folder)
    folder = finished.copy_to(tmp_path / "run")
    sets = ("hub.repo_id=me/shop", "hub.license=mit")
    result = genrec("run", finished.recipe, "--output", folder, *(part for value in sets for part in ("--set", value)))
    assert f"[publish] {folder / 'checkpoint'} -> https://hub/me/shop" in result.stdout.splitlines()
    assert pushed == [(folder / "checkpoint", "me/shop", {"private": True, "portable": False, "license": "mit"})]


def test_without_matplotlib_the_report_stands_and_says_there_are_no_plots(finished, genrec, tmp_path, monkeypatch):
    def missing(*arguments, **keywords):
        raise ImportError("Plots need matplotlib")

    monkeypatch.setattr("genrec.evaluation.plots.plot_metrics", missing)
    folder = finished.copy_to(tmp_path / "run")
    shutil.rmtree(folder / "plots")
    result = genrec("run", finished.recipe, "--output", folder, "--set", "evaluation.num_bootstrap=10")
    assert result.exit_code == 0, result.output
    assert "no plots: Plots need matplotlib" in result.stdout
    assert not (folder / "plots").exists()


def test_csv_on_the_command_line_adds_the_figures_of_a_kept_run(finished, genrec, tmp_path):
    folder = finished.copy_to(tmp_path / "run")
    result = genrec("run", finished.recipe, "--output", folder, "--csv", tmp_path / "more.csv")
    assert "[evaluate] kept" in result.stdout
    assert read_benchmark_csv(tmp_path / "more.csv") == read_benchmark_csv(finished.folder / "figures.csv")


def test_chunked_ids_are_warned_of_where_numbers_were_given_out_along_the_log():
    along = [[(item, "view", item) for item in range(first, first + 10)] for first in range(0, 4000, 10)]
    said = []
    stages._warn_of_telling_numbers(SimpleNamespace(say=said.append), as_histories(along, list(range(4000)), "view"))
    assert len(said) == 1
    assert "100% of users' next items stand within 50 places" in said[0]
    assert "`item_tokenizer.shuffle: true`" in said[0]
