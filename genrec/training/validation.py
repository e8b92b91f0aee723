"""Validation during training: the exact token mean of the loss, and NDCG@10 of real recommendations."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import Subset

from genrec.data.histories import Queries
from genrec.evaluation import evaluate
from genrec.recommender import Recommender
from genrec.training.collators import IGNORED

METRIC = "ndcg@10"


@torch.no_grad()
def validation_loss(
    model: torch.nn.Module, batches: Iterable[Mapping[str, torch.Tensor]], temperature: float, accelerator: Accelerator
) -> float:
    """Return the mean loss over all label tokens of all processes' batches.

    A mean of batch means would weigh tokens by their batch.

    Raises:
        ValueError: If no token bears loss.
    """
    total = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    one = torch.ones((), device=accelerator.device)
    for batch in batches:
        num_labels = int((batch["labels"] != IGNORED).sum())
        if num_labels == 0:
            continue
        loss = model(**batch, temperature=temperature, num_items_in_batch=one).loss
        total += torch.tensor([float(loss), num_labels], dtype=torch.float64, device=total.device)
    loss_sum, num_tokens = accelerator.reduce(total, reduction="sum").tolist()
    if num_tokens == 0:
        raise ValueError("No token of the validation data bears loss. Check `num_targets` of the validation samples.")
    return loss_sum / num_tokens


def validation_subset(dataset: Any, max_samples: int | None, seed: int) -> Any:
    """Return at most `max_samples` of a map-style dataset, drawn by the seed, in their own order."""
    if dataset is None or max_samples is None or len(dataset) <= max_samples:
        return dataset
    rows = np.sort(np.random.default_rng(seed).choice(len(dataset), max_samples, replace=False))
    return dataset.select(rows) if hasattr(dataset, "select") else Subset(dataset, rows.tolist())


def ranking_subset(queries: Queries | None, max_queries: int | None, seed: int) -> Queries | None:
    """Return at most `max_queries` of the queries that have a target, drawn by the seed, in their own order."""
    if queries is None:
        return None
    rows = np.flatnonzero(queries.targets.lengths > 0)
    if max_queries is not None and len(rows) > max_queries:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_queries, replace=False))
    return queries.select(rows)


def merged_ndcg(recommender: Recommender, queries: Queries, accelerator: Accelerator) -> float:
    """Return NDCG@10 over all (user, behavior) records of the queries, each process ranking for its share of users."""
    share = queries.select(np.arange(accelerator.process_index, len(queries), accelerator.num_processes))
    total = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    if len(share):
        values = evaluate(recommender, share, metrics=[METRIC], num_bootstrap=1).records_of().values[METRIC]
        total += torch.tensor([values.sum(), len(values)], dtype=torch.float64, device=total.device)
    ndcg_sum, num_records = accelerator.reduce(total, reduction="sum").tolist()
    return float(ndcg_sum / num_records)
