"""`genrec bench report`: what the tests between models are over, and what is refused, on runs made by hand."""

from functools import partial

import pytest

from genrec.cli.bench_comparisons import find_runs
from genrec.cli.bench_report import ReportSettings, model_tests, report_benchmarks
from genrec.evaluation.benchmark_csv import COLUMNS
from genrec.evaluation.benchmark_tables import read_benchmark

from .made_runs import USERS, add_all, add_run, report_of, values_of


@pytest.fixture
def add(tmp_path):
    return partial(add_run, tmp_path)


@pytest.fixture
def path(tmp_path):
    return add_all(tmp_path)


def run_tests(path, **fields):
    settings = ReportSettings(num_bootstrap=200, metrics=["ndcg@10"], **fields)
    runs = find_runs(settings.runs) if settings.runs else None
    return model_tests(read_benchmark(path), settings, runs)


def test_with_runs_the_tests_are_over_records_and_corrected(path, tmp_path):
    tests = run_tests(path, runs=str(tmp_path / "runs"))
    assert [(test.first, test.second) for test in tests] == [("gamer", "qwen3"), ("gamer", "sasrec")]
    for test, difference in zip(tests, (0.25, 0.5), strict=True):
        assert (test.difference, test.low, test.high) == pytest.approx((difference,) * 3)
        assert test.p == pytest.approx(2 / 201)  # no resample lies on the other side
        assert test.adjusted == pytest.approx(4 / 201)  # two tests
        assert test.basis == "40 records, 3 seeds"


def test_without_runs_the_tests_are_over_seeds_and_say_so(path):
    tests = run_tests(path)
    assert [test.p for test in tests] == [0.25, 0.25]
    assert [test.adjusted for test in tests] == [0.5, 0.5]
    assert {test.basis for test in tests} == {"3 seeds alone"}
    assert tests[0].low is None


def test_two_rules_are_compared_once_however_many_seeds_the_models_have(path, tmp_path):
    """Six seeds of a model made one measurement of two rules six, of p 0.031."""
    lines = path.read_text().splitlines()
    rules = [lines[1].replace("gamer,", f"{rule},", 1) for rule in ("recency", "popularity")]
    path.write_text("\n".join([*lines, *rules]) + "\n")
    tests = {(test.first, test.second): test for test in run_tests(path, against="all")}
    test = tests["recency", "popularity"]
    assert (test.p, test.basis) == (None, "one measurement alone")


def test_every_pair_can_be_tested_and_one_model_chosen(path):
    assert len(run_tests(path, against="all")) == 3
    pairs = [(test.first, test.second) for test in run_tests(path, against="sasrec")]
    assert pairs == [("sasrec", "gamer"), ("sasrec", "qwen3")]


def test_a_missing_run_falls_back_to_seeds_and_is_named(path, tmp_path):
    (tmp_path / "runs" / "shop_qwen3" / "seed-1" / "bench.json").unlink()
    tests = run_tests(path, runs=str(tmp_path / "runs"))
    assert tests[0].basis == "3 seeds alone, no run of shop_qwen3 with seed 1 on last-session"
    assert "records" in tests[1].basis


def test_a_figure_of_another_protocol_than_the_runs_is_tested_over_seeds(path, tmp_path):
    path.write_text(path.read_text().replace(",last-session,", ",temporal,"))
    tests = run_tests(path, runs=str(tmp_path / "runs"))
    assert {test.basis for test in tests} == {"3 seeds alone, no run of shop_gamer with seed 0 on temporal"}


def test_seeds_that_asked_other_users_are_tested_over_seeds(add, tmp_path):
    for model in ("gamer", "qwen3"):
        add(model, 0)
        add(model, 1, users=USERS + 100)
    (test,) = run_tests(tmp_path / "shop.csv", runs=str(tmp_path / "runs"))
    assert test.basis == "2 seeds alone, the seeds asked different records"


def test_runs_of_other_figures_than_the_file_are_refused(path, tmp_path):
    report_of("qwen3", values_of("qwen3", 7)).save(tmp_path / "runs" / "shop_qwen3" / "seed-1" / "report.json")
    with pytest.raises(
        ValueError, match=r"qwen3.seed-1 reached ndcg@10 .*qwen3, last-session, merged.* they are not of one run"
    ):
        run_tests(path, runs=str(tmp_path / "runs"))


def test_unfinished_runs_do_not_count_and_two_of_one_kind_are_refused(path, add, tmp_path):
    add("sasrec", 5, finished=None)
    runs = find_runs(tmp_path / "runs")
    assert len(runs.folders) == 9
    again = tmp_path / "runs" / "again"
    again.mkdir()
    (again / "bench.json").write_text((tmp_path / "runs" / "shop_gamer" / "seed-0" / "bench.json").read_text())
    with pytest.raises(ValueError, match="both ran shop_gamer with seed 0"):
        find_runs(tmp_path / "runs")


def test_the_command_prints_tables_and_tests(path, genrec, tmp_path):
    result = genrec("bench", "report", path, "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert "| shop, last-session, merged | ndcg@10 |" in result.stdout
    assert "| last-session | merged | gamer | qwen3 | +0.2500 |" in result.stdout


def test_the_command_writes_markdown_latex_and_a_plot(path, genrec, tmp_path):
    result = genrec("bench", "report", path, "--output", tmp_path / "tables")
    assert result.exit_code == 0, result.output
    assert {"shop.md", "shop.tex"} <= {file.name for file in (tmp_path / "tables").iterdir()}
    assert r"\textbf{" in (tmp_path / "tables" / "shop.tex").read_text()
    assert "3 seeds alone" in (tmp_path / "tables" / "shop.md").read_text()


def test_a_file_with_a_missing_seed_writes_nothing_unless_pending_is_allowed(path, genrec, tmp_path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("qwen3,shop_qwen3,abc,2,")]
    path.write_text("\n".join(lines) + "\n")
    refused = genrec("bench", "report", path, "--output", tmp_path / "tables")
    assert refused.exit_code == 2
    assert (
        "shop.csv lacks qwen3 with seed 2. Run `genrec bench RECIPE --seeds 2` with the recipe called 'shop_qwen3'"
        in refused.stderr
    )
    assert not (tmp_path / "tables").exists()
    shown = genrec("bench", "report", path, "--allow-pending")
    assert "| qwen3 | pending |" in shown.stdout
    assert "| gamer | sasrec |" in shown.stdout
    assert "| gamer | qwen3 |" not in shown.stdout


def test_models_of_different_seeds_are_tested_with_those_that_both_have(path, genrec, tmp_path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("qwen3,shop_qwen3,abc,2,")]
    path.write_text("\n".join(lines) + "\n")
    shown = genrec("bench", "report", path, "--min-seeds", "2", "--runs", tmp_path / "runs", "--models", "gamer,qwen3")
    mean = sum(values_of("qwen3", seed).mean() for seed in (0, 1)) / 2
    assert f"| qwen3 | {mean:.4f} (2) |" in shown.stdout
    assert "| 40 records, 2 seeds |" in shown.stdout
    alone = genrec("bench", "report", path, "--min-seeds", "2", "--models", "gamer,qwen3")
    assert "| 2 seeds alone |" in alone.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "ndcg@11"], "shop.csv has no 'ndcg@11'. It has: ndcg@10"),
        (["--metric", "ndgc@10"], "Unknown metric 'ndgc@10'"),
        (["--against", "pbat"], "`--against` names 'pbat', which shop.csv does not have"),
        (["--runs", "nowhere"], "There is no folder of runs nowhere"),
    ],
)
def test_what_a_file_does_not_have_is_refused(path, genrec, options, message):
    result = genrec("bench", "report", path, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_of_other_columns_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match=f"must have the columns {','.join(COLUMNS)}"):
        report_benchmarks([tmp_path / "a.csv"], ReportSettings(), say=print)
