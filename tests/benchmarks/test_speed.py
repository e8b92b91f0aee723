"""The harness of the speed benchmarks: turns, ratios, checks, JSON, memory, tables; and every benchmark's quick run."""

import doctest
import gc
import importlib
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.speed import harness, memory, table
from benchmarks.speed.harness import Contender, Results, Settings, run
from benchmarks.speed.memory import peak_memory_mb
from benchmarks.speed.timing import order_of_runs, times_to_run

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "benchmarks" / "speed"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
BENCHMARKS = [name for name in MODULES if "\ndef measure(" in (FOLDER / f"{name}.py").read_text(encoding="utf-8")]


class FakeClock:
    """A clock that stands still unless a contender takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.turns: list[str] = []
        monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def contender(self, name: str, *seconds: float, **options: int) -> Contender:
        """Return a contender that takes these seconds, call after call, and then the last again."""
        left = list(seconds)

        def call() -> str:
            self.turns.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return f"output of {name}"

        return Contender(name, call, **options)


@pytest.fixture
def clock(monkeypatch):
    return FakeClock(monkeypatch)


def compare(contenders: list[Contender], **options: object):
    results = Results(Settings())
    settings = {"baseline": "slow", "work": 12, "unit": "users", "repeats": 2, "check": None, **options}
    return results, results.compare("table", contenders, **settings)


def test_turns_alternate():
    assert order_of_runs({"a": 4, "b": 4}) == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_a_slow_contender_skips_rounds_evenly():
    turns = order_of_runs({"a": 6, "b": 2})
    assert turns.count("a") == 6
    assert turns.index("b") < 4 < len(turns) - turns[::-1].index("b")


@pytest.mark.parametrize(("limit", "times"), [(None, 9), (100.0, 9), (20.0, 4), (1.0, 1)])
def test_runs_fit_the_time_but_there_is_one(limit, times):
    assert times_to_run(9, seconds=5.0, max_seconds=limit) == times


def test_a_ratio_is_the_baselines_time_over_the_contenders(clock):
    results, rows = compare([clock.contender("slow", 6.0), clock.contender("fast", 2.0)], ratio="search/{name}@8")
    assert rows["fast"].ratio == 3.0
    assert rows["slow"].ratio == 1.0
    assert results.ratios == {"search/fast@8": 3.0}
    assert rows["fast"].per_second == 6.0  # 12 users in 2 seconds
    assert clock.turns == ["slow", "fast", "slow", "fast", "fast", "slow"]  # one untimed run each, then A B B A


def test_the_first_run_is_not_timed(clock):
    _, rows = compare([clock.contender("slow", 100.0, 1.0, 3.0)])
    assert list(rows["slow"].seconds) == [1.0, 3.0]
    assert rows["slow"].median == 2.0


def test_a_row_has_median_and_percentiles(clock):
    results, _ = compare([clock.contender("slow", 9.0, *range(1, 12))], repeats=11, limit=20.0)
    (row,) = results.rows
    assert (row["p10_seconds"], row["median_seconds"], row["p90_seconds"], row["repeats"]) == (2.0, 6.0, 10.0, 11)
    assert row["users_per_second"] == 2.0
    assert row["of_limit"] == pytest.approx(0.1)


def test_a_contender_may_warm_up_longer_and_the_last_run_says_how_long_one_takes(clock):
    compiled = clock.contender("compiled", 60.0, 1.0, warmup=2)
    compare([clock.contender("slow", 5.0), compiled], max_seconds=10.0, repeats=4)
    assert clock.turns.count("compiled") == 2 + 4
    assert clock.turns.count("slow") == 1 + 2


def test_where_outputs_differ_nothing_is_timed(clock):
    seen = {}

    def refuse(outputs: dict[str, str]) -> None:
        seen.update(outputs)
        raise AssertionError("they differ")

    results = Results(Settings())
    contenders = [clock.contender("slow", 1.0), clock.contender("fast", 1.0)]
    with pytest.raises(AssertionError, match="they differ"):
        results.compare("table", contenders, baseline="slow", work=1, unit="users", repeats=5, check=refuse)
    assert seen == {"slow": "output of slow", "fast": "output of fast"}
    assert clock.turns == ["slow", "fast"]
    assert results.rows == []
    assert results.ratios == {}


@pytest.mark.parametrize(("names", "baseline"), [(["a", "a"], "a"), (["a", "b"], "c")])
def test_names_must_differ_and_hold_the_baseline(clock, names, baseline):
    with pytest.raises(ValueError, match="different names, one of them the baseline"):
        compare([clock.contender(name, 1.0) for name in names], baseline=baseline)
    assert clock.turns == []


def test_a_ratio_is_kept_once():
    results = Results(Settings())
    results.ratio("search/dict_trie@8", 21)
    with pytest.raises(ValueError, match="is there already"):
        results.ratio("search/dict_trie@8", 22)


def test_the_collector_rests_while_a_call_is_timed_and_works_afterwards():
    results = Results(Settings())
    was_on = []
    contender = Contender("slow", lambda: was_on.append(gc.isenabled()))
    results.compare("table", [contender], baseline="slow", work=1, unit="users", repeats=2, check=None)
    assert was_on == [False, False, False]
    assert gc.isenabled()


def test_the_json_says_what_was_measured_where(tmp_path, clock):
    results, _ = compare([clock.contender("slow", 6.0), clock.contender("fast", 2.0)], ratio="search/{name}@8")
    results.add("bytes", "trie", bytes=7)
    results.write(tmp_path / "new" / "file.json", "generate")
    content = json.loads((tmp_path / "new" / "file.json").read_text(encoding="utf-8"))
    assert content["benchmark"] == "generate"
    assert content["command"].startswith("python -m benchmarks.speed.generate")
    assert content["ratios"] == {"search/fast@8": 3.0}
    assert content["versions"]["torch"] == torch.__version__
    assert {"python", "transformers", "numpy"} <= content["versions"].keys()
    assert content["machine"]["threads"] == 1
    assert content["machine"]["cores"] >= 1
    assert content["machine"]["processor"]
    assert content["settings"] == {"quick": False, "device": "cpu", "threads": 1, "seed": 0, "large": False}
    assert "commit" in content
    assert [row["name"] for row in content["rows"]] == ["slow", "fast", "trie"]
    assert content["rows"][2] == {"table": "bytes", "name": "trie", "bytes": 7}


def test_a_figure_that_is_no_number_is_not_written(tmp_path):
    results = Results(Settings())
    results.ratio("search/dict_trie@8", math.nan)
    with pytest.raises(ValueError, match="Out of range float values"):
        results.write(tmp_path / "file.json", "generate")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "written"),
    [([], "results/demo-cpu.json"), (["--quick"], None), (["--quick", "--output", "here.json"], "here.json")],
)
def test_a_quick_run_leaves_no_file_unless_told(tmp_path, monkeypatch, capsys, arguments, written):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    drawn = []
    asked = []

    def measure(settings: Settings) -> Results:
        asked.append(settings)
        results = Results(settings)
        results.add("bytes", "trie", bytes=settings.choose(full=7, quick=3))
        results.ratio("memory/dict_trie@8", 5.5)
        return results

    arguments = [*arguments, "--threads", "1", "--seed", "3"]
    run("demo", measure, arguments, after_writing=lambda results, path: drawn.append(path))
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")]
    assert files == ([written] if written else [])
    assert len(drawn) == len(files)
    assert asked[0].seed == 3
    assert "memory/dict_trie@8" in (printed := capsys.readouterr().out)
    assert ("bytes=3" if "--quick" in arguments else "bytes=7") in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none(capsys):
    with pytest.raises(SystemExit):
        run("demo", lambda settings: Results(settings), ["--device", "cuda"])
    assert "needs a CUDA device" in capsys.readouterr().err


MEGABYTES_50 = 12_500_000  # float32 values


def test_peak_memory_is_that_of_the_call_alone():
    assert 45 < peak_memory_mb(partial, torch.ones, MEGABYTES_50) < 75


def test_peak_memory_of_a_call_that_fails_is_an_error(capfd):
    with pytest.raises(RuntimeError, match="ended without a figure"):
        peak_memory_mb(partial, torch.ones, -1)
    assert "negative dimension" in capfd.readouterr().err


def test_without_a_peak_that_can_be_reset_growth_beyond_the_highest_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "no such folder" / "clear_refs")
    peaks = iter([100, 160])
    monkeypatch.setattr(memory, "_lifetime_peak_bytes", lambda: next(peaks))
    assert memory._resident_peak_bytes(lambda: None) == 60


def test_the_lifetime_peak_is_at_least_what_is_held_now():
    assert memory._lifetime_peak_bytes() > 50e6  # torch is loaded


def test_the_readme_tables_are_those_of_the_json_files():
    readme = table.README.read_text(encoding="utf-8")
    assert table.readme_with(table.tables(), readme) == readme, "run `python -m benchmarks.speed.table --write`"


def test_the_readme_names_every_benchmark():
    readme = table.README.read_text(encoding="utf-8")
    assert [name for name in BENCHMARKS if f"`{name}`" not in readme] == []
    assert set(BENCHMARKS) <= set(table.ORDER)


def test_a_table_shows_ratios_rows_and_where_they_come_from(tmp_path, clock):
    results, _ = compare([clock.contender("slow", 6.0), clock.contender("fast", 0.002)], limit=60_000.0)
    results.ratio("search/dict_trie@8", 3000)
    results.add("bytes", "trie", bytes=1_300_000)
    results.add("growth axis", "beams", values=[1, 2])
    results.write(tmp_path / "trie-cpu.json", "trie")
    results.write(tmp_path / "generate-cpu.json", "generate")
    (tmp_path / "trie-cpu.png").touch()
    text = table.tables(tmp_path)
    assert text.index("### `generate` on CPU") < text.index("### `trie` on CPU")
    assert text.count("![trie](speed/results/trie-cpu.png)") == 1
    assert "| `search/dict_trie@8` | 3,000 |" in text
    assert "| table | fast | users/s 6,000 | 2 ms (2 ms to 2 ms), 2 | 3,000 | 10.0% |" in text
    assert "| bytes | trie | bytes 1,300,000 |  |  |  |" in text
    assert "growth axis" not in text
    assert f"torch {torch.__version__}" in text


def test_the_tables_go_between_the_marks_of_the_readme(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(table, "README", readme)
    monkeypatch.setattr(table, "tables", lambda: "new")
    table.main([])
    assert capsys.readouterr().out == "new\n"
    assert "old" in readme.read_text(encoding="utf-8")
    table.main(["--write"])
    assert readme.read_text(encoding="utf-8") == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    with pytest.raises(ValueError, match="needs the marks"):
        table.readme_with("new", "no marks")


def test_without_results_the_table_says_so(tmp_path):
    assert table.tables(tmp_path) == table.NOTHING


@pytest.mark.parametrize("name", [*MODULES, "baselines.dict_trie", "baselines.marisa"])
def test_the_examples_hold(name):
    assert doctest.testmod(importlib.import_module(f"benchmarks.speed.{name}")).failed == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_quick_run_ends_with_rows_and_finite_ratios(name, tmp_path):
    output = tmp_path / f"{name}.json"
    command = [sys.executable, "-m", f"benchmarks.speed.{name}", "--quick", "--output", str(output), "--threads", "1"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, capture_output=True)
    content = json.loads(output.read_text(encoding="utf-8"))
    assert content["benchmark"] == name
    assert content["rows"]
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in content["ratios"].values())
