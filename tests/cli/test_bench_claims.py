"""Claims held against benchmark files: verdicts from figures made by hand, and what is refused."""

import json
from pathlib import Path

import pytest

from genrec.cli.bench_claims import Claim, check_names, judge, read_claims
from genrec.cli.bench_comparisons import find_runs
from genrec.evaluation.benchmark_tables import read_benchmark
from genrec.presets import variants_in

from .made_runs import add_all, add_run

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "quality" / "claims.yaml"
CLAIMS = [
    Claim("better", "gamer", "qwen3"),
    Claim("worse", "sasrec", "gamer"),
    Claim("not run", "gamer", "mbgen"),
    Claim("cheaper", "gamer", "qwen3", metric="seconds"),
]


@pytest.fixture
def path(tmp_path):
    return add_all(tmp_path)


def test_verdicts_with_and_without_runs(path, tmp_path):
    benchmark = read_benchmark(path)
    verdicts = judge(CLAIMS, benchmark, find_runs(tmp_path / "runs"), num_bootstrap=200)
    assert [verdict.word for verdict in verdicts] == ["holds", "does not hold", "pending", "undecided"]
    assert verdicts[0].difference == "+0.2500 [+0.2500, +0.2500]"
    assert verdicts[0].basis == "40 records, 3 seeds, p 0.020 (Holm)"  # 2 tests of 2 / 201
    alone = judge(CLAIMS, benchmark, None)
    assert [verdict.word for verdict in alone[:2]] == ["undecided"] * 2  # three seeds never tell more


def test_one_seed_speaks_for_its_training_alone(path, tmp_path):
    benchmark = read_benchmark(path, seeds=[1])
    verdicts = judge(CLAIMS[:2], benchmark, find_runs(tmp_path / "runs"), num_bootstrap=200)
    assert [verdict.word for verdict in verdicts] == ["holds for this training", "does not hold for this training"]
    assert verdicts[0].basis.startswith("40 records, 1 seed, p")


@pytest.mark.parametrize(
    ("seconds", "word"), [((1, 2, 3), "holds"), ((11, 12, 13), "does not hold"), ((1, 2, 13), "undecided")]
)
def test_a_cost_holds_if_every_seed_says_so(path, seconds, word):
    lines = path.read_text().splitlines()
    place, costs = lines[0].split(",").index("seconds"), {"gamer": iter(seconds), "qwen3": iter((10, 10, 10))}
    for number, line in enumerate(lines[1:], start=1):
        cells = line.split(",")
        cells[place] = str(next(costs.get(cells[0], iter([1]))))
        lines[number] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    (verdict,) = judge(CLAIMS[3:], read_benchmark(path), None)
    assert verdict.word == word
    assert verdict.difference.startswith(f"{sum(seconds) / 30:.2f} times")


def test_models_are_compared_under_one_recipe_only(path):
    """The plain block was run on the demo's market too, without GAMER there."""
    other = [line.replace("shop_", "demo_") for line in path.read_text().splitlines()[1:] if ",shop_qwen3," in line]
    path.write_text("\n".join([path.read_text().rstrip(), *other]) + "\n")
    (verdict,) = judge(CLAIMS[:1], read_benchmark(path), None)
    assert verdict.difference.startswith("+0.2500")
    alone = [line for line in path.read_text().splitlines() if ",shop_qwen3," not in line]
    path.write_text("\n".join(alone) + "\n")
    (verdict,) = judge(CLAIMS[:1], read_benchmark(path), None)
    assert verdict.word == "pending"


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_model_of_two_configurations_has_a_verdict_for_each_whatever_their_order(path, is_reversed):
    head, *lines = path.read_text().splitlines()
    again = [line.replace("shop_qwen3", "shop_qwen3-v2") for line in lines if ",shop_qwen3," in line]
    again += [line.replace(",shop_", ",demo_") for line in lines]
    path.write_text("\n".join([head, *sorted([*lines, *again], reverse=is_reversed)]) + "\n")
    verdicts = judge(CLAIMS[:1], read_benchmark(path), None)
    assert {verdict.log: verdict.difference for verdict in verdicts} == {
        "shop (demo_gamer and demo_qwen3)": "+0.2500",
        "shop (shop_gamer and shop_qwen3)": "+0.2500",
        "shop (shop_gamer and shop_qwen3-v2)": "+0.2500",
    }


def test_the_target_is_the_strongest_behavior_of_the_log(path):
    lines = path.read_text().splitlines()
    of_behaviors = [line.replace(",merged,", f",{name},") for name in ("view", "buy") for line in lines[1:]]
    path.write_text("\n".join([*lines, *of_behaviors]) + "\n")
    claims = [Claim("better", "gamer", "qwen3", behavior=name) for name in ("target", "buy")]
    first, second = judge(claims, read_benchmark(path), None)
    assert (first.word, first.difference) == (second.word, second.difference) == ("undecided", "+0.2500")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"first": "gamerr"}, "Claim 2: `first` names 'gamerr', which is nowhere known. The nearest are: gamer,"),
        ({"second": "gamer-sesion"}, "`second` names 'gamer-sesion'.*, session"),
        ({"behavior": "bying"}, "`behavior` names 'bying'.*The nearest are: target, merged"),
        ({"protocol": "last_session"}, "`protocol` names 'last_session'.*: last-session, temporal"),
    ],
)
def test_a_name_that_nothing_has_is_refused_not_pending_for_ever(path, fields, message):
    wrong = Claim(**{"claim": "a", "first": "gamer", "second": "sasrec", **fields})
    with pytest.raises(ValueError, match=message):
        check_names([CLAIMS[0], wrong], [read_benchmark(path)])
    check_names([*CLAIMS, Claim("not run yet", "gamer-augmented-4", "recency", protocol="temporal")], [])


def test_the_command_prints_a_line_for_each_claim_and_log(path, genrec, tmp_path):
    file = tmp_path / "claims.yaml"
    file.write_text("- {claim: GAMER is better, first: gamer, second: qwen3, source: a paper}\n")
    result = genrec("bench", "claims", file, path, "--runs", tmp_path / "runs")
    assert "| GAMER is better | a paper | shop | holds | +0.2500" in result.stdout
    more = genrec("bench", "claims", file, path, "--seeds", "0,1,2,9").stdout
    assert "| GAMER is better | a paper | shop | pending |" in more, "nobody ran seed 9"
    written = genrec("bench", "claims", file, path, "--output", tmp_path / "claims.md")
    assert "undecided" in (tmp_path / "claims.md").read_text(), written.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {claim: a, first: b, secnd: c}", "Claim 1: Unknown key `secnd`. Did you mean `second`?"),
        ("- {claim: a, first: b}", "Claim 1 lacks `second`"),
        ("claim: a", "must be a list of claims"),
        ("- {claim: a, first: b, second: c, metric: ndgc@10}", "ndgc"),
        ("- {claim: a, first: b, second: c, metric: ndcg@10/repeet}", "`metric` names 'repeet'"),
        ("- {claim: a, first: b, second: c, metric: 5}", "Claim 1: `metric` must be text, got 5"),
        ("- {claim: a, first: [b], second: c}", r"Claim 1: `first` must be text, got \['b'\]"),
        ("[", "is not valid YAML"),
    ],
)
def test_what_is_no_claim_is_refused(text, message, tmp_path):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_claims(tmp_path / "claims.yaml")


def test_the_shipped_claims_are_about_models_that_variants_make():
    for claim in read_claims(SHIPPED):
        for name in (claim.first, claim.second):
            assert variants_in(name), name


def test_costs_are_means_over_seeds(genrec, tmp_path):
    for seed, (epoch, best, seconds) in enumerate([(10, 4, 50.0), (5, 5, 35.0)]):
        folder = add_run(tmp_path, "gamer", seed)
        report = {"epoch": epoch, "best_epoch": best, "seconds": seconds, "parameters": 1234}
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / "training_report.json").write_text(json.dumps(report))
        record = json.loads((folder / "bench.json").read_text())
        (folder / "bench.json").write_text(json.dumps({**record, "peak_mb": 100 + 20 * seed}))
    result = genrec("bench", "costs", tmp_path / "runs")
    # 5 and 7 seconds per epoch; 4 and 5 epochs, so 20 and 35 seconds; 50 and 35 in all
    assert "| shop_gamer | 2 | 1,234 | 6.0 | 4.5 | 28 | 42 | 110 |" in result.stdout
    del report["best_epoch"]  # as after `eval_strategy: "no"`
    (folder / "checkpoint" / "training_report.json").write_text(json.dumps(report))
    result = genrec("bench", "costs", tmp_path / "runs")
    assert "| shop_gamer | 2 | 1,234 | 6.0 | - | - | 42 | 110 |" in result.stdout
    (folder / "checkpoint" / "training_report.json").unlink()
    assert "has no training_report.json" in genrec("bench", "costs", tmp_path / "runs").output
