"""`genrec demo`: the built-in market through every stage, then figures, three users and where everything lies."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genrec.cli.evaluating import load_recommender, metric_of
from genrec.cli.recipe import load_recipe
from genrec.cli.stages import Run, run_stages
from genrec.evaluation import EvaluationReport

if TYPE_CHECKING:
    from genrec.data import Histories

USERS_SHOWN = 3
ITEMS_SHOWN = 5
EVENTS_SHOWN = 6


def run_demo(
    recipe: str, *, output: str | None, seed: int | None, overrides: Sequence[str], say: Callable[[str], None] = print
) -> None:
    """Run a market recipe and show what came out.

    Args:
        recipe: `demo` or `demo-quick`, or another recipe with a market.
        output: The run folder; None takes the recipe's.
        seed: Replaces the recipe's seed.
        overrides: `section.key=value` each.
        say: Gets the lines that are printed.
    """
    run = run_stages(load_recipe(recipe, overrides, output=output, seed=seed), say=say)
    show_report(run)
    show_users(run)
    show_folder(run)


def show_report(run: Run) -> None:
    """Print the table of the models, whether the model beats the rules, and its share of the upper bound."""
    report = EvaluationReport.load(run.folder.report)
    for protocol in run.recipe.evaluation.protocols:
        run.say("\n" + report.table(metric_of(run), protocol))


def show_users(run: Run) -> None:
    """Print three test users: the end of their history, their top items by title, and what they did next."""
    queries = run.prepared.split(run.folder.primary).test
    rows = np.random.default_rng(run.recipe.seed).permutation(len(queries))[:USERS_SHOWN]
    shown = queries.select(np.sort(rows))
    titles = run.prepared.catalog.titles()
    lists = load_recommender(run, run.folder.primary).recommend(shown.histories, k=ITEMS_SHOWN)
    row_of = {item_id: row for row, item_id in enumerate(run.prepared.catalog.item_ids.tolist())}
    for user, recommendation in enumerate(lists):
        run.say(f"\nuser {shown.histories.users[user]}")
        run.say("  did:  " + _told(shown.histories, user, titles))
        for rank, item_id in enumerate(recommendation.item_ids, start=1):
            run.say(f"  top {rank}: {titles[row_of[item_id]]}")
        run.say("  next: " + _told(shown.targets, user, titles))


def show_folder(run: Run) -> None:
    """Print where everything lies, and what to do with it."""
    folder, checkpoint = run.folder, run.folder.checkpoint(run.folder.primary)
    run.say(f"\ncheckpoint  {checkpoint}")
    run.say(f"report      {folder.report}")
    run.say(f"recipe      {folder.recipe}")
    if folder.plots.is_dir():
        run.say(f"plots       {folder.plots}")
    user = run.prepared.histories.users[0]
    run.say(f"\nNext: genrec recommend {checkpoint} --user {user}")


def _told(histories: "Histories", row: int, titles: Sequence[str]) -> str:
    """Return the last few interactions of a row in words."""
    history = histories[row]
    names = histories.ladder.names
    events = [f"{names[behavior]} {titles[item]}" for item, behavior in zip(history.items, history.behaviors)]
    return ("... " if len(events) > EVENTS_SHOWN else "") + "; ".join(events[-EVENTS_SHOWN:])
