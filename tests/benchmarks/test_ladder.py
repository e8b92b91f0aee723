"""`benchmarks/quality/ladder.py`: the rungs' recipes, how rungs are joined, and the table, without any training."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.quality import ladder, ladder_search
from benchmarks.quality.ladder import LADDER, compared_with, has_texts, main, overrides_of, run_ladder, rung_recipe
from benchmarks.quality.ladder_figures import (
    BestRule,
    RungFigures,
    RungRuns,
    best_rule_of,
    mean_with_interval,
    rung_figures,
    slice_parts,
    write_csv,
)
from benchmarks.quality.ladder_search import SearchSpeed, search_speeds
from benchmarks.quality.ladder_table import ladder_table, plot_ladder
from genrec.cli.build import build_model_config, check_settings
from genrec.cli.recipe import load_recipe
from genrec.data.catalog import Catalog
from genrec.data.histories import Queries, as_histories
from genrec.evaluation import EvaluationReport, evaluate
from genrec.evaluation.benchmark_csv import read_benchmark_csv
from genrec.evaluation.comparison import Comparison
from genrec.evaluation.records import Records
from genrec.evaluation.tables import RULES, UPPER_BOUND
from genrec.recommender import RecencyRecommender
from genrec.recommender.base import Recommendations

SOURCES = ("deskdrop_gamer-plus-tiny", "retailrocket_gamer-plus-tiny", "taobao_gamer-plus-tiny")
LOG = ["data.interactions=log.parquet"]
ITEMS = ["a", "b", "c", "d"]
SPEED = SearchSpeed(users_per_second=100.0, relative=1.0, users=200)


def recipe_of(name, seed=0, source=SOURCES[0], **settings):
    return rung_recipe(source, name, seed, folder=ladder.Path("runs"), overrides=LOG, **settings)


def model_config(recipe):
    fields = build_model_config(recipe.model).to_dict()
    return {key: value for key, value in fields.items() if not key.startswith("_") and key != "transformers_version"}


def flat(recipe):
    """A recipe's settings that shape a run's model, `section.key` -> value."""
    sections = {name: getattr(recipe, name) for name in ("item_tokenizer", "training", "data", "embedder")}
    settings = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    return settings | {f"model.{key}": value for key, value in model_config(recipe).items()}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", LADDER)
def test_each_rung_is_a_valid_recipe_of_each_log(name, source):
    recipe = recipe_of(name, seed=3, source=source)
    check_settings(recipe)
    assert (recipe.seed, str(recipe.folder)) == (3, f"runs/{name}/seed-3")
    assert (recipe.evaluation.model_name, recipe.evaluation.baselines) == (name, [])


@pytest.mark.parametrize("name", [name for name in LADDER if name != "paper"])
def test_a_rung_changes_what_it_names_and_nothing_else(name):
    before, after = flat(recipe_of(LADDER[name].after)), flat(recipe_of(name))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    named = {override.partition("=")[0] for override in LADDER[name].overrides}
    assert changed
    assert {key if key in named else key.partition(".")[0] for key in changed} <= named


def test_the_ladder_leads_from_the_paper_model_to_the_recommended_configuration():
    full = model_config(load_recipe(SOURCES[0], LOG))
    assert model_config(recipe_of("time")) == full
    paper = model_config(load_recipe(SOURCES[0], [*LOG, "model.preset=gamer-tiny"]))
    assert model_config(recipe_of("paper-own")) == paper
    first = model_config(recipe_of("paper"))
    assert {key for key in first if first[key] != paper.get(key)} <= {"dropout", "max_history_items"}
    assert not first["session_wise"]


def test_rungs_stand_behind_what_they_change_and_have_names_of_their_own():
    names = list(LADDER)
    assert all(rung.after is None or names.index(rung.after) < names.index(name) for name, rung in LADDER.items())
    assert all(rung.after is None or not LADDER[rung.after].is_branch for rung in LADDER.values())
    assert not set(names) & {*RULES, UPPER_BOUND}
    assert overrides_of("trend") == [override for name in names[:4] for override in LADDER[name].overrides]


@pytest.mark.parametrize(
    ("name", "ran", "before"),
    [
        ("paper", ["paper", "sessions"], None),
        ("trend", ["paper", "copying", "trend"], "copying"),
        ("time", ["paper", "time"], "paper"),
        ("codes-3x256", ["paper", "joined-codes", "codes-3x256"], "paper"),  # a branch of `time`, not of what is last
        ("time", ["time"], None),
    ],
)
def test_a_rung_is_compared_with_the_nearest_before_it_that_ran(name, ran, before):
    assert compared_with(name, ran) == before


def test_a_seed_changes_the_run_and_not_who_is_asked():
    taobao = [recipe_of("time", seed, SOURCES[2]) for seed in (0, 1)]
    assert [recipe.data["seed"] for recipe in taobao] == [0, 0]
    assert [recipe.seed for recipe in taobao] == [0, 1]
    market = rung_recipe("demo-quick", "paper", 5, ladder.Path("runs"), ["training.causal_share=0", "seed=2"])
    assert (market.market["seed"], market.seed) == (2, 5)


def test_rules_are_evaluated_with_the_first_rung_and_seed_alone(tmp_path):
    arguments = [SOURCES[0], "--seeds", "4,5", "--output", str(tmp_path), "--set", LOG[0]]
    plan = ladder.plan_of(ladder._parser().parse_args(arguments), tmp_path)
    assert list(plan) == list(LADDER)
    with_rules = [(name, recipe.seed) for name in plan for recipe in plan[name] if recipe.evaluation.baselines]
    assert with_rules == [("paper", 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "runs"], "Name a recipe"),
        (["--quick", SOURCES[0]], "not both"),
        ([SOURCES[0]], "Pass `--output FOLDER`"),
        ([SOURCES[0], "--output", "runs", "--rungs", "paper,copyng"], "`--rungs` takes different ones of paper, "),
        ([SOURCES[0], "--output", "runs", "--rungs", "codes-3x256"], "no branch first"),
        ([SOURCES[0], "--output", "runs", "--seeds", "0,0"], "`--seeds` takes different whole numbers"),
        ([SOURCES[0], "--output", "runs", "--set", "model.copy_head=true"], "`--set model.copy_head` would be ignored"),
        ([SOURCES[0], "--output", "runs", "--set", "training.seed=1"], "make all seeds the same run"),
        ([SOURCES[0], "--output", "runs", "--set", "embedder.dim=8"], "'joined-codes' joins texts to the default"),
    ],
)
def test_what_would_be_ignored_or_compared_wrongly_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        main(arguments)


def test_a_rung_that_reads_texts_is_left_out_where_there_are_none(tmp_path, monkeypatch, capsys):
    ran = []

    def run_stages(recipe, *, say, until="publish"):
        ran.append((recipe.evaluation.model_name, recipe.seed, until))
        EvaluationReport([]).save(tmp_path / "report.json")
        folder = SimpleNamespace(report=tmp_path / "report.json")
        return SimpleNamespace(prepared=SimpleNamespace(catalog=Catalog(list(range(256)))), folder=folder)

    monkeypatch.setattr(ladder, "run_stages", run_stages)
    plan = {name: [recipe_of(name, seed) for seed in (0, 1)] for name in ("time", "joined-codes")}
    runs = run_ladder(plan)
    assert ran == [("time", 0, "prepare"), ("time", 0, "publish"), ("time", 1, "publish")]
    assert list(runs) == ["time"]
    assert len(runs["time"].reports) == 2
    assert "no joined-codes: the items of this log have no texts" in capsys.readouterr().out


def test_codebooks_larger_than_the_catalog_are_refused_before_any_training(monkeypatch):
    prepared = SimpleNamespace(catalog=Catalog(list(range(100))))
    monkeypatch.setattr(ladder, "run_stages", lambda recipe, *, say, until: SimpleNamespace(prepared=prepared))
    with pytest.raises(ValueError, match="256 codes at level 0 and there are 100 items"):
        run_ladder({name: [recipe_of(name)] for name in ("time", "codes-3x256")})


def test_texts_are_words_not_signs():
    assert not has_texts(Catalog.read({"item_id": ["a", "b"], "title": ["-", None]}))
    assert has_texts(Catalog.read({"item_id": ["a", "b"], "title": [None, "Zelt"]}))


def queries():
    """Ann met `a` and sees `a`, `b`, and buys `c`; Ben met nothing of the two that he sees."""
    past = as_histories([[("a", "view")], [("d", "view")]], ITEMS, "view,buy")
    future = as_histories(
        [[("a", "view"), ("b", "view"), ("c", "buy")], [("b", "view"), ("c", "view")]], ITEMS, "view,buy"
    )
    return Queries(past, future)


class Always:
    """Recommends the same items to everybody."""

    def __init__(self, items):
        self.items = items

    def recommend(self, histories, k=10, behavior=None):
        lists = np.tile(np.array(self.items[:k]), (len(histories), 1))
        return Recommendations(lists, np.zeros(lists.shape), np.array(ITEMS, dtype=object), histories.users)


def report_of(name, items):
    return evaluate(Always(items), queries(), name=name, k=4, num_bootstrap=20)


def fake_runs(reports, seconds=(10.0,)):
    """Runs that are finished, with these reports."""
    split = SimpleNamespace(test=queries())
    return RungRuns(
        [
            SimpleNamespace(
                recipe=SimpleNamespace(seed=seed, evaluation=SimpleNamespace(k=4)),
                folder=SimpleNamespace(primary="last-session"),
                prepared=SimpleNamespace(split=lambda protocol: split, ladder=queries().targets.ladder),
                kept=SimpleNamespace(seconds_of=lambda stage, own=own: {"last-session/train": own}[stage]),
            )
            for seed, own in enumerate(seconds)
        ],
        reports,
    )


def test_the_parts_of_repeat_and_first_time_targets_by_hand():
    report = report_of("m", [1, 0, 2, 3])  # b, a, c, d
    gain = [1 / math.log2(rank + 1) for rank in (1, 2, 3, 4)]
    best_two = gain[0] + gain[1]
    # Ann's views: b first-time at rank 1, a repeat at rank 2. Ben's: b and c, ranks 1 and 3. Ann's buy: c, rank 3.
    repeat = (gain[1] / best_two) / 3
    first_time = (gain[0] / best_two + (gain[0] + gain[2]) / best_two + gain[2]) / 3
    parts = slice_parts(report.records_of(), queries(), k=4)
    assert parts == pytest.approx((repeat, first_time))
    assert sum(parts) == pytest.approx(report.value("ndcg@4"))


def test_records_of_other_queries_have_no_parts():
    records = report_of("m", [0, 1, 2, 3]).records_of()
    with pytest.raises(ValueError, match="3 records are not those of the queries, which ask 2"):
        slice_parts(records, queries().select(np.array([0])), k=4)


def test_a_slice_without_targets_adds_nothing():
    past = as_histories([[("a", "view")]], ITEMS, "view")
    asked = Queries(past, as_histories([[("b", "view")]], ITEMS, "view"))
    report = evaluate(RecencyRecommender().fit(past), asked, name="m", k=4, num_bootstrap=5)
    parts = slice_parts(report.records_of(), asked, k=4)
    assert parts == (0.0, pytest.approx(report.value("ndcg@4")))


def records_with(values, name="m"):
    users, behaviors = np.arange(len(values)), np.array(["view"] * len(values), dtype=object)
    return Records(name, "last-session", users, behaviors, {"ndcg@4": np.array(values)})


def test_a_mean_over_seeds_has_the_interval_of_users_and_seeds():
    same = mean_with_interval([records_with([0.25] * 5)] * 2, "ndcg@4")
    assert (same.difference, same.low, same.high) == (0.25, 0.25, 0.25)
    two = mean_with_interval([records_with([0.25] * 5), records_with([0.75] * 5)], "ndcg@4")
    assert two.difference == 0.5
    assert two.low < 0.25 < 0.75 < two.high  # a third seed may lie outside of two


def test_rungs_are_joined_by_the_records_of_the_same_seed():
    before = fake_runs([report_of("paper", [3, 0, 1, 2])] * 2, seconds=(10.0, 20.0))
    own = fake_runs([report_of("time", [1, 0, 2, 3])] * 2, seconds=(30.0, 50.0))
    facts = {"title": "+ time", "is_branch": False, "against": "paper"}
    figures = rung_figures("time", own, before, SPEED, **facts)
    value, other = own.reports[0].value("ndcg@4"), before.reports[0].value("ndcg@4")
    assert figures.metric == "ndcg@4"
    assert figures.merged.difference == pytest.approx(value)
    assert figures.gain.difference == pytest.approx(value - other)
    assert figures.gain.num_seeds == 2
    assert figures.repeat == pytest.approx(own.reports[0].value("ndcg@4/repeat"))
    assert figures.first_time == pytest.approx(own.reports[0].value("ndcg@4/first-time"))
    assert figures.repeat_part + figures.first_time_part == pytest.approx(value)
    assert figures.train_seconds == 40


def test_the_best_rule_is_chosen_among_rules_alone():
    first = report_of("paper", [3, 0, 1, 2])
    first = first.merge(report_of("popularity", [0, 3, 1, 2])).merge(report_of("recency", [0, 1, 3, 2]))
    first = first.merge(report_of(UPPER_BOUND, [1, 2, 0, 3]))
    full = [report_of("time", [1, 0, 2, 3])]
    rule = best_rule_of(first, "ndcg@4", "time", full)
    best = first.value("ndcg@4", model="recency")
    assert (rule.name, rule.value, rule.rung) == ("recency", best, "time")
    assert rule.gain.difference == pytest.approx(full[0].value("ndcg@4") - best)
    assert best_rule_of(full[0], "ndcg@4", "time", full) is None


def test_all_rungs_are_timed_in_turn_on_the_same_users_with_one_thread(monkeypatch):
    calls = []

    class Timed:
        def __init__(self, name):
            self.name = name

        def recommend(self, histories, k, behavior):
            calls.append((self.name, histories.users.tolist(), k, behavior, torch.get_num_threads()))

    monkeypatch.setattr(ladder_search, "load_recommender", lambda run, protocol: Timed(run.name))
    runs = {name: fake_runs([None]).runs[0] for name in ("paper", "time")}
    for name, run in runs.items():
        run.name = name
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    speeds = search_speeds(runs)
    threads_after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert [call[0] for call in calls] == ["paper", "time", *("paper", "time", "time", "paper", "paper", "time")]
    assert {(tuple(users), k, behavior, threads) for _, users, k, behavior, threads in calls} == {((0, 1), 4, "buy", 1)}
    assert threads_after == 2
    assert speeds["paper"].relative == 1
    assert speeds["time"].users == 2


def test_a_speed_is_a_ratio_of_the_same_round_and_its_median():
    speed = ladder_search.speed_of([4.0, 8.0, 5.0], [2.0, 8.0, 3.0], num_users=10)
    assert speed == SearchSpeed(users_per_second=2.0, relative=0.6, users=10)


def test_the_recommended_rung_is_held_against_the_rule_whatever_comes_after_it(monkeypatch):
    monkeypatch.setattr(ladder, "search_speeds", lambda runs: dict.fromkeys(runs, SPEED))
    reports = {name: report_of(name, [1, 0, 2, 3]) for name in ("paper", "time", "joined-codes", "codes-3x256")}
    reports["paper"] = reports["paper"].merge(report_of("recency", [0, 1, 3, 2]))
    figures, rule = ladder.figures_of({name: fake_runs([report]) for name, report in reports.items()})
    assert [each.against for each in figures] == [None, "paper", "time", "time"]
    assert [each.is_branch for each in figures] == [False, False, False, True]
    assert (rule.name, rule.rung) == ("recency", "time")


def comparison(difference, low, high, second=0.0):
    return Comparison(
        difference, low, high, p=0.01, first=second + difference, second=second, records=1200, num_seeds=2
    )


def hand_made():
    shared = {"train_seconds": 1234.4, "metric": "ndcg@10"}
    slices = {"repeat": 0.3, "first_time": 0.05, "repeat_part": 0.08, "first_time_part": 0.02}
    paper = RungFigures(
        *("paper", "paper model", False, comparison(0.1, 0.09, 0.11), None, None), **slices, speed=SPEED, **shared
    )
    gain, slow = comparison(0.02, 0.01, 0.03), SearchSpeed(86.4, 0.864, 200)
    time = RungFigures(
        *("time", "+ time", False, comparison(0.12, 0.1, 0.14), "paper", gain), **slices, speed=slow, **shared
    )
    unclear, no_repeat = comparison(-0.001, -0.004, 0.002), {**slices, "repeat": math.nan}
    branch = RungFigures(
        *("codes-3x256", "codes 3x256", True, comparison(0.119, 0.1, 0.13), "time", unclear),
        **no_repeat,
        speed=slow,
        **shared,
    )
    return [paper, time, branch]


def test_the_table_by_hand():
    rule = BestRule("recency", 0.1, "time", comparison(0.02, 0.011, 0.029, second=0.1))
    table, notes, against = ladder_table(hand_made(), rule).split("\n\n")
    assert table.splitlines() == [
        "| rung | NDCG@10 | over | gain | repeat | first-time | training s | users/s | relative |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| paper model | 0.1000 [0.0900, 0.1100] | - | - | 0.3000 | 0.0500 | 1,234 | 100 | 1.00 |",
        "| + time | 0.1200 [0.1000, 0.1400] | paper model | +0.0200 [+0.0100, +0.0300]* | 0.3000 | 0.0500 | 1,234 | 86 "
        "| 0.86 |",
        "| branch: codes 3x256 | 0.1190 [0.1000, 0.1300] | + time | -0.0010 [-0.0040, +0.0020] | - | 0.0500 | 1,234 "
        "| 86 | 0.86 |",
    ]
    assert "1,200 records, 2 seeds" in notes
    assert "Search of 200 users" in notes
    assert against == ("Best rule: recency, NDCG@10 0.1000. + time: +0.0200 [+0.0110, +0.0290]* over it (+20.0%).")


def test_without_rules_the_table_says_nothing_of_them():
    assert "rule" not in ladder_table(hand_made(), None)


def test_the_plot_is_drawn_from_the_same_figures(tmp_path):
    pytest.importorskip("matplotlib")
    assert plot_ladder(hand_made(), tmp_path / "ladder.png", None).read_bytes().startswith(b"\x89PNG")


def test_the_file_has_the_rungs_by_seed_their_gains_and_their_search_but_no_rule(tmp_path):
    figures = [each for each in hand_made() if not each.is_branch]
    figures = [RungFigures(**{**each.__dict__, "metric": "ndcg@4"}) for each in figures]
    paper = [
        report_of("paper", [3, 0, 1, 2]).merge(report_of("recency", [0, 1, 3, 2])),
        report_of("paper", [0, 1, 2, 3]),
    ]
    time = [report_of("time", [1, 0, 2, 3])] * 2
    runs = {"paper": fake_runs(paper, (10.0, 20.0)), "time": fake_runs(time, (30.0, 50.0))}
    write_csv(tmp_path / "ladder.csv", figures, runs, "shop-ladder")
    rows = read_benchmark_csv(tmp_path / "ladder.csv")
    assert {row["model"] for row in rows} == {"paper", "time", "time-minus-paper"}
    assert {row["config"] for row in rows} == {"shop-ladder"}
    merged = [row for row in rows if (row["behavior"], row["metric"]) == ("merged", "ndcg@4")]
    assert [(row["model"], row["seed"], row["seconds"]) for row in merged] == [
        *(("paper", "0", "10"), ("paper", "1", "20"), ("time", "0", "30"), ("time", "1", "50")),
        ("time-minus-paper", "all", ""),
    ]
    assert float(merged[0]["value"]) == pytest.approx(paper[0].value("ndcg@4", model="paper"), rel=1e-5)
    assert (merged[-1]["value"], merged[-1]["low"], merged[-1]["high"]) == ("0.02", "0.01", "0.03")
    speeds = {(row["model"], row["metric"]): row for row in rows if row["metric"].endswith("users/s")}
    assert speeds["time", "relative-users/s"]["value"] == "0.864"
    assert {row["behavior"] for row in speeds.values()} == {"buy"}
    assert {row["seed"] for row in speeds.values()} == {"0"}
