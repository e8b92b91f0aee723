"""`genrec bench claims`: statements that one model is better or cheaper than another, held against benchmark files.

A claims file is a YAML list. Each claim names a `first` and a `second` model, of which the first is said to be better:
higher in `metric`, or cheaper where the metric is `seconds`. A verdict is drawn on each log by itself. With one seed it
is about the two trainings that were compared, and says so: another seed may turn it.
"""

import difflib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from genrec.cli.bench_comparisons import Runs, find_runs, paired_test
from genrec.cli.strict import unknown_key
from genrec.data.splits import PROTOCOLS
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
from genrec.evaluation.protocols import MERGED, SLICES
from genrec.evaluation.tables import RULES, UPPER_BOUND
from genrec.files import write_atomically
from genrec.presets import preset_names, variants_in

SECONDS = "seconds"
TARGET = "target"  # the behavior that is the strongest of each log
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
        behavior: The asked behavior, `merged`, or `target` for the strongest of each log.
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
        log: The log, with the configurations behind it where several of it have both models.
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
        ValueError: If it is no list of claims, or a claim has an unknown key, lacks one, has one that is no text, or
            names an unknown metric.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(f"{path} must be a list of claims, each with `claim`, `first` and `second`.")
    return [_checked(entry, number) for number, entry in enumerate(content, start=1)]


def check_names(claims: Sequence[Claim], benchmarks: Sequence[Benchmark]) -> None:
    """Refuse names that nothing has, for which a claim would be pending for ever.

    Args:
        claims: The claims.
        benchmarks: The files they are held against.

    Raises:
        ValueError: If a claim names a protocol or behavior that no file has, or a model that no file has and that
            is no variant, no preset and no rule.
    """
    lines = [line for benchmark in benchmarks for line in benchmark.lines]
    places = {place for line in lines for place in line.figures}
    protocols, behaviors = {*PROTOCOLS, *(place[0] for place in places)}, {place[1] for place in places}
    presets = (*preset_names("hub_configs"), *preset_names("variants"))
    models = {*RULES, UPPER_BOUND, *presets, *(line.model for line in lines)}
    for number, claim in enumerate(claims, start=1):
        _check_is_in(number, "protocol", claim.protocol, protocols)
        _check_is_in(number, "behavior", claim.behavior, {MERGED, TARGET, *behaviors})
        for key, name in zip(("first", "second"), _models(claim), strict=True):
            if not variants_in(name):
                _check_is_in(number, key, name, models)


def judge(claims: Sequence[Claim], benchmark: Benchmark, runs: Runs | None, num_bootstrap: int = 5000) -> list[Verdict]:
    """Return what one log says of each claim.

    A claim holds if the paired difference is on its side and its p-value, corrected by Holm for all claims of the log,
    is below .05; it does not hold if the difference is on the other side likewise; else it is undecided. What one seed
    says is said `for this training`: its test is over users, and knows nothing of other trainings. A cost has no test:
    it holds if every seed says so. Without all seeds of both models a claim is pending. Where a log has a model under
    two configurations, each has a verdict.

    Args:
        claims: The claims.
        benchmark: The log's figures.
        runs: Run folders, for tests over users (see `paired_test`); None tests over seeds.
        num_bootstrap: Resamples of the tests.

    Raises:
        ValueError: If a run's figure is not the one in the benchmark file.
    """
    asked = [(claim, log, pair) for claim in claims for log, pair in _pairs(benchmark, claim).items()]
    tests: dict[int, ModelTest] = {}
    for number, (claim, _, pair) in enumerate(asked):
        place = _place(benchmark, claim)
        if claim.metric == SECONDS or pair is None:
            continue
        is_there = all(benchmark.cell(line, place) is not None for line in pair)
        if is_there and benchmark.shared_seeds(pair, place):
            tests[number] = paired_test(benchmark, place, *pair, runs, num_bootstrap)
    judged = dict(zip(tests, corrected(list(tests.values())), strict=True))
    verdicts = []
    for number, (claim, log, pair) in enumerate(asked):
        if claim.metric == SECONDS:
            verdicts.append(_of_cost(benchmark, claim, log, pair))
        elif number in judged:
            verdicts.append(_of_test(log, claim, judged[number]))
        else:
            verdicts.append(Verdict(log, claim, PENDING))
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
        ValueError: As `read_claims`, `check_names` and `judge`.
    """
    claims = read_claims(path)
    files = [read_benchmark(benchmark, seeds=seeds, min_seeds=min_seeds) for benchmark in benchmarks]
    check_names(claims, files)
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
    for key, value in entry.items():
        if not isinstance(value, str):
            raise ValueError(f"Claim {number}: `{key}` must be text, got {value!r}. Put it in quotes, or leave it out.")
    claim = Claim(**entry)
    if claim.metric != SECONDS:
        name, _, part = claim.metric.partition("/")
        MetricName.parse(name)
        if part:
            _check_is_in(number, "metric", part, SLICES)
    return claim


def _check_is_in(number: int, key: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        ValueError: If it is not, with the nearest that are.
    """
    names = sorted(known)
    if name not in names:
        near = ", ".join(difflib.get_close_matches(name, names, n=5, cutoff=0.0))
        raise ValueError(f"Claim {number}: `{key}` names {name!r}, which is nowhere known. The nearest are: {near}.")


def _place(benchmark: Benchmark, claim: Claim) -> Place:
    behavior = benchmark.target(claim.protocol) or TARGET if claim.behavior == TARGET else claim.behavior
    return claim.protocol, behavior, "ndcg@10" if claim.metric == SECONDS else claim.metric


def _pairs(benchmark: Benchmark, claim: Claim) -> dict[str, tuple[Line, Line] | None]:
    """Return both models as variants of one recipe, by the log's name; None if no recipe has both.

    `market` and `demo` are recipes of one log: a figure of the one says nothing beside a figure of the other. Where
    several pairs of configurations have both models, all are returned, and their names say which each is.
    """
    lines = [[line for line in benchmark.lines if line.is_ours and line.model == name] for name in _models(claim)]
    pairs = [(a, b) for a, b in itertools.product(*lines) if recipe_of(a.config) == recipe_of(b.config)]
    if len(pairs) < 2:
        return {benchmark.log: pairs[0] if pairs else None}
    configs = [" and ".join(dict.fromkeys(line.config for line in pair)) for pair in pairs]
    return {f"{benchmark.log} ({config})": pair for config, pair in zip(configs, pairs, strict=True)}


def _models(claim: Claim) -> tuple[str, str]:
    return claim.first, claim.second


def _of_test(log: str, claim: Claim, test: ModelTest) -> Verdict:
    is_clear = test.adjusted is not None and test.adjusted < LEVEL
    word = UNDECIDED
    if is_clear:
        word = (HOLDS if test.difference > 0 else FAILS) + (OF_ONE_SEED if test.num_seeds == 1 else "")
    interval = "" if test.low is None or test.high is None else f" [{test.low:+.4f}, {test.high:+.4f}]"
    p = "" if test.adjusted is None else f", p {test.adjusted:.3f} (Holm)"
    return Verdict(log, claim, word, f"{test.difference:+.4f}{interval}", f"{test.basis}{p}")


def _of_cost(benchmark: Benchmark, claim: Claim, log: str, pair: tuple[Line, Line] | None) -> Verdict:
    """Return the verdict on a cost, pending where a seed is missing."""
    seconds = [_seconds(line, _place(benchmark, claim)) for line in pair or (None, None)]
    seeds = [seed for seed in benchmark.seeds if all(seed in each for each in seconds)]
    if len(seeds) < max(1, len(benchmark.seeds) if benchmark.min_seeds is None else benchmark.min_seeds):
        return Verdict(log, claim, PENDING)
    ratios = [seconds[0][seed] / seconds[1][seed] for seed in seeds]
    word = HOLDS if max(ratios) < 1 else FAILS if min(ratios) > 1 else UNDECIDED
    mean = sum(ratios) / len(ratios)
    return Verdict(log, claim, word, f"{mean:.2f} times [{min(ratios):.2f}, {max(ratios):.2f}]", f"{len(ratios)} seeds")


def _seconds(line: Line | None, place: Place) -> dict[int, float]:
    """Return each seed's seconds, where they were measured."""
    rows = {} if line is None else line.figures.get(place, {})
    return {seed: float(row["seconds"]) for seed, row in rows.items() if row["seconds"]}
