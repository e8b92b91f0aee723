"""GAMER against the plain Qwen3 block of the same size on the synthetic market, several seeds, a paired interval.

    python benchmarks/quality/market_qwen3.py --seeds 5

Both are the demo's recipe on a smaller market with fewer epochs (`SIZE`); the plain block has cross-level attention,
behavior injection and experts switched off. A seed decides codes, weights and batches; the market stays the same, so
that all runs are asked the same records.

Writes one row per figure to `benchmarks/quality/market.csv`, as the configuration `market-block`: `demo` is what
`genrec bench demo` writes there, of a larger market. Beside them stands the paired difference as model
`gamer-minus-qwen3` (seed `all`): the interval covers who was asked and how training fell out.
"""

import argparse
from pathlib import Path

from genrec.cli.provenance import commit
from genrec.cli.recipe import load_recipe
from genrec.cli.stages import run_stages
from genrec.evaluation import EvaluationReport, compare
from genrec.evaluation.benchmark_csv import update_benchmark_csv

SIZE = ["market.num_users=4000", "training.num_train_epochs=5"]
CONFIG = "market-block"
PROTOCOL, METRIC = "last-session", "ndcg@10"
VARIANTS = {
    "gamer": [],
    "qwen3": [
        "model.cross_level_layers=[]",
        "model.behavior_injection_layers=[]",
        "model.position_experts=false",
    ],
}


def run_variant(name: str, seed: int, csv: Path, overrides: list[str]) -> EvaluationReport:
    """Train and evaluate one variant with one seed; finished runs are kept."""
    evaluation = [f"evaluation.protocols=[{PROTOCOL}]", f"evaluation.csv={csv}", f"evaluation.model_name={name}"]
    settings = [f"name={CONFIG}", *SIZE, *evaluation]
    market_seed = load_recipe("demo").seed
    run = run_stages(
        load_recipe(
            "demo",
            [*settings, f"market.seed={market_seed}", *VARIANTS[name], *overrides],
            output=f"runs/market/{name}-{seed}",
            seed=seed,
        ),
        say=print,
    )
    return EvaluationReport.load(run.folder.report)


def main(seeds: int, csv: Path, overrides: list[str]) -> None:
    """Run all variants over the seeds and write the difference."""
    reports = {name: [run_variant(name, seed, csv, overrides) for seed in range(seeds)] for name in VARIANTS}
    result = compare(reports["gamer"], reports["qwen3"], METRIC, models=("gamer", "qwen3"), protocol=PROTOCOL)
    print(
        f"gamer {result.first:.4f}, qwen3 {result.second:.4f}, difference {result.difference:+.4f} "
        f"({result.relative:+.1%}) [{result.low:+.4f}, {result.high:+.4f}], p = {result.p:.3f}, {seeds} seeds"
    )
    row = {"model": "gamer-minus-qwen3", "protocol": PROTOCOL, "behavior": "merged", "metric": METRIC}
    figures = {"value": result.difference, "low": result.low, "high": result.high, "records": result.records}
    update_benchmark_csv(
        csv,
        EvaluationReport([{**row, **figures}]),
        config=CONFIG,
        commit=commit() or "",
        seed="all",
        seconds=0.0,
        peak_mb=0.0,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/quality/market.csv"))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    main(**vars(parser.parse_args()))
