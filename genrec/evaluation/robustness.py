"""What does a model lose when test histories lack signals that it was trained with? GAMER, appendix B.

Two kinds of perturbation, both of the histories alone; targets stay. `drop-R`: a random share of the behaviors below
the top level goes, by the rule of the augmentation (section 3.3): `R` of the lowest level, `R / 2` of the next, and so
on; a history that would lose everything stays whole, as in the release. `session-items`: what the user did before with
the items of the asked session goes.

Unlike the release, which skips users whose whole history held nothing else than items of the asked session, all users
are asked whatever was dropped, so that every perturbation is compared with the unperturbed on the same records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.data.augmentation import drop_share
from genrec.data.histories import Queries
from genrec.evaluation.comparison import compare
from genrec.evaluation.evaluator import evaluate
from genrec.evaluation.protocols import ItemSets, rows_in
from genrec.evaluation.report import EvaluationReport, Row
from genrec.recommender.base import Recommender

RATIOS = (0.25, 0.5, 0.75, 1.0)
METRICS = ("hit@5", "hit@10", "ndcg@5", "ndcg@10")
UNPERTURBED = "none"
SESSION_ITEMS = "session-items"

RobustnessRow = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Queries whose histories were changed.

    Args:
        name: `none`, `drop-0.25` and the like, or `session-items`.
        queries: The same users and targets as before.
        dropped: The share of all interactions in the histories that went.
    """

    name: str
    queries: Queries
    dropped: float


def drop_lower_behaviors(queries: Queries, ratio: float, seed: int = 0) -> Queries:
    """Thin the histories: a random share of each behavior below the top level goes.

    Args:
        queries: What is asked.
        ratio: Share of the lowest level that goes, rounded down per user; half of it of the second level, and so on.
        seed: Decides which interactions go; the same for a user, whoever else is asked.

    Returns:
        The same targets. A history that would lose everything stays whole.

    Raises:
        ValueError: If `ratio` is not between 0 and 1.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> past = as_histories([[("a", "view"), ("b", "view"), ("a", "buy")]], ["a", "b"], "view,buy")
        >>> drop_lower_behaviors(Queries(past, past), ratio=1.0).histories.behaviors.tolist()
        [1]
    """
    return Queries(drop_share(queries.histories, ratio, seed), queries.targets)


def drop_session_items(queries: Queries, keeps_target_behavior: bool = True) -> Queries:
    """Take out of each history the interactions with items that the asked session holds, under any behavior.

    Args:
        queries: What is asked.
        keeps_target_behavior: Whether interactions of the target behavior stay, as in the released code; else all
            with such an item go, as the paper's text reads.

    Returns:
        The same targets. A history may be left empty.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> past = as_histories([[("a", "view"), ("b", "view"), ("a", "buy")]], ["a", "b"], "view,buy")
        >>> session = as_histories([[("a", "view")]], ["a", "b"], "view,buy")
        >>> drop_session_items(Queries(past, session)).histories.items.tolist()
        [1, 0]
        >>> drop_session_items(Queries(past, session), keeps_target_behavior=False).histories.items.tolist()
        [1]
    """
    histories, targets = queries.histories, queries.targets
    num_items = len(histories.item_ids)
    items = rows_in(targets, histories.item_ids)
    is_known = items >= 0
    session = ItemSets.of(targets.rows[is_known], items[is_known], len(targets), num_items)
    history = histories.rows * num_items + histories.items
    is_dropped = np.isin(history, session.pairs)
    if keeps_target_behavior:
        is_dropped &= histories.behaviors != histories.ladder.index(histories.ladder.target)
    return Queries(histories.keep(~is_dropped), targets)


def perturbations(
    queries: Queries, ratios: Sequence[float] = RATIOS, seed: int = 0, keeps_target_behavior: bool = True
) -> list[Perturbed]:
    """Return the queries as they are, thinned by each ratio, and without the items of the asked session.

    Args:
        queries: What is asked.
        ratios: See `drop_lower_behaviors`.
        seed: Decides which interactions go. All ratios share it: what a smaller one drops a larger one drops too.
        keeps_target_behavior: See `drop_session_items`.

    Raises:
        ValueError: If a ratio is not between 0 and 1.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> past = as_histories([[("a", "view"), ("b", "view"), ("a", "buy")]], ["a", "b"], "view,buy")
        >>> [(each.name, round(each.dropped, 2)) for each in perturbations(Queries(past, past), ratios=[0.5])]
        [('none', 0.0), ('drop-0.5', 0.33), ('session-items', 0.67)]
    """
    changed = {UNPERTURBED: queries}
    changed |= {f"drop-{ratio:g}": drop_lower_behaviors(queries, ratio, seed) for ratio in ratios}
    changed[SESSION_ITEMS] = drop_session_items(queries, keeps_target_behavior)
    whole = max(len(queries.histories.items), 1)
    return [Perturbed(name, each, 1 - len(each.histories.items) / whole) for name, each in changed.items()]


def evaluate_robustness(
    recommender: Recommender,
    queries: Queries,
    *,
    name: str = "gamer",
    protocol: str = "last-session",
    k: int = 10,
    metrics: Sequence[str] = METRICS,
    behaviors: Sequence[str] | None = None,
    ratios: Sequence[float] = RATIOS,
    keeps_target_behavior: bool = True,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> list[RobustnessRow]:
    """Evaluate a recommender on the queries as they are and perturbed.

    Args:
        recommender: Anything with `recommend(histories, k, behavior)`.
        queries: Histories and what came next.
        name: The model's name in the rows.
        protocol: How the log was split.
        k: Length of the lists asked for.
        metrics: Ranking metrics, none deeper than `k`.
        behaviors: The behaviors to ask for; None means the target behavior, as in the paper. Histories are perturbed
            for all of them alike (the release leaves them whole where another behavior is asked).
        ratios: See `drop_lower_behaviors`.
        keeps_target_behavior: See `drop_session_items`.
        num_bootstrap: Resamples of users for the intervals.
        seed: Decides which interactions go, and the resamples.

    Returns:
        One row per perturbation, behavior and metric, as of an `EvaluationReport` (`model`, `protocol`, `behavior`,
        `metric`, `value`, `low`, `high`, `records`), with `perturbation`; `dropped`, the share of interactions that
        went; `seconds` of recommending and `peak_mb`; and against the unperturbed on the same records `change`, its
        paired interval `change_low`, `change_high`, and `relative`, the change as a share (None where nothing can be
        divided). The unperturbed comes first, its change 0.

    Raises:
        ValueError: As `evaluate`; if a ratio is not between 0 and 1.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> from genrec.recommender.rules import RecencyRecommender
        >>> past = as_histories([[("a", "buy"), ("b", "view")]], item_ids=["a", "b"], ladder="view,buy")
        >>> next_one = as_histories([[("b", "buy")]], item_ids=["a", "b"], ladder="view,buy")
        >>> rule, queries = RecencyRecommender().fit(past), Queries(past, next_one)
        >>> rows = evaluate_robustness(rule, queries, name="recency", k=1, metrics=["hit@1"], ratios=[1.0])
        >>> [(row["perturbation"], row["value"], row["relative"]) for row in rows]
        [('none', 1.0, 0.0), ('drop-1', 0.0, -1.0), ('session-items', 0.0, -1.0)]
    """
    asked = [queries.targets.ladder.target] if behaviors is None else list(behaviors)
    settings: dict[str, Any] = {"k": k, "metrics": metrics, "behaviors": asked, "num_bootstrap": num_bootstrap}
    rows: list[RobustnessRow] = []
    reference = None
    for perturbed in perturbations(queries, ratios, seed, keeps_target_behavior):
        report = evaluate(recommender, perturbed.queries, name=name, protocol=protocol, seed=seed, **settings)
        reference = reference or report
        rows += _rows(report, reference, perturbed, metrics, num_bootstrap, seed)
    return rows


def _rows(
    report: EvaluationReport,
    reference: EvaluationReport,
    perturbed: Perturbed,
    metrics: Sequence[str],
    num_bootstrap: int,
    seed: int,
) -> list[RobustnessRow]:
    """Return the rows of one perturbation, each beside the reference's."""
    (run,) = report.runs.values()
    rows = []
    for row in report.rows:
        if row["metric"] not in metrics:  # slices by item
            continue
        settings: dict[str, Any] = {"behavior": row["behavior"], "num_bootstrap": num_bootstrap, "seed": seed}
        result = compare(report, reference, row["metric"], **settings)
        rows.append(
            {
                **row,
                "perturbation": perturbed.name,
                "dropped": perturbed.dropped,
                "seconds": run["seconds"],
                "peak_mb": run["peak_mb"],
                "change": result.difference,
                "change_low": result.low,
                "change_high": result.high,
                "relative": result.relative if np.isfinite(result.relative) else None,
            }
        )
    return rows


def as_report(rows: Sequence[RobustnessRow]) -> EvaluationReport:
    """Return the rows as a report, in which a perturbation stands behind the protocol: `last-session/drop-0.5`.

    That is how benchmark files hold them; the unperturbed figures stand under the protocol alone. What a perturbation
    changed is a metric of its own, `ndcg@10/change`, with its paired interval.
    """
    kept = [row for row in rows if row["perturbation"] != UNPERTURBED]
    figures = [_figure(row, row["metric"], "value", "low", "high") for row in rows]
    figures += [_figure(row, f"{row['metric']}/change", "change", "change_low", "change_high") for row in kept]
    runs = {(row["model"], protocol_of(row)): {name: row[name] for name in ("seconds", "peak_mb")} for row in rows}
    return EvaluationReport(figures, runs=runs)


def _figure(row: RobustnessRow, metric: str, value: str, low: str, high: str) -> Row:
    place = {"model": row["model"], "protocol": protocol_of(row), "behavior": row["behavior"], "metric": metric}
    return {**place, "value": row[value], "low": row[low], "high": row[high], "records": row["records"]}


def protocol_of(row: RobustnessRow) -> str:
    """Return how benchmark files call a row's protocol and perturbation.

    Example:
        >>> protocol_of({"protocol": "temporal", "perturbation": "drop-1"})
        'temporal/drop-1'
    """
    suffix = "" if row["perturbation"] == UNPERTURBED else f"/{row['perturbation']}"
    return row["protocol"] + suffix
