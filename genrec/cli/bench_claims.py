"""`genrec bench claims`: statements that one model is better or cheaper than another, held against benchmark files.

A claims file is a YAML list. Each claim names a `first` and a `second` model, of which the first is said to be better:
higher in `metric`, or cheaper where the metric is `seconds`. A verdict is drawn on each log by itself. With one seed it
is about the two trainings that were compared, and says so: another seed may turn it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from genrec.cli.bench_comparisons import Runs, find_runs, paired_test
from genrec.cli.strict import unknown_key
from genrec.evaluation.benchmark_tables import (
    PENDING,
    Benchmark,
    Line,
    Place,
    markdown_table,
    read_benchmark,
    recipe_of,
)
from genrec.evaluation.metrics import MetricName
from genrec.evaluation.multiple_tests import ModelTest, corrected
from genrec.evaluation.protocols import MERGED
from genrec.files import write_atomically

SECONDS = "seconds"
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
OF_ONE_SEED = " for this training"
LEVEL = 0.05


@dataclass(frozen=True)
class Claim:
    """One statement.

    Args:
        claim: The statement in words.
        first: The model that is said to be better.
        second: The other one.
        source: Where it is made.
        metric: Of which figure; `seconds` is the cost of training and recommending, where less is better.
        behavior: The asked behavior, or `merged`.
        protocol: How the log is split.
    """

    claim: str
    first: str
    second: str
    source: str = ""
    metric: str = "ndcg@10"
    behavior: str = MERGED
    protocol: str = "last-session"


@dataclass(frozen=True)
class Verdict:
    """What a log says of a claim.

    Args:
        log: The log.
        claim: The claim.
        word: `holds`, `does not hold`, `undecided` or `pending`; with one seed the first two are `for this training`.
        difference: First minus second in words, with its interval; for seconds the ratio.
        basis: What the test was over, with its corrected p-value.
    """

    log: str
    claim: Claim
    word: str
    difference: str = ""
    basis: str = ""


def read_claims(path: str | Path) -> list[Claim]:
    """Read a claims file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no list of claims, or a claim has an unknown key, lacks one, or names an unknown metric.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(f"{path} must be a list of claims, each with `claim`, `first` and `second`.")
    return [_checked(entry, number) for number, entry in enumerate(content, start=1)]


def judge(claims: Sequence[Claim], benchmark: Benchmark, runs: Runs | None, num_bootstrap: int = 5000) -> list[Verdict]:
    """Return what one log says of each claim.

    A claim holds if the paired difference is on its side and its p-value, corrected by Holm for all claims of the log,
    is below .05; it does not hold if the difference is on the other side likewise; else it is undecided. What one seed
    says is said `for this training`: its test is over users, and knows nothing of other trainings. A cost has no test:
    it holds if every seed says so. Without all seeds of both models a claim is pending.

    Args:
        claims: The claims.
        benchmark: The log's figures.
        runs: Run folders, for tests over users (see `paired_test`); None tests over seeds.
        num_bootstrap: Resamples of the tests.

    Raises:
        ValueError: If a run's figure is not the one in the benchmark file.
    """
    pairs = [_pair(benchmark, claim) for claim in claims]
    tests: dict[int, ModelTest] = {}
    for number, claim in enumerate(claims):
        place, pair = _place(claim), pairs[number]
        if claim.metric == SECONDS or pair is None:
            continue
        is_there = all(benchmark.cell(line, place) is not None for line in pair)
        if is_there and benchmark.shared_seeds(pair, place):
            tests[number] = paired_test(benchmark, place, *pair, runs, num_bootstrap)
    judged = dict(zip(tests, corrected(list(tests.values())), strict=True))
    verdicts = []
    for number, claim in enumerate(claims):
        if claim.metric == SECONDS:
            verdicts.append(_of_cost(benchmark, claim, pairs[number]))
        elif number in judged:
            verdicts.append(_of_test(benchmark.log, claim, judged[number]))
        else:
            verdicts.append(Verdict(benchmark.log, claim, PENDING))
    return verdicts


def claims_table(verdicts: Sequence[Verdict]) -> str:
    """Return verdicts as a Markdown table, claim by claim."""
    header = ["claim", "source", "log", "verdict", "difference", "over"]
    order = {verdict.claim: number for number, verdict in reversed(list(enumerate(verdicts)))}
    lines = [
        [verdict.claim.claim, verdict.claim.source, verdict.log, verdict.word, verdict.difference, verdict.basis]
        for verdict in sorted(verdicts, key=lambda verdict: order[verdict.claim])
    ]
    return markdown_table([header, *lines])


def report_claims(
    path: str | Path,
    benchmarks: Sequence[str | Path],
    *,
    runs: str | None = None,
    seeds: Sequence[int] | None = None,
    min_seeds: int | None = None,
    output: str | None = None,
    say: Callable[[str], None],
) -> None:
    """Print or write the table of a claims file over several benchmark files.

    Args:
        path: The claims file.
        benchmarks: Benchmark files.
        runs: Folder of the bench's runs, for tests over users.
        seeds: The seeds of both models of a claim; None means all that a file has.
        min_seeds: How many of them each needs; None means all. They are compared with those that both have.
        output: A Markdown file; None prints.
        say: Gets the text.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: As `read_claims` and `judge`.
    """
    claims = read_claims(path)
    files = [read_benchmark(benchmark, seeds=seeds, min_seeds=min_seeds) for benchmark in benchmarks]
    found = find_runs(runs) if runs is not None else None
    table = claims_table([verdict for benchmark in files for verdict in judge(claims, benchmark, found)])
    if output is None:
        say(table)
        return
    with write_atomically(Path(output)) as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    say(f"[claims] {output}")


def _checked(entry: dict[Any, Any], number: int) -> Claim:
    known = [each.name for each in fields(Claim)]
    for key in entry:
        if key not in known:
            raise ValueError(f"Claim {number}: {unknown_key(str(key), known, '')}")
    missing = [key for key in ("claim", "first", "second") if not entry.get(key)]
    if missing:
        raise ValueError(f"Claim {number} lacks `{missing[0]}`. A claim has `claim`, `first` and `second`.")
    claim = Claim(**entry)
    if claim.metric != SECONDS:
        MetricName.parse(claim.metric.partition("/")[0])
    return claim


def _place(claim: Claim) -> Place:
    return claim.protocol, claim.behavior, "ndcg@10" if claim.metric == SECONDS else claim.metric


def _pair(benchmark: Benchmark, claim: Claim) -> tuple[Line, Line] | None:
    """Return both models as variants of one recipe, the last in the file that has both; None if none has.

    `market` and `demo` are recipes of one log: a figure of the one says nothing beside a figure of the other.
    """
    by_recipe: dict[str, dict[str, Line]] = {}
    for line in benchmark.lines:
        if line.is_ours:
            by_recipe.setdefault(recipe_of(line.config), {})[line.model] = line
    for lines in reversed(by_recipe.values()):
        if claim.first in lines and claim.second in lines:
            return lines[claim.first], lines[claim.second]
    return None


def _of_test(log: str, claim: Claim, test: ModelTest) -> Verdict:
    is_clear = test.adjusted is not None and test.adjusted < LEVEL
    word = UNDECIDED
    if is_clear:
        word = (HOLDS if test.difference > 0 else FAILS) + (OF_ONE_SEED if test.num_seeds == 1 else "")
    interval = "" if test.low is None or test.high is None else f" [{test.low:+.4f}, {test.high:+.4f}]"
    p = "" if test.adjusted is None else f", p {test.adjusted:.3f} (Holm)"
    return Verdict(log, claim, word, f"{test.difference:+.4f}{interval}", f"{test.basis}{p}")


def _of_cost(benchmark: Benchmark, claim: Claim, pair: tuple[Line, Line] | None) -> Verdict:
    """Return the verdict on a cost, pending where a seed is missing."""
    seconds = [_seconds(line, _place(claim)) for line in pair or (None, None)]
    seeds = [seed for seed in benchmark.seeds if all(seed in each for each in seconds)]
    if len(seeds) < max(1, len(benchmark.seeds) if benchmark.min_seeds is None else benchmark.min_seeds):
        return Verdict(benchmark.log, claim, PENDING)
    ratios = [seconds[0][seed] / seconds[1][seed] for seed in seeds]
    word = HOLDS if max(ratios) < 1 else FAILS if min(ratios) > 1 else UNDECIDED
    mean = sum(ratios) / len(ratios)
    return Verdict(
        benchmark.log, claim, word, f"{mean:.2f} times [{min(ratios):.2f}, {max(ratios):.2f}]", f"{len(ratios)} seeds"
    )


def _seconds(line: Line | None, place: Place) -> dict[int, float]:
    """Return each seed's seconds, where they were measured."""
    rows = {} if line is None else line.figures.get(place, {})
    return {seed: float(row["seconds"]) for seed, row in rows.items() if row["seconds"]}
