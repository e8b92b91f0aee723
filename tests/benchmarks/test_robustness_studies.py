"""`benchmarks/quality/robustness.py` and `session_wise.py`: quick runs, run folders, and what they refuse."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.quality import robustness, session_wise
from genrec.data import DataConfig, prepare
from genrec.data.preparation import read_sources
from genrec.evaluation.benchmark_csv import read_benchmark_csv
from genrec.files import write_json
from genrec.recommender import PopularityRecommender, RecencyRecommender

DAY = 86_400


def write_log(folder, seed=0, num_users=30):
    """Users who view, one item a minute, and buy what they viewed last; a session a day."""
    folder.mkdir()
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        for day in range(5):
            viewed = draw.integers(12, size=4)
            rows += [(user, int(item), "view", day * DAY + 60 * place) for place, item in enumerate(viewed)]
            rows.append((user, int(viewed[-1]), "buy", day * DAY + 300))
    names = ("user_id", "item_id", "behavior", "timestamp")
    pq.write_table(pa.table(dict(zip(names, zip(*rows), strict=True))), folder / "interactions.parquet")
    return folder


def write_run(folder, rule, seed=0, log_seed=0, protocol="last-session"):
    """A run folder as `genrec run` leaves it, with a rule for its model."""
    log = write_log(folder.parent / f"log-{folder.name}", log_seed)
    config = DataConfig(interactions=str(log / "interactions.parquet"), behaviors="view,buy")
    prepared = prepare(read_sources(config)[0], config, folder / "prepared")
    rule.fit(prepared.split("last-session").train).save_pretrained(folder / "checkpoint")
    write_json(folder / "checkpoint" / "training_report.json", {"name": "shop", "seed": seed, "protocol": protocol})
    return folder


def test_quick_robustness_prints_a_table_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "__file__", str(tmp_path / "robustness.py"))
    rows = robustness.main(["--quick", "--gain-of", "recency"])
    assert len(rows) == 3 * 6 * 4  # rules, perturbations, metrics
    printed = capsys.readouterr().out
    assert "| session-items | gain of recency |" in printed
    assert not list(tmp_path.iterdir())


def test_runs_are_compared_and_seeds_of_one_name_averaged(tmp_path, capsys):
    first = write_run(tmp_path / "a", RecencyRecommender(), seed=0)
    second = write_run(tmp_path / "b", RecencyRecommender(skip_done=True), seed=1)
    third = write_run(tmp_path / "c", PopularityRecommender())
    runs = [f"K=0={first}", f"K=0={second}", f"popularity={third}"]
    robustness.main([*runs, "--rules", "recency", "--name", "shop", "--output", str(tmp_path / "out")])
    figures = read_benchmark_csv(tmp_path / "out" / "robustness_shop.csv")
    cell = ("last-session/drop-1", "buy", "hit@5")
    found = [row for row in figures if (row["protocol"], row["behavior"], row["metric"]) == cell]
    assert [(row["model"], row["seed"]) for row in found] == [
        *(("K=0", "0"), ("K=0", "1"), ("popularity", "0"), ("recency", "0"))
    ]
    mean = np.mean([float(row["value"]) for row in found[:2]])
    table = (tmp_path / "out" / "robustness_shop.md").read_text()
    assert table.strip() == capsys.readouterr().out.strip()
    (line,) = [line for line in table.splitlines() if line.startswith("| drop-1 ") and "| K=0 |" in line]
    assert line.split("|")[3].split()[0] == f"{mean:.4f}"


def test_what_cannot_be_compared_is_refused(tmp_path):
    shop = write_run(tmp_path / "shop", RecencyRecommender())
    other = write_run(tmp_path / "other", RecencyRecommender(), log_seed=1)
    temporal = write_run(tmp_path / "temporal", RecencyRecommender(), protocol="temporal")
    with pytest.raises(ValueError, match="ask different records"):
        robustness.main([f"a={shop}", f"b={other}"])
    with pytest.raises(ValueError, match="'a' has two runs of the recipe 'shop' with seed 0"):
        robustness.main([f"a={shop}", f"a={shop}"])
    with pytest.raises(ValueError, match="trained on the split 'temporal', not 'last-session'"):
        robustness.main([f"a={temporal}"])
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        robustness.checkpoint_of(tmp_path, "last-session")
    with pytest.raises(ValueError, match="written `NAME=FOLDER`"):
        robustness.main([str(shop)])
    for arguments in ([], ["--quick", f"a={shop}"]):
        with pytest.raises(ValueError, match="or pass `--quick`"):
            robustness.main(arguments)


def test_session_wise_evaluation_takes_away_what_was_met_a_moment_ago(tmp_path, capsys):
    """Everyone buys what she viewed last: leave-one-out finds all of it, the sessions before only what chance gives."""
    log = write_log(tmp_path / "shop")
    arguments = ["--log", str(log), "--behaviors", "view,buy", "--output", str(tmp_path / "out")]
    cells = {(cell.protocol, cell.behavior): cell for cell in session_wise.main(arguments)}
    assert cells["leave-one-out", "buy"].shares.tolist() == [1.0] * 20
    assert cells["last-session", "buy"].shares[0] < 0.5
    assert cells["leave-one-out", "buy"].num_targets == cells["last-session", "buy"].num_targets == 30
    figures = read_benchmark_csv(tmp_path / "out" / "session_wise_shop.csv")
    values = {(row["protocol"], row["behavior"], row["metric"]): float(row["value"]) for row in figures}
    assert len(values) == len(figures) == 4 * (20 + 5)
    assert values["leave-one-out", "buy", "hit@1"] == values["leave-one-out", "buy", "recent@1"] == 1
    assert values["last-session", "buy", "hit@5"] < 1
    text = (tmp_path / "out" / "session_wise_shop.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert len(text.splitlines()) == 2 + 4


def test_shares_of_all_behaviors_are_a_mean_over_targets(tmp_path):
    histories = session_wise.read_histories(write_log(tmp_path / "shop"), "view,buy", 30)
    queries = session_wise.split_last_session(histories).test
    (views, num_views), (buys, num_buys) = (session_wise.shares_of(queries, name) for name in ("view", "buy"))
    shares, num_targets = session_wise.shares_of(queries, None)
    assert num_targets == num_views + num_buys
    np.testing.assert_allclose(shares, (views * num_views + buys * num_buys) / num_targets)


def test_quick_session_wise_reads_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(session_wise, "__file__", str(tmp_path / "session_wise.py"))
    cells = session_wise.main(["--quick"])
    assert [(cell.behavior, cell.protocol) for cell in cells] == [
        *(("any", "leave-one-out"), ("any", "last-session")),
        *(("buy", "leave-one-out"), ("buy", "last-session")),
    ]
    assert "| buy | leave-one-out |" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
