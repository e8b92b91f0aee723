"""Runs of a bench made by hand: three models, three seeds, a constant gain between the models."""

import json
from pathlib import Path

import numpy as np

from genrec.evaluation import EvaluationReport
from genrec.evaluation.benchmark_csv import update_benchmark_csv
from genrec.evaluation.records import Records

USERS = np.arange(40)
GAINS = {"gamer": 0.5, "qwen3": 0.25, "sasrec": 0.0}


def values_of(model, seed):
    """A common draw per user, and a constant gain: every paired difference is the difference of the gains."""
    return np.random.default_rng(seed).random(len(USERS)) / 4 + GAINS[model]


def report_of(model, values, users=USERS):
    fields = {"model": model, "protocol": "last-session", "behavior": "merged", "metric": "ndcg@10"}
    row = {**fields, "value": float(values.mean()), "low": None, "high": None, "records": len(values)}
    records = Records(model, "last-session", users, np.array(["buy"] * len(users), dtype=object), {"ndcg@10": values})
    return EvaluationReport([row], [records], {(model, "last-session"): {"seconds": 1.0, "peak_mb": 1.0}})


def add_run(folder: Path, model, seed, users=USERS, finished="2026-01-01"):
    """Write a run folder under `runs/` and its figures into `shop.csv`; return the run folder."""
    run, report = folder / "runs" / f"shop_{model}" / f"seed-{seed}", report_of(model, values_of(model, seed), users)
    report.save(run / "report.json")
    record = {"config": f"shop_{model}", "model": model, "seed": seed, "commit": "abc", "finished": finished}
    (run / "bench.json").write_text(json.dumps(record))
    update_benchmark_csv(folder / "shop.csv", report, config=f"shop_{model}", commit="abc", seed=seed)
    return run


def add_all(folder: Path) -> Path:
    """Write the runs of all models and seeds; return the benchmark file."""
    for model in GAINS:
        for seed in range(3):
            add_run(folder, model, seed)
    return folder / "shop.csv"
