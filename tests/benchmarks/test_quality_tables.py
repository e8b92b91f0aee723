"""The committed tables and verdicts are those of the committed figures."""

import pytest

from genrec.cli.bench_claims import judge, read_claims
from genrec.cli.bench_report import TABLE_METRICS
from genrec.evaluation.benchmark_tables import PENDING, markdown_tables, read_benchmark

from .conftest import ROOT

QUALITY = ROOT / "benchmarks" / "quality"
LOGS = ("deskdrop", "retailrocket", "taobao", "market", "ml100k")
COMMAND = "run the commands of benchmarks/README.md that write benchmarks/quality/tables"


def benchmark_of(log):
    return read_benchmark(QUALITY / f"{log}.csv", min_seeds=1)


@pytest.mark.parametrize("log", LOGS)
def test_each_table_shows_its_file(log):
    text = (QUALITY / "tables" / f"{log}.md").read_text(encoding="utf-8")
    assert text.startswith(markdown_tables(benchmark_of(log), TABLE_METRICS)), COMMAND


def test_each_verdict_is_about_the_figures_of_the_files():
    """Intervals need the runs' records, which are not kept here; differences need only the figures."""
    lines = (QUALITY / "tables" / "claims.md").read_text(encoding="utf-8").splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    shown = {(claim, log): (word, difference) for claim, _, log, word, difference, _ in cells}
    for log in LOGS[:4]:
        for verdict in judge(read_claims(QUALITY / "claims.yaml"), benchmark_of(log), None, num_bootstrap=10):
            word, difference = shown[verdict.claim.claim, verdict.log]
            assert (word == PENDING) == (verdict.word == PENDING), COMMAND
            assert difference.startswith(verdict.difference), COMMAND
