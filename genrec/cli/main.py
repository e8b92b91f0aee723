"""The `genrec` command: each subcommand is a few lines that call a function of the library.

Nothing heavy is imported here, so that `genrec --help` answers at once; each command imports what it needs.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.command_group import DefaultCommandGroup
from genrec.cli.errors import friendly_errors
from genrec.version import __version__

app = typer.Typer(
    name="genrec",
    help="From a log of behaviors to recommendations: item codes, a GAMER model, catalog-safe top-k lists.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a recipe that comes along.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated.")
]
OutputOption = Annotated[str | None, typer.Option("--output", help="The run folder [default: the recipe's].")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Replace the recipe's seed.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Run the command line."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"genrec {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """From a log of behaviors to recommendations: item codes, a GAMER model, catalog-safe top-k lists."""


@contextmanager
def _command(debug: bool, goes_on: bool = True) -> Iterator[None]:
    """Run a command's body with its library set up for a terminal and its errors made readable."""
    with friendly_errors(debug, shlex.join(["genrec", *sys.argv[1:]]) if goes_on else ""):
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from transformers.utils import logging

        from genrec.models import auto

        logging.disable_progress_bar()  # of reading and writing weights; training has its own
        auto.register()
        yield


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="A smaller market and one split: under a minute.")] = False,
    output: OutputOption = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Run the whole job on the built-in market, whose best possible score is known."""
    with _command(debug):
        from genrec.cli.demo import run_demo

        run_demo("demo-quick" if quick else "demo", output=output, seed=seed, overrides=set_ or ())


@app.command()
def run(
    recipe: RecipeArgument,
    check: Annotated[bool, typer.Option("--check", help="Only check, and estimate time and memory.")] = False,
    csv: Annotated[str | None, typer.Option("--csv", help="Append the figures to this file.")] = None,
    set_: SetOption = None,
    output: OutputOption = None,
    seed: SeedOption = None,
    debug: DebugOption = False,
) -> None:
    """Do everything a recipe says; finished stages are kept when nothing they depend on changed."""
    with _command(debug):
        from genrec.cli.check import check_run
        from genrec.cli.demo import show_folder, show_report
        from genrec.cli.recipe import load_recipe
        from genrec.cli.stages import run_stages

        overrides = [*(set_ or ()), *([f"evaluation.csv={csv}"] if csv else ())]
        loaded = load_recipe(recipe, overrides, output=output, seed=seed)
        if check:
            check_run(loaded, say=print)
            return
        finished = run_stages(loaded, say=print)
        show_report(finished)
        show_folder(finished)


def _run_until(
    stage: str, recipe: str, set_: list[str] | None, output: str | None, seed: int | None, debug: bool
) -> None:
    with _command(debug):
        from genrec.cli.recipe import load_recipe
        from genrec.cli.stages import run_stages

        run_stages(load_recipe(recipe, set_ or (), output=output, seed=seed), until=stage, say=print)


@app.command()
def prepare(
    recipe: RecipeArgument,
    set_: SetOption = None,
    output: OutputOption = None,
    seed: SeedOption = None,
    debug: DebugOption = False,
) -> None:
    """Read the log, form sessions, filter and split."""
    _run_until("prepare", recipe, set_, output, seed, debug)


@app.command()
def tokenize(
    recipe: RecipeArgument,
    set_: SetOption = None,
    output: OutputOption = None,
    seed: SeedOption = None,
    debug: DebugOption = False,
) -> None:
    """Go on until every item has its code."""
    _run_until("tokenize", recipe, set_, output, seed, debug)


@app.command()
def train(
    recipe: RecipeArgument,
    set_: SetOption = None,
    output: OutputOption = None,
    seed: SeedOption = None,
    debug: DebugOption = False,
) -> None:
    """Go on until the model is trained and its checkpoint folder written."""
    _run_until("train", recipe, set_, output, seed, debug)


@app.command()
def evaluate(
    recipe: RecipeArgument,
    set_: SetOption = None,
    output: OutputOption = None,
    seed: SeedOption = None,
    debug: DebugOption = False,
) -> None:
    """Go on until the report stands, with the rules beside the model."""
    _run_until("evaluate", recipe, set_, output, seed, debug)


@app.command()
def recommend(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder, or a repository on the Hub.")],
    histories: Annotated[
        Path | None,
        typer.Argument(help="CSV, parquet or JSON lines with item_id, behavior and, if known, user_id and timestamp."),
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option("--user", help="Only this user, of the histories or else of the run's data; may be repeated."),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Items per user.")] = 10,
    behavior: Annotated[str | None, typer.Option("--behavior", help="What to predict [default: the target].")] = None,
    num_beams: Annotated[int, typer.Option("--num-beams", min=1, help="Beam width.")] = 20,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Leave out what the user already had.")] = False,
    unknown_items: Annotated[
        str, typer.Option("--unknown-items", help="`skip` or `error`, for history items outside the catalog.")
    ] = "skip",
    at: Annotated[
        str | None,
        typer.Option("--at", help="The moment asked about, such as 2024-03-01T12:00; only what lies before it counts."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the table here (.csv, .parquet, .jsonl) instead of printing.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Recommend items for histories, or for users of the run's own data."""
    with _command(debug, goes_on=False):
        from genrec.cli.recommend import recommend_from

        recommend_from(
            checkpoint,
            histories,
            users=user or (),
            k=k,
            behavior=behavior,
            num_beams=num_beams,
            exclude_seen=exclude_seen,
            unknown_items=unknown_items,
            output=output,
            say=print,
            at=at,
        )


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A checkpoint folder, such as runs/demo/checkpoint.")],
    repo_id: Annotated[str, typer.Argument(help="`owner/name` on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    portable: Annotated[bool, typer.Option("--portable", help="Let it load where genrec is not installed.")] = False,
    license_: Annotated[str | None, typer.Option("--license", help="For the model card, such as apache-2.0.")] = None,
    debug: DebugOption = False,
) -> None:
    """Publish a checkpoint folder as one repository on the Hugging Face Hub."""
    with _command(debug, goes_on=False):
        from genrec.hub import push_folder

        address = push_folder(folder, repo_id, private=not public, portable=portable, license=license_)
        print(f"Pushed {folder} to {address}")


@app.command()
def init(
    table: Annotated[Path, typer.Argument(help="The log: CSV, parquet or JSON lines.")],
    behaviors: Annotated[
        str | None, typer.Option("--behaviors", help="The ladder, weakest first: view,cart,buy.")
    ] = None,
    items: Annotated[Path | None, typer.Option("--items", help="A table of items with their titles.")] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Where to write it [default: TABLE.yaml].")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take the guesses.")] = False,
    debug: DebugOption = False,
) -> None:
    """Look at a table, guess its columns and its ladder, and write a recipe."""
    with _command(debug, goes_on=False):
        from genrec.cli.init import write_recipe

        ask = None if yes or not sys.stdin.isatty() else typer.prompt
        path = write_recipe(table, behaviors=behaviors, items=items, recipe=recipe, ask=ask, say=print)
        print(f"Wrote {path}. Check it with `genrec run {path} --check`, then run it with `genrec run {path}`.")


bench_app = typer.Typer(cls=DefaultCommandGroup, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    bench_app, name="bench", help="Recipes over seeds: `bench RECIPE...`; their tables: `bench report CSV...`."
)


@bench_app.command("run")
def bench_run(
    recipes: Annotated[list[str], typer.Argument(help="Recipe files, or names of recipes that come along.")],
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of each recipe, as in 0,1,2.")] = "0,1,2",
    csv: Annotated[
        str, typer.Option("--csv", help="A .csv file for the figures, or a folder that gets LOG.csv.")
    ] = "benchmarks/quality",
    output: Annotated[str, typer.Option("--output", help="The runs: OUTPUT/RECIPE/seed-SEED.")] = "runs/bench",
    metrics: Annotated[str | None, typer.Option("--metrics", help="Figures to write, as in ndcg@10,hit@1.")] = None,
    tune: Annotated[
        Path | None, typer.Option("--tune", help="Search first: a YAML file of SECTION.KEY: values.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Budget of a search: settings tried [default: 8].")
    ] = None,
    trial_minutes: Annotated[
        float | None, typer.Option("--trial-minutes", help="Its training time per trial [default: 3].")
    ] = None,
    allow_other_commit: Annotated[
        bool, typer.Option("--allow-other-commit", help="Keep and go on with runs of other commits.")
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Runs at once, each with its share of the cores.")
    ] = 1,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="All runs in this process; peak memory is then that of all so far.")
    ] = False,
    set_: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Run recipes over seeds and write their figures to CSV files; run again, it goes on."""
    with _command(debug):
        from genrec.cli.bench import BenchSettings, bench, perform_run
        from genrec.cli.bench_records import seeds_in

        chosen = metrics.split(",") if metrics else None
        settings = BenchSettings(seeds_in(seeds), output, csv, set_ or (), chosen, allow_other_commit)
        tuned = {}
        if tune is not None:
            from genrec.cli.tuning import Budget, tune_all

            budget = Budget(
                Budget.trials if trials is None else trials,
                Budget.minutes if trial_minutes is None else trial_minutes,
            )
            tuned = tune_all(recipes, tune, settings, budget, say=print)
        elif trials is not None or trial_minutes is not None:
            raise ValueError(
                "`--trials` and `--trial-minutes` are the budget of a search. Add `--tune SPACE.yaml` or leave them."
            )
        if in_process and jobs > 1:
            raise ValueError("`--in-process` is for one run at a time. Leave it or `--jobs` out.")
        bench(recipes, settings, say=print, tuned=tuned, perform=perform_run if in_process else None, jobs=jobs)


@bench_app.command("report")
def bench_report(
    files: Annotated[list[Path], typer.Argument(help="Benchmark files, as `genrec bench` writes them.")],
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds of a figure [default: the file's].")] = None,
    min_seeds: Annotated[
        int | None, typer.Option("--min-seeds", help="How many of them it needs [default: all].")
    ] = None,
    models: Annotated[str | None, typer.Option("--models", help="Only these, as in gamer,qwen3.")] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", help="Columns, as in ndcg@10,hit@1.")] = None,
    metric: Annotated[str, typer.Option("--metric", help="Metric of tests and plot.")] = "ndcg@10",
    against: Annotated[
        str | None, typer.Option("--against", help="Test against this model, or `all` pairs [default: the best].")
    ] = None,
    runs: Annotated[
        str | None, typer.Option("--runs", help="The runs' folder, for tests over users instead of seeds alone.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="Write Markdown, LaTeX and a plot here instead of printing.")
    ] = None,
    allow_pending: Annotated[bool, typer.Option("--allow-pending", help="Show missing cells as `pending`.")] = False,
    debug: DebugOption = False,
) -> None:
    """Show benchmark files as tables, with paired tests between the models."""
    with _command(debug, goes_on=False):
        from genrec.cli.bench_records import seeds_in
        from genrec.cli.bench_report import TABLE_METRICS, ReportSettings, report_benchmarks

        settings = ReportSettings(
            seeds=None if seeds is None else seeds_in(seeds),
            min_seeds=min_seeds,
            models=models.split(",") if models else None,
            metrics=metrics.split(",") if metrics else TABLE_METRICS,
            metric=metric,
            against=against,
            allow_pending=allow_pending,
            runs=runs,
            output=output,
        )
        report_benchmarks(files, settings, say=print)


@bench_app.command("claims")
def bench_claims(
    claims: Annotated[Path, typer.Argument(help="A YAML list of claims: `claim`, `first`, `second` each.")],
    files: Annotated[list[Path], typer.Argument(help="Benchmark files, as `genrec bench` writes them.")],
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds of a claim [default: the file's].")] = None,
    min_seeds: Annotated[
        int | None, typer.Option("--min-seeds", help="How many of them it needs [default: all].")
    ] = None,
    runs: Annotated[str | None, typer.Option("--runs", help="The runs' folder, for tests over users.")] = None,
    output: Annotated[str | None, typer.Option("--output", help="Write Markdown here instead of printing.")] = None,
    debug: DebugOption = False,
) -> None:
    """Hold claims that one model is better or cheaper than another against benchmark files."""
    with _command(debug, goes_on=False):
        from genrec.cli.bench_claims import report_claims
        from genrec.cli.bench_records import seeds_in

        chosen = None if seeds is None else seeds_in(seeds)
        report_claims(claims, files, runs=runs, seeds=chosen, min_seeds=min_seeds, output=output, say=print)


@bench_app.command("costs")
def bench_costs(
    runs: Annotated[str, typer.Argument(help="The runs' folder: the `--output` of `genrec bench`.")] = "runs/bench",
    debug: DebugOption = False,
) -> None:
    """Show what training cost each model: parameters, seconds per epoch, epochs to the best, seconds in all."""
    with _command(debug, goes_on=False):
        from genrec.cli.bench_costs import report_costs

        report_costs(runs, say=print)
