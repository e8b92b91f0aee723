"""Batches for models that look at more than the user's own row: what all users did before each query's time."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.data.candidates import Asked, QueryContext
from genrec.item_tokenizers.inputs import candidate_tensors
from genrec.training.collators import Events, HistoryCollator
from genrec.training.device_dataset import column_values
from genrec.training.packing import Rows

TIMED_COLUMNS = ("times", "session_times")


class ContextCollator(HistoryCollator):
    """A `HistoryCollator` that adds times, and of each labelled interaction the items it may choose from.

    Samples need `times` and `session_times` (when the session of each interaction began): an interaction is asked for
    at the beginning of its session, and only events of all users strictly before that are counted.

    Args:
        context: What all users did; None for models that only need times.
        has_trend: Whether the model takes rising items.
        has_neighbors: Whether the model takes neighbors of the user's items.
        *arguments: As for `HistoryCollator`.
        **options: As for `HistoryCollator`.
    """

    def __init__(
        self,
        *arguments: Any,
        context: QueryContext | None = None,
        has_trend: bool = False,
        has_neighbors: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.columns = (*self.columns, *(name for name in TIMED_COLUMNS if name not in self.columns))
        self.context = context
        self.has_trend = has_trend
        self.has_neighbors = has_neighbors

    def batch(self, events: Events, rows: Rows) -> dict[str, Tensor]:
        """Return samples as a batch; candidates follow the labelled interactions, row after row."""
        order = np.argsort(rows.rows, kind="stable")  # micro-batches have rows in another order than samples
        events, rows = events.select(order), Rows(rows.rows[order], rows.starts[order], rows.lengths)
        batch = super().batch(_with_asked_times(events), rows)
        if self.context is None or not (self.has_trend or self.has_neighbors):
            return batch
        positions = np.arange(int(events.counts.sum())) - np.repeat(
            np.cumsum(events.counts) - events.counts, events.counts
        )
        labelled = np.flatnonzero(positions >= np.repeat(events.counts - events.num_targets, events.counts))
        columns = {name: column.cpu().numpy() for name, column in events.columns.items()}
        asked = Asked.of_events(columns, events.counts, labelled, self.context.num_recent)
        device = self.item_tokens.device
        candidates = candidate_tensors(
            self.context, asked, self.item_tokens.cpu(), has_trend=self.has_trend, has_neighbors=self.has_neighbors
        )
        return batch | {name: tensor.to(device) for name, tensor in candidates.items()}


def _with_asked_times(events: Events) -> Events:
    """Let each session begin when it began, even if the first interaction that is left of it came later.

    The model reads off a session's first interaction when the session was asked about.
    """
    columns = events.columns
    begins = torch.ones_like(columns["sessions"], dtype=torch.bool)
    begins[1:] = columns["sessions"][1:] != columns["sessions"][:-1]
    begins[torch.from_numpy(np.cumsum(events.counts) - events.counts)] = True
    return events._replace(
        columns={**columns, "times": torch.where(begins, columns["session_times"], columns["times"])}
    )


def reads_times(config: Any) -> bool:
    """Whether a model of this configuration takes times or candidates."""
    return bool(getattr(config, "has_mixture", False) or getattr(config, "time_context", False))


def prepared_context(context: QueryContext, *datasets: Any) -> QueryContext:
    """Return a context that has counted what rises for all times that these datasets' samples are asked at."""
    known = [column_values(dataset, "session_times") for dataset in datasets if dataset is not None]
    return context.prepared(np.concatenate(known))
