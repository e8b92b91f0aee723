"""The ablation ladder: what each part of the recommended configuration gains on a log, and what it costs.

    python -m benchmarks.quality.ladder retailrocket_gamer-plus-tiny \
        --set data.interactions=DATA/retailrocket/interactions.parquet --seeds 0,1 --output runs/ladder-retailrocket
    python -m benchmarks.quality.ladder --quick

The recipe is that of the recommended configuration, of any size. Each rung of `LADDER` is the rung it follows with some
settings changed; the first is the recipe with every addition off, which is the paper's causal model at the same size,
dropout and length of history (the branch `paper-own` has the paper's two). `time` is the recipe itself, which is held
against the best rule. Branches change one setting of it. A rung that needs the items' texts is left out, and said to
be, where the log has none.

All rungs and seeds see the same users and records: a seed decides codes, weights and batches. The rules are evaluated
once. A gain is that over the rung before (the nearest that ran, with `--rungs`) on the same records; its interval
covers who was asked and how training fell out. Training seconds are those of the stamp: `training.max_seconds` cuts
them off, and a training that was stopped and gone on with counts from there. Search is timed at the end on the first
seed's checkpoints, with one thread and the same users asked for the target behavior, all rungs in turn.

Writes `ladder.md` (the table, printed too), `ladder.csv` (or `--csv`) and, where matplotlib is installed, `ladder.png`
into `--output`, beside a run folder for each rung and seed; finished stages are kept. `--quick` trains two rungs on the
synthetic market and writes nothing unless `--output` is given. `peak_mb` is the process's so far, of all rungs.
"""

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.quality.ladder_figures import BestRule, RungFigures, RungRuns, best_rule_of, rung_figures, write_csv
from benchmarks.quality.ladder_search import search_speeds
from benchmarks.quality.ladder_table import ladder_table, plot_ladder
from genrec.cli.build import check_settings
from genrec.cli.recipe import Recipe, load_recipe
from genrec.cli.stages import run_stages
from genrec.data.catalog import Catalog
from genrec.evaluation import EvaluationReport
from genrec.files import write_atomically
from genrec.item_tokenizers.sizes import check_codebook_sizes


class Rung(NamedTuple):
    """One rung.

    Args:
        after: The rung whose settings it changes, and that it is compared with; None for the first.
        title: Its name in tables and plots.
        overrides: What changes, `section.key=value` each.
        is_branch: Whether no rung follows it.
        needs_texts: Whether it reads the items' texts.
    """

    after: str | None
    title: str
    overrides: tuple[str, ...]
    is_branch: bool = False
    needs_texts: bool = False


SWITCHES = ("session_wise", "copy_head", "trend_head", "neighbor_head", "time_context")
JOINED = "embedder={name: concat, parts: [{name: collaborative}, {name: tfidf}]}"
LADDER = {
    "paper": Rung(None, "paper model", ("model.loss_unit=item", *(f"model.{name}=false" for name in SWITCHES))),
    "sessions": Rung("paper", "+ session-true training", ("model.session_wise=true",)),
    # The weighting belongs to the mixture's loss, so it comes with the first pointer; a branch takes it away again.
    "copying": Rung("sessions", "+ copying", ("model.copy_head=true", "model.loss_unit=user")),
    "trend": Rung("copying", "+ trend", ("model.trend_head=true",)),
    "neighbors": Rung("trend", "+ neighbors", ("model.neighbor_head=true",)),
    "time": Rung("neighbors", "+ time", ("model.time_context=true",)),
    "joined-codes": Rung("time", "+ joined codes", (JOINED,), needs_texts=True),
    "item-embedding": Rung("time", "item embedding", ("model.item_embedding_rows=65536",), is_branch=True),
    "level-mixture": Rung("time", "mixture by level", ("model.mixture=level",), is_branch=True),
    "item-loss": Rung("time", "each item counts once", ("model.loss_unit=item",), is_branch=True),
    "query-loss": Rung("time", "each query counts once", ("model.loss_unit=query",), is_branch=True),
    "codes-3x256": Rung("time", "codes 3x256", ("item_tokenizer.codebook_sizes=[256, 256, 256]",), is_branch=True),
    "codes-4x256": Rung("time", "codes 4x256", ("item_tokenizer.codebook_sizes=[256, 256, 256, 256]",), is_branch=True),
    "paper-own": Rung(
        "paper", "paper's dropout, history", ("model.dropout=0.2", "model.max_history_items=100"), is_branch=True
    ),
}
RECOMMENDED = "time"
QUICK_RECIPE, QUICK_RUNGS = "demo-quick", ("paper", "time")
QUICK = (
    *("market.num_users=300", "market.num_items=100", "embedder={name: collaborative}"),
    *("item_tokenizer.codebook_sizes=[16, 16]", "model.preset=gamer-plus-tiny", "model.max_history_items=20"),
    *("training.causal_share=0", "training.augmentation_copies=0", "training.num_train_epochs=2"),
    *("evaluation.num_bootstrap=200",),
)


def overrides_of(name: str) -> list[str]:
    """Return a rung's settings over the recipe's, those of the rungs before it first.

    >>> overrides_of("sessions")[-2:]
    ['model.time_context=false', 'model.session_wise=true']
    """
    rung = LADDER[name]
    return [*(overrides_of(rung.after) if rung.after else []), *rung.overrides]


def compared_with(name: str, ran: Iterable[str]) -> str | None:
    """Return the nearest rung before this one that ran, None if none did.

    >>> compared_with("time", ["paper", "copying", "time"])
    'copying'
    """
    before = LADDER[name].after
    while before is not None and before not in ran:
        before = LADDER[before].after
    return before


def rung_recipe(
    source: str, name: str, seed: int, folder: Path, overrides: Sequence[str] = (), *, has_rules: bool = False
) -> Recipe:
    """Return the recipe of a rung and seed.

    Args:
        source: The recommended configuration's recipe: a file, or the name of one that comes along.
        name: The rung, which is also the model's name in the report.
        seed: Of codes, weights and batches. Which users are drawn stays with the recipe's own.
        folder: Where run folders lie: `<folder>/<rung>/seed-<seed>`.
        overrides: `section.key=value` each, for all rungs.
        has_rules: Whether the rules are evaluated beside it.

    Raises:
        FileNotFoundError: If there is no such recipe.
        ValueError: If the recipe is refused, or sets what must differ between seeds or rungs.
    """
    base = load_recipe(source, overrides)
    _check_base(base, overrides, name)
    fixed = "market" if base.market is not None else "data"
    data_seed = (base.market or base.data).get("seed", base.seed)
    settings = [f"{fixed}.seed={data_seed}", f"evaluation.protocols=[{base.evaluation.protocols[0]}]"]
    settings += [f"evaluation.model_name={name}", *([] if has_rules else ["evaluation.baselines=[]"])]
    output = str(folder / name / f"seed-{seed}")
    recipe = load_recipe(source, [*overrides, *overrides_of(name), *settings], seed=seed, output=output)
    return replace(recipe, hub=None, evaluation=replace(recipe.evaluation, csv=None))


def _check_base(base: Recipe, overrides: Sequence[str], name: str) -> None:
    own = {change.partition("=")[0] for change in LADDER["paper"].overrides}
    taken = next((key for key in (each.partition("=")[0] for each in overrides) if key in own), None)
    if taken is not None:
        raise ValueError(f"`--set {taken}` would be ignored: the rungs switch it on and off. Remove it.")
    if "seed" in base.training:
        raise ValueError(
            "`training.seed` of the recipe would make all seeds the same run. Remove it; `--seeds` sets it."
        )
    if LADDER[name].needs_texts and base.embedder != {"name": "collaborative"}:
        raise ValueError(
            f"The rung {name!r} joins texts to the default collaborative embedder, so the recipe's `embedder` must be "
            f"`{{name: collaborative}}`, got {base.embedder}. Leave the rung out with `--rungs`."
        )


def has_texts(catalog: Catalog) -> bool:
    """Say whether any item has a word, so that there is something to embed.

    >>> has_texts(Catalog(["a", "b"]))
    False
    """
    return any(character.isalnum() for text in catalog.texts() for character in text)


def run_ladder(plan: Mapping[str, Sequence[Recipe]]) -> dict[str, RungRuns]:
    """Run each rung's recipes, seed by seed, so that a stopped ladder has whole columns; what is finished is kept.

    Raises:
        ValueError: If a rung's codebooks are larger than the catalog, before any training.
    """
    first = next(iter(plan.values()))[0]
    rungs = _rungs_for(run_stages(first, say=print, until="prepare").prepared.catalog, plan)
    runs: dict[str, RungRuns] = {name: RungRuns([], []) for name in rungs}
    for number in range(len(plan[rungs[0]])):
        for name in rungs:
            run = run_stages(plan[name][number], say=print)
            runs[name].runs.append(run)
            runs[name].reports.append(EvaluationReport.load(run.folder.report))
    return runs


def _rungs_for(catalog: Catalog, plan: Mapping[str, Sequence[Recipe]]) -> list[str]:
    """Return the rungs that a catalog allows; say which are left out."""
    for recipes in plan.values():
        sizes = (recipes[0].item_tokenizer or {}).get("codebook_sizes")
        if isinstance(sizes, list):
            check_codebook_sizes(sizes, len(catalog))
    is_left_out = {name: LADDER[name].needs_texts and not has_texts(catalog) for name in plan}
    for name in (name for name in plan if is_left_out[name]):
        print(f"[ladder] no {name}: the items of this log have no texts")
    return [name for name in plan if not is_left_out[name]]


def figures_of(runs: Mapping[str, RungRuns]) -> tuple[list[RungFigures], BestRule | None]:
    """Return each rung's figures, and the best rule of the same records."""
    names = list(runs)
    speeds = search_speeds({name: runs[name].runs[0] for name in names})
    figures = []
    for name in names:
        before = compared_with(name, names)
        facts = {"title": LADDER[name].title, "is_branch": LADDER[name].is_branch, "against": before}
        figures.append(rung_figures(name, runs[name], runs[before] if before else None, speeds[name], **facts))
    full = RECOMMENDED if RECOMMENDED in names else [name for name in names if not LADDER[name].is_branch][-1]
    rule = best_rule_of(runs[names[0]].reports[0], figures[0].metric, full, runs[full].reports)
    return figures, rule


def plan_of(given: argparse.Namespace, folder: Path) -> dict[str, list[Recipe]]:
    """Return the recipes of each rung, one per seed, all checked.

    Raises:
        FileNotFoundError: If there is no such recipe.
        ValueError: If a rung, a seed or a setting is refused.
    """
    names = given.rungs or (QUICK_RUNGS if given.quick else tuple(LADDER))
    unknown = next((name for name in names if name not in LADDER), None)
    if unknown is not None or len(set(names)) < len(names) or LADDER[names[0]].is_branch:
        raise ValueError(f"`--rungs` takes different ones of {', '.join(LADDER)}, no branch first, got {list(names)}.")
    if not given.seeds or len(set(given.seeds)) < len(given.seeds):
        raise ValueError(f"`--seeds` takes different whole numbers like 0,1,2, got {list(given.seeds)}.")
    source, overrides = (QUICK_RECIPE, [*QUICK, *given.overrides]) if given.quick else (given.recipe, given.overrides)
    plan = {
        name: [
            rung_recipe(source, name, seed, folder, overrides, has_rules=(name, seed) == (names[0], given.seeds[0]))
            for seed in given.seeds
        ]
        for name in names
    }
    for recipes in plan.values():
        check_settings(recipes[0])
    return plan


def main(arguments: Iterable[str] | None = None) -> list[RungFigures]:
    """Run the ladder, print the table and write the files; return the figures."""
    given = _parser().parse_args(None if arguments is None else list(arguments))
    if given.quick == (given.recipe is not None):
        raise ValueError("Name a recipe like `deskdrop_gamer-plus-tiny`, or pass `--quick` for the market, not both.")
    if given.output is None and not given.quick:
        raise ValueError("The runs need a folder. Pass `--output FOLDER`.")
    kept = tempfile.TemporaryDirectory() if given.output is None else nullcontext(given.output)
    with kept as folder:
        plan = plan_of(given, Path(folder))
        runs = run_ladder(plan)
        figures, rule = figures_of(runs)
        table = ladder_table(figures, rule)
        print(f"\n{table}")
        if given.output is not None:
            config = f"{runs[figures[0].name].runs[0].recipe.name}-ladder"
            _write(table, figures, rule, given.output)
            write_csv(given.csv or given.output / "ladder.csv", figures, runs, config)
    return figures


def _write(table: str, figures: Sequence[RungFigures], rule: BestRule | None, folder: Path) -> None:
    with write_atomically(folder / "ladder.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    try:
        plot_ladder(figures, folder / "ladder.png", rule)
    except ImportError as error:
        print(f"no plot: {error}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", help="of the recommended configuration, such as deskdrop_gamer-plus-tiny")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seeds", type=_numbers, default=(0,), help="0,1,2")
    parser.add_argument("--rungs", type=_names, help=f"only these of {','.join(LADDER)}")
    parser.add_argument("--output", type=Path, help="folder of the runs and files")
    parser.add_argument("--csv", type=Path, help="file of the figures; ladder.csv in the folder without it")
    parser.add_argument("--quick", action="store_true", help="two rungs on the market: only shows that it works")
    return parser


if __name__ == "__main__":
    main()
