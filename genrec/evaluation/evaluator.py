"""`evaluate`: ask a recommender for what users did next, and report how often it was right."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from genrec.data.histories import Histories, Queries
from genrec.evaluation.bootstrap import bootstrap_sums, means_of, percentile_interval, sums_by_user
from genrec.evaluation.metrics import MetricName, coverage, default_metrics, novelty, seen_share
from genrec.evaluation.protocols import MERGED, Task, rows_between, rows_in, task_of
from genrec.evaluation.records import Records
from genrec.evaluation.report import EvaluationReport, Row
from genrec.recommender.base import NO_ITEM, Recommendations, Recommender

QUERIES_PER_CALL = 1024


def evaluate(
    recommender: Recommender,
    queries: Queries,
    *,
    name: str = "gamer",
    protocol: str = "last-session",
    k: int = 10,
    metrics: Sequence[str] | None = None,
    behaviors: Sequence[str] | None = None,
    train: Histories | None = None,
    num_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> EvaluationReport:
    """Evaluate on item ids, over the whole catalog, seen items included.

    A record is one user asked for one behavior, see `genrec.evaluation.protocols`. The report has rows for each
    behavior, whose last one is the target-behavior protocol, and, if all behaviors were asked, for `merged`. Rows of a
    slice are named `ndcg@10/cold`: ranking metrics at k with only those targets counted as right.

    Args:
        recommender: Anything with `recommend(histories, k, behavior)`. Its catalog may differ from that of the
            queries: items are matched by id. If it has `recommend_each(histories, k, behaviors)`, which answers with
            one `Recommendations` per behavior, users with several asked behaviors are asked once.
        queries: Histories and what came next.
        name: The model's name in the report.
        protocol: How the log was split, written to the report.
        k: Length of the lists asked for.
        metrics: Names such as `ndcg@10`, none deeper than `k`; None means `default_metrics(k)`.
        behaviors: The behaviors to ask for; None means all of the ladder.
        train: Training histories: what `cold`, `warm` and novelty refer to, which are left out without it.
        num_bootstrap: Resamples of users for the intervals.
        confidence: Probability that an interval covers.
        seed: Seed of the resamples.
        progress: Whether to show a progress bar on the error stream.

    Raises:
        ValueError: If a metric is unknown or deeper than `k`, a behavior is unknown, no query has a target of the
            asked behaviors, or the recommender gives a repeated item or lists of a wrong shape.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> from genrec.recommender.rules import RecencyRecommender
        >>> past = as_histories([[("a", "view")], [("b", "view")]], item_ids=["a", "b"], ladder="view")
        >>> future = as_histories([[("a", "view")], [("a", "view")]], item_ids=["a", "b"], ladder="view")
        >>> report = evaluate(RecencyRecommender().fit(past), Queries(past, future), k=1, metrics=["hit@1"])
        >>> report.value("hit@1")
        0.5
    """
    names = [MetricName.parse(metric) for metric in (metrics if metrics is not None else default_metrics(k))]
    _check_cutoffs(names, k)
    asked = list(dict.fromkeys(queries.targets.ladder.names if behaviors is None else behaviors))
    tasks = [task for behavior in asked if len(task := task_of(queries, behavior))]
    if not tasks:
        raise ValueError(
            f"None of the {len(queries)} queries has a target of {asked}. Check the split, or ask for other behaviors."
        )
    item_counts = None if train is None else _item_counts(train, queries.histories.item_ids)
    started = time.perf_counter()
    lists = _ask(recommender, queries, tasks, k, progress)
    seconds = time.perf_counter() - started
    records = _records(name, protocol, queries, tasks, lists, names, item_counts, k)
    has_merged = behaviors is None
    rows = [
        *_rows(records, has_merged, num_bootstrap, confidence, seed),
        *_coverage_rows(records, tasks, lists, names, len(queries.histories.item_ids), has_merged),
    ]
    run = {"seconds": round(seconds, 3), "peak_mb": round(peak_memory_mb(), 1), "confidence": confidence}
    return EvaluationReport(rows, [records], {(name, protocol): run})


def peak_memory_mb() -> float:
    """Return the most memory this process has held so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _check_cutoffs(names: list[MetricName], k: int) -> None:
    for metric in names:
        if metric.k > k:
            raise ValueError(f"The metric '{metric}' looks at {metric.k} items, but `k` asks for {k}. Raise `k`.")


def _item_counts(train: Histories, item_ids: np.ndarray) -> np.ndarray:
    """Return training events per catalog row, `[items]`."""
    items = rows_in(train, item_ids)
    return np.bincount(items[items >= 0], minlength=len(item_ids))


def _ask(recommender: Recommender, queries: Queries, tasks: list[Task], k: int, progress: bool) -> list[np.ndarray]:
    """Return each task's lists, `[records, k]`: rows of the queries' catalog, -1 where there is no such item."""
    item_ids = answer_ids = queries.histories.item_ids
    mapped = np.arange(len(item_ids))
    lists = [np.full((len(task), k), NO_ITEM, dtype=np.int64) for task in tasks]
    with tqdm(total=sum(map(len, tasks)), desc="evaluate", unit="record", disable=not progress) as bar:
        for rows, asked in _calls(tasks, len(queries), hasattr(recommender, "recommend_each")):
            behaviors = [tasks[number].behavior for number in asked]
            answers = _answers(recommender, queries.histories.select(rows), behaviors, k)
            for number, answer in zip(asked, answers, strict=True):
                _check_lists(answer, len(rows), k)
                if answer.item_ids is not answer_ids:
                    answer_ids, mapped = answer.item_ids, rows_between(answer.item_ids, item_ids)
                items = np.where(answer.items == NO_ITEM, NO_ITEM, mapped[answer.items])
                lists[number][np.searchsorted(tasks[number].rows, rows)] = items
                bar.update(len(rows))
    return lists


def _calls(tasks: list[Task], num_queries: int, has_shared_prompts: bool) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Yield query rows to ask at once, and the numbers of the tasks that ask them.

    Where one prompt serves several behaviors, a user is asked once for all of hers; else task by task.
    """
    groups = _groups_of_users(tasks, num_queries) if has_shared_prompts else []
    for rows, asked in groups or [(task.rows, [number]) for number, task in enumerate(tasks)]:
        for start in range(0, len(rows), QUERIES_PER_CALL):
            yield rows[start : start + QUERIES_PER_CALL], asked


def _groups_of_users(tasks: list[Task], num_queries: int) -> list[tuple[np.ndarray, list[int]]]:
    """Return query rows that the same tasks ask, and the numbers of these tasks."""
    groups: list[tuple[np.ndarray, list[int]]] = [(np.arange(num_queries), [])]
    for number, task in enumerate(tasks):
        is_asked = np.zeros(num_queries, dtype=bool)
        is_asked[task.rows] = True
        others = [(rows[~is_asked[rows]], asked) for rows, asked in groups]
        groups = [(rows[is_asked[rows]], [*asked, number]) for rows, asked in groups] + others
    return [(rows, asked) for rows, asked in groups if asked and len(rows) > 0]


def _answers(recommender: Recommender, histories: Histories, behaviors: list[str], k: int) -> list[Recommendations]:
    """Return the lists for each of the behaviors."""
    if len(behaviors) == 1:
        return [recommender.recommend(histories, k=k, behavior=behaviors[0])]
    answers = recommender.recommend_each(histories, k=k, behaviors=behaviors)  # type: ignore[attr-defined]
    return [answers[behavior] for behavior in behaviors]


def _check_lists(answer: Recommendations, num_rows: int, k: int) -> None:
    if answer.items.shape != (num_rows, k):
        raise ValueError(f"`recommend` must give {k} places for each of {num_rows} users, got {answer.items.shape}.")
    ordered = np.sort(answer.items, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_ITEM)
    if repeated.any():
        row, place = np.argwhere(repeated)[0]
        item = answer.item_ids[ordered[row, place]]
        raise ValueError(f"`recommend` gave the item {item!r} twice to one user. A list must not repeat an item.")


def _records(
    name: str,
    protocol: str,
    queries: Queries,
    tasks: list[Task],
    lists: list[np.ndarray],
    names: list[MetricName],
    item_counts: np.ndarray | None,
    k: int,
) -> Records:
    per_task = [_task_values(task, items, names, item_counts, k) for task, items in zip(tasks, lists, strict=True)]
    return Records(
        model=name,
        protocol=protocol,
        users=np.concatenate([queries.histories.users[task.rows] for task in tasks]),
        behaviors=np.repeat(np.array([task.behavior for task in tasks], dtype=object), [len(task) for task in tasks]),
        values={metric: np.concatenate([values[metric] for values in per_task]) for metric in per_task[0]},
    )


def _task_values(
    task: Task, items: np.ndarray, names: list[MetricName], item_counts: np.ndarray | None, k: int
) -> dict[str, np.ndarray]:
    """Return every metric's value per record of one behavior, `[records]` each."""
    values = {}
    hits, sizes = task.targets.contains(items), task.targets.sizes
    for metric in names:
        if metric.is_ranking:
            values[str(metric)] = metric.compute(hits, sizes)
        elif metric.base == "novelty" and item_counts is not None:
            values[str(metric)] = novelty(items[:, : metric.k], item_counts)
        elif metric.base == "seen":
            values[str(metric)] = seen_share(items[:, : metric.k], task.seen.contains(items[:, : metric.k]))
    for slice_name, targets in task.slices(item_counts).items():
        hits, sizes = targets.contains(items), targets.sizes
        for metric in names:
            if metric.is_ranking and metric.k == k:
                counted = np.where(sizes > 0, metric.compute(hits, np.maximum(sizes, 1)), np.nan)
                values[f"{metric}/{slice_name}"] = counted
    return values


def _rows(records: Records, has_merged: bool, num_bootstrap: int, confidence: float, seed: int) -> list[Row]:
    """Return one row per behavior and metric that has a record, with its interval."""
    users, num_users = records.user_numbers()
    table = np.stack(list(records.values.values()))
    behaviors = [records.is_in(behavior) for behavior in records.groups(has_merged=False)]
    per_behavior = [sums_by_user(table[:, is_in].T, users[is_in], num_users) for is_in in behaviors]
    sums, counts = (np.concatenate(parts, axis=1) for parts in zip(*per_behavior, strict=True))
    figures = [*bootstrap_sums(sums, counts, num_bootstrap, seed), sums.sum(axis=0), counts.sum(axis=0)]
    if has_merged:
        figures = [_with_merged(part, len(behaviors)) for part in figures]
    drawn_sums, drawn_counts, totals, numbers = figures
    low, high = percentile_interval(means_of(drawn_sums, drawn_counts), confidence)
    cells = [(group, metric) for group in records.groups(has_merged) for metric in records.values]
    return [
        _row(records, *cell, totals[i] / numbers[i], low[i], high[i], int(numbers[i]))
        for i, cell in enumerate(cells)
        if numbers[i] > 0
    ]


def _with_merged(figures: np.ndarray, num_behaviors: int) -> np.ndarray:
    """Append to the figures of each behavior, `[..., behaviors * metrics]`, their sums over behaviors."""
    by_behavior = figures.reshape(*figures.shape[:-1], num_behaviors, -1)
    return np.concatenate([figures, by_behavior.sum(axis=-2)], axis=-1)


def _coverage_rows(
    records: Records,
    tasks: list[Task],
    lists: list[np.ndarray],
    names: list[MetricName],
    num_items: int,
    has_merged: bool,
) -> list[Row]:
    """Return rows of coverage, which belongs to a set of lists and so has no interval over users."""
    groups = {task.behavior: items for task, items in zip(tasks, lists, strict=True)}
    if has_merged:
        groups[MERGED] = np.concatenate(lists)
    return [
        _row(records, group, str(metric), coverage(items[:, : metric.k], num_items), None, None, len(items))
        for group, items in groups.items()
        for metric in names
        if metric.base == "coverage"
    ]


def _row(
    records: Records, behavior: str, metric: str, value: float, low: float | None, high: float | None, number: int
) -> Row:
    return {
        "model": records.model,
        "protocol": records.protocol,
        "behavior": behavior,
        "metric": metric,
        "value": float(value),
        "low": None if low is None or np.isnan(low) else float(low),
        "high": None if high is None or np.isnan(high) else float(high),
        "records": number,
    }
