"""Benchmark files as tables: means, best in bold, what is pending, and LaTeX, by hand."""

import pytest

from genrec.evaluation.benchmark_csv import COLUMNS
from genrec.evaluation.benchmark_plots import plot_benchmark
from genrec.evaluation.benchmark_tables import (
    check_complete,
    latex_escape,
    latex_tables,
    markdown_tables,
    read_benchmark,
)

METRICS = ["hit@10", "ndcg@10"]


def row(model, seed, value, metric="ndcg@10", config="c", behavior="merged", low="", high="", records=7):
    return f"{model},{config},abc,{seed},last-session,{behavior},{metric},{value},{low},{high},{records},1,\n"


@pytest.fixture
def write(tmp_path):
    def write_rows(*rows, name="shop.csv"):
        path = tmp_path / name
        path.write_text(",".join(COLUMNS) + "\n" + "".join(rows))
        return path

    return write_rows


@pytest.fixture
def two_models(write):
    return write(
        row("gamer", 0, 0.25, low=0.125, high=0.375),
        row("gamer", 1, 0.5, low=0.25, high=0.625),
        row("qwen3", 0, 0.25, low=0.0625, high=0.5),
        row("qwen3", 1, 0.125, low=0.03125, high=0.25),
        row("upper-bound", 0, 0.75),
        row("upper-bound", 1, 0.75),
        row("gamer", 0, 0.5, metric="hit@10"),
        row("gamer", 1, 0.5, metric="hit@10"),
        row("qwen3", 0, 0.75, metric="hit@10"),
        row("qwen3", 1, 0.5, metric="hit@10"),
        row("upper-bound", 0, 1, metric="hit@10"),
        row("upper-bound", 1, 1, metric="hit@10"),
        row("gamer-minus-qwen3", "all", 0.01),
    )


def test_a_cell_is_the_mean_over_seeds_with_the_outermost_ends_and_the_best_is_bold(two_models):
    lines = markdown_tables(read_benchmark(two_models), METRICS).splitlines()
    assert lines[:5] == [
        "| shop, last-session, merged | hit@10 | ndcg@10 |",
        "| --- | --- | --- |",
        "| gamer | 0.5000 | **0.3750** [0.1250, 0.6250] |",
        "| qwen3 | **0.6250** | 0.1875 [0.0312, 0.5000] |",
        "| upper-bound | 1.0000 | 0.7500 |",
    ]


def test_equal_means_are_both_best_and_a_lone_model_is_best_of_nothing(write):
    both = markdown_tables(read_benchmark(write(row("a", 0, 0.5), row("b", 0, 0.5))), METRICS)
    assert both.count("**0.5000**") == 2
    assert "**" not in markdown_tables(read_benchmark(write(row("a", 0, 0.5))), METRICS)


def test_a_missing_seed_is_an_error_that_says_what_to_run(write):
    path = write(row("a", 0, 0.5), row("a", 1, 0.5), row("b", 0, 0.9, config="shop_b"))
    rule = r"shop\.csv lacks b with seed 1\. Run `genrec bench RECIPE --seeds 1` with the recipe called 'shop_b'"
    with pytest.raises(ValueError, match=rule):
        check_complete(read_benchmark(path), METRICS)
    path.write_text(path.read_text().replace("shop_b", "deskdrop_qwen3-long"))
    with pytest.raises(ValueError, match=r"Run `genrec bench deskdrop\+qwen3\+long --seeds 1` and so on"):
        check_complete(read_benchmark(path), METRICS)


def test_a_missing_seed_is_pending_and_never_the_best(write):
    path = write(row("a", 0, 0.25), row("a", 1, 0.25), row("b", 0, 0.9), row("c", 0, 0.125), row("c", 1, 0.125))
    text = markdown_tables(read_benchmark(path), METRICS)
    assert "| b | pending |" in text
    assert "| a | **0.2500** |" in text
    assert "0.9" not in text


def test_fewer_seeds_count_if_they_are_enough_and_the_table_says_how_many(write):
    path = write(
        row("a", 0, 0.2), row("a", 1, 0.4), row("a", 2, 0.6), row("b", 1, 0.5), row("b", 2, 0.7), row("c", 2, 0.9)
    )
    table = markdown_tables(read_benchmark(path, min_seeds=2), ["ndcg@10"])
    assert "| a | 0.4000 |" in table
    assert "| b | **0.6000** (2) |" in table
    assert "| c | pending |" in table
    assert "seeds 0, 1, 2, or over as many of them as stand in round brackets" in table
    with pytest.raises(ValueError, match="`--min-seeds` takes a number of seeds from 1, got 0"):
        read_benchmark(path, min_seeds=0)


def test_two_models_share_the_seeds_of_both_and_a_rule_shares_all(write):
    path = write(
        *(row("a", seed, 0.2) for seed in (0, 1)), *(row("b", seed, 0.5) for seed in (1, 2)), row("recency", 0, 0.1)
    )
    benchmark = read_benchmark(path, min_seeds=1)
    a, b, rule = benchmark.lines
    place = ("last-session", "merged", "ndcg@10")
    assert benchmark.shared_seeds([a, b], place) == [1]
    assert benchmark.shared_seeds([b, rule], place) == [1, 2]


def test_two_rules_are_one_measurement_however_many_seeds_there_are(write):
    path = write(*(row("a", seed, 0.2) for seed in range(6)), row("recency", 0, 0.1), row("popularity", 4, 0.3))
    benchmark = read_benchmark(path)
    a, recency, popularity = benchmark.lines
    place = ("last-session", "merged", "ndcg@10")
    assert benchmark.shared_seeds([recency, popularity], place) == [0]
    assert not benchmark.are_drawn([recency, popularity], place)
    assert benchmark.shared_seeds([a, popularity], place) == [0, 1, 2, 3, 4, 5]
    assert benchmark.are_drawn([a, popularity], place)


def test_a_wanted_model_without_a_row_is_pending_and_a_wanted_seed_is_missed(write):
    path = write(row("a", 0, 0.5), row("b", 0, 0.25))
    assert "| pbat | pending |" in markdown_tables(read_benchmark(path, models=["a", "pbat"]), METRICS)
    with pytest.raises(ValueError, match="lacks pbat with seed 0"):
        check_complete(read_benchmark(path, models=["a", "pbat"]), METRICS)
    with pytest.raises(ValueError, match="lacks a with seed 2, b with seed 2"):
        check_complete(read_benchmark(path, seeds=[0, 2]), METRICS)


def test_a_rule_needs_one_seed_where_the_log_is_the_same_for_all(write):
    rows = [row("a", 0, 0.5), row("a", 1, 0.5), row("popularity", 0, 0.125)]
    benchmark = read_benchmark(write(*rows))
    check_complete(benchmark, METRICS)
    assert "| popularity | 0.1250 |" in markdown_tables(benchmark, METRICS)
    drawn_anew = [row("a", 0, 0.5, records=7), row("a", 1, 0.5, records=8), row("popularity", 0, 0.125)]
    assert "| popularity | pending |" in markdown_tables(read_benchmark(write(*drawn_anew)), METRICS)


def test_a_model_of_two_configurations_has_two_lines_but_a_rule_has_one(write):
    path = write(
        row("gamer", 0, 0.5, config="small"),
        row("gamer", 0, 0.25, config="large"),
        row("recency", 0, 0.125, config="small"),
        row("recency", 0, 0.125, config="large"),
    )
    labels = [line.label for line in read_benchmark(path).lines]
    assert labels == ["gamer (small)", "gamer (large)", "recency"]


def test_a_rule_is_that_of_the_recipe_with_the_most_models(write):
    """An old recipe with more seeds of the rule, but of fewer metrics, made cells of figures that exist `pending`."""
    path = write(
        row("gamer", 0, 0.5, config="block"),
        *(row("recency", seed, 0.125, config="block") for seed in range(3)),
        row("gamer", 0, 0.25, config="market"),
        row("sasrec", 0, 0.25, config="market_sasrec"),
        row("recency", 0, 0.125, config="market_sasrec"),
        row("recency", 0, 0.125, config="market"),
        row("recency", 0, 0.25, config="market", metric="hit@10"),
    )
    benchmark = read_benchmark(path)
    assert [line.config for line in benchmark.lines if line.model == "recency"] == ["market"]
    assert "| recency | 0.2500 | 0.1250 |" in markdown_tables(benchmark, METRICS)


def test_behaviors_stand_in_tables_of_their_own_in_the_order_of_the_file_but_merged_first(write):
    path = write(row("a", 0, 0.5, behavior="view"), row("a", 0, 0.5, behavior="buy"), row("a", 0, 0.25))
    heads = [line for line in markdown_tables(read_benchmark(path), METRICS).splitlines() if "last-session" in line]
    assert heads == [f"| shop, last-session, {name} | ndcg@10 |" for name in ("merged", "view", "buy")]


def test_latex_escapes_every_special_character():
    assert latex_escape(r"a_b & 5 % $x$ #1 {z} ~ ^ \\"[:-1]) == (
        r"a\_b \& 5 \% \$x\$ \#1 \{z\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )


def test_latex_table_by_hand(write):
    path = write(row("tiger_mb", 0, 0.5, low=0.25, high=0.75), row("b", 0, 0.25))
    text = latex_tables(read_benchmark(path), METRICS).splitlines()
    assert text[:8] == [
        r"\begin{table}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"model & ndcg@10 \\",
        r"\midrule",
        r"tiger\_mb & \textbf{0.5000} [0.2500, 0.7500] \\",
        r"b & 0.2500 \\",
        r"\bottomrule",
    ]
    assert r"95 \% bootstrap" in text[-2]


def test_files_that_are_missing_or_hold_no_seed_are_refused(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="genrec bench RECIPE --csv"):
        read_benchmark(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="no figure of a single seed"):
        read_benchmark(write(row("a", "all", 0.5)))


def test_the_plot_is_a_picture(two_models, tmp_path):
    pytest.importorskip("matplotlib")
    path = plot_benchmark(read_benchmark(two_models), tmp_path / "shop.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_nothing_is_refused(write, tmp_path):
    pytest.importorskip("matplotlib")
    pending = read_benchmark(write(row("a", 0, 0.2), row("b", 1, 0.4)))
    with pytest.raises(ValueError, match="shop.csv has no 'ndcg@10' with all its seeds, so there is nothing to draw"):
        plot_benchmark(pending, tmp_path / "shop.png")


def test_what_a_paper_printed_stands_beside_ours_and_never_competes(write, tmp_path):
    path = write(
        row("gamer", 0, 0.25),
        row("gamer", 1, 0.5),
        row("qwen3", 0, 0.25),
        row("qwen3", 1, 0.125),
        row("gamer", "published", 0.9, config="published", records=""),
        row("mbgen", "published", 0.8, config="published", records=""),
    )
    benchmark = read_benchmark(path)
    assert markdown_tables(benchmark, ["ndcg@10"]).splitlines()[2:6] == [
        "| gamer | **0.3750** |",
        "| gamer (published) | 0.9000 |",
        "| qwen3 | 0.1875 |",
        "| mbgen (published) | 0.8000 |",
    ]
    check_complete(benchmark, ["ndcg@10"])
    assert benchmark.seeds == [0, 1]
    assert plot_benchmark(benchmark, tmp_path / "shop.png").is_file()


def test_a_file_of_published_figures_alone_says_what_is_to_be_run(write):
    benchmark = read_benchmark(write(row("gamer", "published", 0.9, config="published", records="")))
    text = markdown_tables(benchmark, ["ndcg@10"])
    assert "| gamer (published) | 0.9000 |" in text
    assert "seeds to be run" in text
    check_complete(benchmark, ["ndcg@10"])
