"""`genrec bench`: what is run, what is kept, what is refused, on a 216-row CSV and a model that trains in a second."""

import itertools
import json
import os
import random
import re
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from genrec.cli import bench as bench_module
from genrec.cli.bench import BenchSettings, bench, perform_run
from genrec.cli.main import app
from genrec.evaluation.benchmark_csv import read_benchmark_csv

METRICS = "hit@1,ndcg@10"
COLUMNS = {"user_column": "user", "item_column": "product", "behavior_column": "event", "time_column": "time"}


def write_log(path):
    """Write 216 rows: 12 users, 25 products, six sessions a day apart."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        file.write("user,product,event,time\n")
        for user, session, place in itertools.product(range(12), range(6), range(3)):
            event = draw.choice(["view", "view", "cart", "buy"])
            file.write(f"u{user},{draw.randint(1, 25)},{event},{1_700_000_000 + session * 86_400 + place * 60}\n")


def bench_recipe(folder, name="shop_sasrec", preset="sasrec", **sections):
    """Write a recipe of a scoring model that trains in about a second, and return its path."""
    content = {
        "name": name,
        "data": {"behaviors": "view,cart,buy", **COLUMNS},
        "model": {"preset": preset, "hidden_size": 8},
        "training": {"num_train_epochs": 1, "use_cpu": True},
        "evaluation": {"num_bootstrap": 20, "baselines": ["popularity"]},
        **sections,
    }
    content = yaml.safe_load(yaml.safe_dump(content))
    if not (folder / "shop.csv").exists():
        write_log(folder / "shop.csv")
    content["data"].setdefault("interactions", str(folder / "shop.csv"))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


class Bench:
    """A folder with a log and a recipe, and the bench of it."""

    def __init__(self, folder):
        self.folder, self.recipe = folder, bench_recipe(folder)
        self.csv, self.runs = folder / "shop.csv.figures.csv", folder / "bench"
        self.performed, self.said = [], []

    def settings(self, **fields):
        chosen = {"seeds": [0, 1], "output": str(self.runs), "csv": str(self.csv), **fields}
        return BenchSettings(**chosen)

    def run(self, recipes=None, perform=perform_run, jobs=1, **fields):
        """Run, noting which runs were performed."""

        def noting(run, say):
            self.performed.append((run.recipe.name, run.recipe.seed))
            perform(run, say)

        settings = self.settings(**fields)
        return bench(recipes or [self.recipe], settings, say=self.said.append, perform=noting, jobs=jobs)

    def record(self, seed=0):
        return json.loads((self.runs / "shop_sasrec" / f"seed-{seed}" / "bench.json").read_text())


@pytest.fixture(scope="session")
def done_once(tmp_path_factory):
    """A finished bench of two seeds by the command, not to be written to, and what it printed."""
    made = Bench(tmp_path_factory.mktemp("bench"))
    options = ["--seeds", "0,1", "--output", made.runs, "--csv", made.csv, "--metrics", METRICS, "--in-process"]
    result = CliRunner().invoke(app, ["bench", made.recipe, *map(str, options), "--debug"])
    assert result.exit_code == 0, result.output
    return made, result.stdout


@pytest.fixture
def done(done_once, tmp_path):
    """A copy of the finished bench."""
    folder = tmp_path / "copy"
    shutil.copytree(done_once[0].folder, folder)
    return Bench(folder)


@pytest.fixture
def fresh(tmp_path):
    return Bench(tmp_path)


def test_every_seed_is_in_the_csv_with_the_chosen_metrics(done_once):
    made, _ = done_once
    rows = read_benchmark_csv(made.csv)
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert {row["metric"] for row in rows} == {"hit@1", "ndcg@10"}
    assert {row["model"] for row in rows} == {"sasrec", "popularity"}
    assert {row["config"] for row in rows} == {"shop_sasrec"}
    assert {row["commit"] for row in rows} == {made.record()["commit"]}
    own = [row for row in rows if row["model"] == "sasrec"]
    assert all(float(row["peak_mb"]) == made.record(int(row["seed"]))["peak_mb"] for row in own)


def test_the_record_says_what_ran_on_what_and_what_it_took(done_once):
    record = done_once[0].record(seed=1)
    assert (record["config"], record["model"], record["seed"]) == ("shop_sasrec", "sasrec", 1)
    assert record["settings"]["model"] == {"preset": "sasrec", "hidden_size": 8}
    assert record["versions"]["torch"]
    assert len(record["data"]) == 16
    assert record["seconds"]["last-session/train"] > 0
    assert record["seconds"]["all"] >= record["seconds"]["last-session/train"]
    assert record["peak_mb"] > 10
    assert record["finished"]


def test_progress_counts_the_runs_and_the_time_left(done_once):
    lines = [line for line in done_once[1].splitlines() if line.startswith("[bench")]
    assert lines[0] == "[bench 1/2] shop_sasrec, seed 0"
    assert lines[1].startswith("[bench 1/2] shop_sasrec, seed 0: done; ")
    assert lines[3].endswith("about 0:00 left")
    assert lines[-1] == f"[bench] 2 of 2 runs finished, figures in {done_once[0].csv}"


def test_a_second_bench_trains_nothing_and_writes_lost_figures_again(done):
    before = done.csv.read_text()
    done.csv.unlink()
    done.run(metrics=METRICS.split(","))
    assert done.performed == []
    assert done.csv.read_text() == before


def add_a_row(made):
    with (made.folder / "shop.csv").open("a") as log:
        log.write("u1,3,buy,1700000001\n")
    return {}


@pytest.mark.parametrize(
    "change", [lambda made: {"overrides": ["model.hidden_size=16"]}, add_a_row], ids=["settings", "data"]
)
def test_other_settings_or_other_data_are_run_again(done, change):
    with pytest.raises(ValueError, match="2 of 2 runs failed"):
        done.run(perform=lambda run, say: fail(), **change(done))
    assert done.performed == [("shop_sasrec", 0), ("shop_sasrec", 1)]


@pytest.mark.parametrize(
    ("change", "named"),
    [(lambda made: {"overrides": ["model.dropout=0.5"]}, r"model\.dropout"), (add_a_row, "the data")],
    ids=["settings", "data"],
)
def test_another_seed_of_other_settings_is_refused_for_it_would_go_into_one_mean(done, change, named):
    changed = change(done)
    with pytest.raises(ValueError, match=rf"shop_sasrec, seed 2 differs from the .* 0 in {named}, .*`--seeds 0,1,2`"):
        done.run(seeds=[2], **changed)
    assert done.performed == []
    for seed in (0, 1):  # unfinished runs have no figures
        record = done.runs / "shop_sasrec" / f"seed-{seed}" / "bench.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "finished": None}))
    with pytest.raises(ValueError, match="1 of 1 runs failed"):
        done.run(seeds=[2], perform=lambda run, say: fail(), **changed)


def fail():
    raise RuntimeError("the disk is full")


def test_a_killed_bench_goes_on_with_what_is_left(fresh):
    def killed_at_the_second(run, say):
        if run.recipe.seed == 1:
            raise KeyboardInterrupt
        perform_run(run, say)

    with pytest.raises(KeyboardInterrupt):
        fresh.run(perform=killed_at_the_second)
    assert {row["seed"] for row in read_benchmark_csv(fresh.csv)} == {"0"}
    fresh.performed.clear()
    fresh.run()
    assert fresh.performed == [("shop_sasrec", 1)]
    assert {row["seed"] for row in read_benchmark_csv(fresh.csv)} == {"0", "1"}


def test_a_run_killed_after_training_does_not_count_as_finished_but_keeps_its_stages(done, monkeypatch):
    record = done.runs / "shop_sasrec" / "seed-1" / "bench.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "finished": None}))
    done.run()
    assert done.performed == [("shop_sasrec", 1)]
    assert any("[last-session/train] kept" in line for line in done.said)
    assert done.record(seed=1)["finished"]


def test_one_failure_does_not_stop_the_others_and_is_told_at_the_end(fresh):
    def failing(run, say):
        return fail() if run.recipe.seed == 0 else perform_run(run, say)

    with pytest.raises(ValueError, match=r"1 of 2 runs failed.*\n.*seed 0: RuntimeError: the disk is full"):
        fresh.run(perform=failing)
    assert {row["seed"] for row in read_benchmark_csv(fresh.csv)} == {"1"}
    error = fresh.runs / "shop_sasrec" / "seed-0" / "error.txt"
    assert "in fail" in error.read_text()
    fresh.performed.clear()
    fresh.run()  # a folder that holds only the error is gone on with
    assert fresh.performed == [("shop_sasrec", 0)]
    assert not error.exists()


def test_several_runs_go_on_at_once_and_all_figures_are_written(fresh, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    together = threading.Barrier(2)

    def meeting(run, say):
        together.wait(timeout=60)  # breaks unless both are here
        assert os.environ["OMP_NUM_THREADS"] == "3"
        run.recipe.folder.mkdir(parents=True)
        fail()

    with pytest.raises(ValueError, match=r"2 of 2 runs failed.*\n.*the disk is full"):
        fresh.run(perform=meeting, jobs=2)
    with pytest.raises(ValueError, match="`--jobs` takes a number of runs from 1, got 0"):
        fresh.run(jobs=0)
    bench([fresh.recipe], fresh.settings(), say=fresh.said.append, jobs=2)  # in processes of their own
    assert {row["seed"] for row in read_benchmark_csv(fresh.csv)} == {"0", "1"}
    logs = [(fresh.runs / "shop_sasrec" / f"seed-{seed}" / "log.txt").read_text() for seed in (0, 1)]
    assert all("[last-session/train] done" in log for log in logs)
    assert fresh.said[-1].startswith("[bench] 2 of 2 runs finished")


def test_a_run_folder_of_another_commit_is_refused_and_left_alone(done, monkeypatch):
    before = {path: path.read_bytes() for path in done.folder.rglob("*") if path.is_file()}
    written = done.record()["commit"]
    monkeypatch.setattr(bench_module, "commit", lambda: "0123456789")
    rule = re.escape(f"was written by commit {written}, and this is 0123456789")
    with pytest.raises(ValueError, match=f"{rule}.*--allow-other-commit"):
        done.run()
    assert {path: path.read_bytes() for path in done.folder.rglob("*") if path.is_file()} == before


def test_runs_of_another_commit_can_be_allowed_and_keep_their_commit(done, monkeypatch):
    written = done.record()["commit"]
    shutil.rmtree(done.runs / "shop_sasrec" / "seed-1")
    monkeypatch.setattr(bench_module, "commit", lambda: "0123456789")
    done.run(allow_other_commit=True)
    assert done.performed == [("shop_sasrec", 1)]
    commits = {row["seed"]: row["commit"] for row in read_benchmark_csv(done.csv)}
    assert commits == {"0": written, "1": "0123456789"}


def test_a_run_folder_that_the_bench_did_not_write_is_refused(done):
    (done.runs / "shop_sasrec" / "seed-0" / "bench.json").unlink()
    with pytest.raises(ValueError, match=r"has no bench\.json, so nobody knows which commit"):
        done.run()


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"model": {"preset": "sasrek"}}, ValueError, r"Unknown `model\.preset` `sasrek`"),
        ({"data": {"interactions": "nowhere.csv"}}, FileNotFoundError, r"There is no file nowhere\.csv"),
        ({"training": {"seed": 3}}, ValueError, r"`training\.seed` .* would make all seeds the same run"),
        ({"training": {"learning_rat": 0.1}}, ValueError, "learning_rat"),
    ],
    ids=["model", "data", "seed", "setting"],
)
def test_a_wrong_recipe_is_refused_before_any_run(fresh, sections, error, message):
    wrong = bench_recipe(fresh.folder, name="wrong", **sections)
    with pytest.raises(error, match=message):
        fresh.run([fresh.recipe, wrong])
    assert fresh.performed == []
    assert not fresh.runs.exists()


def test_wrong_settings_of_the_bench_are_refused(fresh):
    with pytest.raises(ValueError, match=r"Unknown metric 'ndgc@10'. Did you mean 'ndcg@10'"):
        fresh.run(metrics=["ndgc@10"])
    with pytest.raises(ValueError, match=r"has no 'ndcg@20', for `evaluation\.k` is 10"):
        fresh.run(metrics=["ndcg@20"])
    with pytest.raises(ValueError, match=r"`--seeds` takes different whole numbers"):
        fresh.run(seeds=[1, 1])
    with pytest.raises(ValueError, match="2 of the recipes would run in"):
        fresh.run([fresh.recipe, fresh.recipe])
    fresh.csv.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="must have the columns"):
        fresh.run()
    assert fresh.csv.read_text() == "a,b\n1,2\n"


def test_the_command_says_what_is_wrong_with_seeds(genrec, fresh):
    result = genrec("bench", fresh.recipe, "--seeds", "0;1")
    assert result.exit_code == 2
    assert "separated by commas, like 0,1,2; got '0;1'" in result.stderr


@pytest.mark.slow
def test_a_run_in_a_process_of_its_own_gives_the_same_figures(done_once, fresh):
    bench([fresh.recipe], fresh.settings(seeds=[0], metrics=["ndcg@10"]), say=print)
    values = [
        {
            (row["model"], row["behavior"]): row["value"]
            for row in read_benchmark_csv(path)
            if (row["metric"], row["seed"]) == ("ndcg@10", "0")
        }
        for path in (done_once[0].csv, fresh.csv)
    ]
    assert values[0] == values[1]


def test_the_guide_names_options_that_exist(genrec):
    guide = (Path(__file__).parents[2] / "docs" / "guide-bench.md").read_text()
    commands = re.findall(r"^genrec bench (.*)$", guide, flags=re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        first = command.split()[0]
        known = genrec("bench", first if first in ("report", "claims", "costs") else "run", "--help").output
        for option in re.findall(r"--[a-z-]+", command):
            assert option in known, command
