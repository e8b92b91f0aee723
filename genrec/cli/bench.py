"""`genrec bench`: recipes over seeds, each run in a folder and a process of its own, figures in one CSV file per log.

A stopped bench goes on where it was: a pair of recipe and seed that is finished is not run again, and a run that was
stopped midway keeps its finished stages. Several runs may go on at once, each with its share of the cores; figures are
then written one after the other, by the process that waits for them.
"""

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from genrec.cli import evaluating
from genrec.cli.bench_records import (
    ERROR_FILE,
    LOG_FILE,
    BenchRun,
    begin,
    check_commit,
    check_siblings,
    is_finished,
    read_record,
)
from genrec.cli.build import check_settings, data_fingerprint
from genrec.cli.errors import is_user_error, message_of
from genrec.cli.provenance import commit, peak_megabytes, provenance
from genrec.cli.recipe import Recipe, load_recipe
from genrec.cli.stages import Run, run_stages
from genrec.evaluation.benchmark_csv import read_benchmark_csv
from genrec.evaluation.metrics import MetricName, default_metrics
from genrec.files import write_json
from genrec.version import __version__

THREADS = "OMP_NUM_THREADS"
Perform = Callable[[BenchRun, Callable[[str], None]], None]


@dataclass(frozen=True)
class BenchSettings:
    """How a bench is run.

    Args:
        seeds: The seeds of each recipe.
        output: Folder of the runs: `<output>/<recipe>/seed-<seed>`.
        csv: A `.csv` file for all figures, or a folder that gets `<log>.csv`.
        overrides: `section.key=value` each, for all recipes.
        metrics: Which figures of the reports are written; None means the usual ones.
        allow_other_commit: Whether run folders of other commits are kept and gone on with.
    """

    seeds: Sequence[int] = (0, 1, 2)
    output: str = "runs/bench"
    csv: str = "benchmarks/quality"
    overrides: Sequence[str] = ()
    metrics: Sequence[str] | None = None
    allow_other_commit: bool = False

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`--seeds` takes different whole numbers like 0,1,2, got {list(self.seeds)}.")
        for name in self.metrics or ():
            MetricName.parse(name.partition("/")[0])


def bench(
    recipes: Sequence[str],
    settings: BenchSettings,
    *,
    say: Callable[[str], None],
    tuned: Mapping[str, dict[str, Any]] | None = None,
    perform: Perform | None = None,
    jobs: int = 1,
) -> list[BenchRun]:
    """Run recipes over seeds and write their figures; what is finished is kept.

    Args:
        recipes: Recipe files, or names of recipes that come along, perhaps with variants (`deskdrop+sasrec`).
        settings: Seeds, places and metrics.
        say: Gets one line for each thing that happens.
        tuned: By recipe's name the settings that a search chose.
        perform: What runs one run; None means in a fresh process, so that its peak memory is its own.
        jobs: How many runs go on at once. With more than one, each gets its share of the cores and says what it does
            in `log.txt` in its folder.

    Returns:
        All runs, in the order they were run: seed by seed, so that a stopped bench has whole columns.

    Raises:
        FileNotFoundError: If a recipe or a data set does not exist; nothing was run.
        ValueError: If a recipe, a metric or a run folder is refused, before anything is run; or at the end, if runs
            failed.
    """
    if jobs < 1:
        raise ValueError(f"`--jobs` takes a number of runs from 1, got {jobs}.")
    runs = plan(recipes, settings, tuned or {})
    check_siblings(runs)  # not in `plan`, which a search asks before it has chosen the settings
    waiting = [run for run in runs if not is_finished(run)]
    for run in runs:
        if run not in waiting:
            say(f"[bench] {run}: kept, finished before")
            write_figures(run)
    in_a_process = perform_in_a_process if jobs == 1 else perform_in_a_quiet_process
    failures = _run_all(waiting, perform or in_a_process, say, jobs)
    say(f"[bench] {len(runs) - len(failures)} of {len(runs)} runs finished, figures in {_files(runs)}")
    if failures:
        lines = [f"  {run}: {message} (see {run.recipe.folder / ERROR_FILE})" for run, message in failures]
        raise ValueError("\n".join([f"{len(failures)} of {len(runs)} runs failed; the others are done:", *lines]))
    return runs


def plan(
    recipes: Sequence[str], settings: BenchSettings, tuned: Mapping[str, dict[str, Any]] | None = None
) -> list[BenchRun]:
    """Return all runs, seed by seed, after checking each one.

    Raises:
        FileNotFoundError: As `bench`.
        ValueError: As `bench`.
    """
    measured = commit() or __version__
    runs = []
    for seed in settings.seeds:
        for source in recipes:
            recipe = load_bench_recipe(source, settings, seed)
            chosen = (tuned or {}).get(recipe.name, {})
            if chosen:
                recipe = load_bench_recipe(source, settings, seed, chosen)
            csv = csv_of(recipe, settings.csv)
            runs.append(BenchRun(recipe, measured, csv, settings.metrics, chosen))
    _check_names(runs)
    for run in runs:
        check_settings(run.recipe)
        _check_metrics(run)
        data_fingerprint(run.recipe)
        read_benchmark_csv(run.csv)
        check_commit(run, settings.allow_other_commit)
    return runs


def load_bench_recipe(
    source: str, settings: BenchSettings, seed: int, chosen: Mapping[str, Any] | None = None
) -> Recipe:
    """Return a recipe with a run's seed and folder.

    Args:
        source: A file, or the name of a recipe that comes along.
        settings: Those of the bench.
        seed: The run's seed.
        chosen: Settings to put over the recipe's, `section.key` -> value.

    Raises:
        FileNotFoundError: If there is no such recipe.
        ValueError: If the recipe is refused, or has a training seed of its own.
    """
    overrides = [*settings.overrides, *as_overrides(chosen or {})]
    recipe = load_recipe(source, overrides, seed=seed)
    if "seed" in recipe.training:
        raise ValueError(
            f"`training.seed` of the recipe {recipe.name!r} would make all seeds the same run. Remove it; "
            "`--seeds` sets it."
        )
    return replace(recipe, output=str(Path(settings.output) / recipe.name / f"seed-{seed}"), hub=None)


def as_overrides(chosen: Mapping[str, Any]) -> list[str]:
    """Return settings as `--set` takes them.

    >>> as_overrides({"training.learning_rate": 0.001, "model.session_wise": True})
    ['training.learning_rate=0.001', 'model.session_wise=true']
    """
    return [
        f"{key}={yaml.safe_dump(value, default_flow_style=True).removesuffix(chr(10)).removesuffix('...').strip()}"
        for key, value in chosen.items()
    ]


def csv_of(recipe: Recipe, target: str) -> Path:
    """Return the file of a recipe's figures: `target`, or in the folder `target` that of the recipe's log.

    A recipe is called `<log>` or `<log>_<model>`; those of the built-in market write to `market.csv`.

    >>> str(csv_of(Recipe("deskdrop_sasrec"), "benchmarks/quality"))
    'benchmarks/quality/deskdrop.csv'
    """
    if Path(target).suffix == ".csv":
        return Path(target)
    return Path(target) / f"{'market' if recipe.market is not None else recipe.name.partition('_')[0]}.csv"


def perform_run(run: BenchRun, say: Callable[[str], None]) -> None:
    """Run one run in this process, and keep its record."""
    record = begin(run)
    finished = run_stages(replace(run.recipe, evaluation=replace(run.recipe.evaluation, csv=None)), say=say)
    (run.recipe.folder / ERROR_FILE).unlink(missing_ok=True)
    measured = {"peak_mb": max(peak_megabytes(), record["peak_mb"]), "peak_gpu_mb": _peak_gpu_megabytes()}
    facts = {**provenance(), "commit": run.commit}
    write_json(run.record, {**record, "seconds": _seconds(finished), **measured, **facts})


def perform_in_a_process(run: BenchRun, say: Callable[[str], None], log: Path | None = None) -> None:
    """Run one run in a fresh process, so that peak memory and crashes are its own.

    Args:
        run: The run.
        say: Not used: the process prints for itself.
        log: Where to; None means to the screen.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(_in_child, run, log).result()


def perform_in_a_quiet_process(run: BenchRun, say: Callable[[str], None]) -> None:
    """Run one run in a fresh process that says what it does in `log.txt` in its folder."""
    run.recipe.folder.mkdir(parents=True, exist_ok=True)
    perform_in_a_process(run, say, log=run.recipe.folder / LOG_FILE)


def write_figures(run: BenchRun) -> None:
    """Write a finished run's figures into its CSV file, as those of the commit that measured them."""
    record = read_record(run)
    assert record is not None
    evaluating.write_figures(Run(run.recipe, print), run.csv, record["commit"], run.metrics, record["peak_mb"])


def _run_all(
    waiting: Sequence[BenchRun], perform: Perform, say: Callable[[str], None], jobs: int
) -> list[tuple[BenchRun, str]]:
    """Run all, so many at once, and return those that failed with what went wrong."""
    failures, started, total = [], time.perf_counter(), len(waiting)
    one_writes = threading.Lock()

    def attempt(number: int, run: BenchRun) -> tuple[int, BenchRun, Exception | None]:
        say(f"[bench {number}/{total}] {run}")
        try:
            perform(run, say)
            with one_writes:
                write_figures(run)
        except Exception as error:  # one failure must not stop the others; all are reported at the end
            return number, run, error
        return number, run, None

    for num_done, (number, run, error) in enumerate(_at_once(attempt, waiting, jobs), start=1):
        if error is not None:
            failures.append((run, _keep_error(run, error)))
        passed = time.perf_counter() - started
        times = f"{clock(passed)} so far, about {clock(passed / num_done * (total - num_done))} left"
        say(f"[bench {number}/{total}] {run}: {'done' if error is None else 'FAILED'}; {times}")
    return failures


def _at_once(attempt: Callable[[int, BenchRun], Any], waiting: Sequence[BenchRun], jobs: int) -> Iterator[Any]:
    """Yield what each attempt returns as soon as it is over, `jobs` of them at a time; they are numbered from 1."""
    numbered = enumerate(waiting, start=1)
    if jobs == 1:
        yield from (attempt(number, run) for number, run in numbered)
        return
    with _share_of_cores(jobs), ThreadPoolExecutor(jobs) as threads:
        try:
            for future in as_completed([threads.submit(attempt, number, run) for number, run in numbered]):
                yield future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _share_of_cores(jobs: int) -> Iterator[None]:
    """Have processes that start meanwhile use their share of the cores, unless the environment says how many."""
    if jobs == 1 or THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = str(max(1, (os.cpu_count() or 1) // jobs))
    try:
        yield
    finally:
        del os.environ[THREADS]


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds.

    >>> clock(3725), clock(65.4)
    ('1:02:05', '1:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _keep_error(run: BenchRun, error: Exception) -> str:
    """Write the traceback into the run folder and return the error in one line."""
    run.recipe.folder.mkdir(parents=True, exist_ok=True)
    (run.recipe.folder / ERROR_FILE).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    text = message_of(error)
    return text if is_user_error(error) else f"{type(error).__name__}: {text}"


def _in_child(run: BenchRun, log: Path | None) -> None:
    """Run one run in the child process, which ends when its parent is killed: two must not write to one folder.

    The commit is asked for again: it may have changed while earlier runs went on, and a new process reads new code.
    """
    from transformers.utils import logging

    from genrec.models import auto

    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(file.fileno(), stream.fileno())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    logging.disable_progress_bar()
    auto.register()
    perform_run(replace(run, commit=commit() or __version__), lambda line: print(line, flush=True))


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _seconds(finished: Run) -> dict[str, float]:
    """Return the time of each stage, as its stamp keeps it, and of all."""
    stages = ["prepare"]
    for protocol in finished.recipe.evaluation.protocols:
        stages += [f"{protocol}/tokenize", f"{protocol}/train"]
    times = {name: finished.kept.seconds_of(name) for name in [*stages, "evaluate"]}
    return {**times, "all": round(sum(times.values()), 1)}


def _peak_gpu_megabytes() -> int:
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e6) if torch.cuda.is_available() else 0


def _check_names(runs: Sequence[BenchRun]) -> None:
    """Refuse two recipes of one name, which would share folders and rows.

    Raises:
        ValueError: If there are two.
    """
    (folder, count), *_ = Counter(run.recipe.folder for run in runs).most_common(1)
    if count > 1:
        raise ValueError(f"{count} of the recipes would run in {folder}. Give each its own `name`.")


def _check_metrics(run: BenchRun) -> None:
    """Refuse a chosen metric that the run's report will not have.

    Raises:
        ValueError: If there is one.
    """
    known = default_metrics(run.recipe.evaluation.k)
    for name in run.metrics or ():
        if name.partition("/")[0] not in known:
            raise ValueError(
                f"The report of {run.recipe.name!r} has no {name!r}, for `evaluation.k` is "
                f"{run.recipe.evaluation.k}. It has: {', '.join(known)}."
            )


def _files(runs: Sequence[BenchRun]) -> str:
    return ", ".join(dict.fromkeys(str(run.csv) for run in runs))
