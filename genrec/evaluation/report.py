"""`EvaluationReport`: rows of figures with intervals, the records they come from, and both as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.event_columns import as_id_array
from genrec.evaluation.protocols import MERGED
from genrec.evaluation.records import Records
from genrec.files import read_json, write_atomically, write_json

Row = dict[str, Any]
RowKey = tuple[str, str, str, str]
RunKey = tuple[str, str]


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """What one or several models reached.

    Args:
        rows: One dictionary per figure: `model`, `protocol`, `behavior` (or `merged`), `metric`, `value`, `low`, `high`
            (None where there is no interval) and `records`, how many it is a mean over.
        records: The values of every record, one element per model and protocol. May be empty: then nothing can be
            compared.
        runs: For each (model, protocol) `seconds` of recommending, `peak_mb` of the process and the `confidence` of the
            intervals.
        metadata: Anything else worth keeping, JSON-like: it is written to the report file beside the results.

    Example:
        >>> row = {"model": "gamer", "protocol": "last-session", "behavior": "merged", "metric": "ndcg@10"}
        >>> report = EvaluationReport([{**row, "value": 0.2, "low": 0.1, "high": 0.3, "records": 50}])
        >>> report.value("ndcg@10"), report.models()
        (0.2, ['gamer'])
    """

    rows: list[Row]
    records: list[Records] = field(default_factory=list)
    runs: Mapping[RunKey, Mapping[str, float]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def models(self, protocol: str | None = None) -> list[str]:
        """Return the models' names, in the order of their rows, of one protocol or of all."""
        return list(dict.fromkeys(row["model"] for row in self.rows if protocol in (None, row["protocol"])))

    def protocols(self) -> list[str]:
        """Return the protocols, in the order of their rows."""
        return list(dict.fromkeys(row["protocol"] for row in self.rows))

    def select(self, **fields: str) -> list[Row]:
        """Return the rows that have these values: `report.select(model="gamer", metric="ndcg@10")`."""
        return [row for row in self.rows if all(row[name] == value for name, value in fields.items())]

    def value(
        self, metric: str, behavior: str = MERGED, model: str | None = None, protocol: str | None = None
    ) -> float:
        """Return one figure; model and protocol may be left out where the report has only one.

        Raises:
            ValueError: If there is no such figure, or several models or protocols to choose from.
        """
        row = {"metric": metric, "behavior": behavior, "model": model, "protocol": protocol}
        found = self.select(**{name: value for name, value in row.items() if value is not None})
        if len(found) != 1:
            raise ValueError(
                f"{len(found)} rows match {row}. The report has the models {self.models()}, the protocols "
                f"{self.protocols()} and the metrics {list(dict.fromkeys(row['metric'] for row in self.rows))}."
            )
        return float(found[0]["value"])

    def records_of(self, model: str | None = None, protocol: str | None = None) -> Records:
        """Return the records of one model on one protocol; either may be left out where there is only one.

        Raises:
            ValueError: If there are none such, or several to choose from.
        """
        found = [r for r in self.records if model in (None, r.model) and protocol in (None, r.protocol)]
        if len(found) != 1:
            raise ValueError(
                f"{len(found)} runs match model={model!r}, protocol={protocol!r}; the report keeps the records of "
                f"{[(r.model, r.protocol) for r in self.records]}. Name one of them."
            )
        return found[0]

    def merge(self, other: "EvaluationReport") -> "EvaluationReport":
        """Return both reports as one; where both have a figure, the other's stands in its place."""
        rows = {_row_key(row): row for row in [*self.rows, *other.rows]}
        records = {(r.model, r.protocol): r for r in [*self.records, *other.records]}
        return EvaluationReport(
            list(rows.values()),
            list(records.values()),
            {**self.runs, **other.runs},
            {**self.metadata, **other.metadata},
        )

    def with_metadata(self, **metadata: Any) -> "EvaluationReport":
        """Return the report with these entries added to its metadata."""
        return replace(self, metadata={**self.metadata, **metadata})

    def table(self, metric: str = "ndcg@10", protocol: str | None = None, *, is_markdown: bool = False) -> str:
        """Return a table of the models, and in words whether each beats the rules. See `genrec.evaluation.tables`."""
        from genrec.evaluation.tables import report_table

        return report_table(self, metric, protocol, is_markdown=is_markdown)

    def save(self, path: str | Path) -> None:
        """Write `path` (JSON) and beside it `<name>.records.parquet` with the value of every record, atomically."""
        path = Path(path)
        if self.records:
            _write_records(records_path(path), self.records)
        else:
            records_path(path).unlink(missing_ok=True)
        runs = [{"model": model, "protocol": protocol, **run} for (model, protocol), run in self.runs.items()]
        write_json(path, {"results": self.rows, "runs": runs, "metadata": dict(self.metadata)})

    @classmethod
    def load(cls, path: str | Path) -> "EvaluationReport":
        """Read what `save` wrote; without the records file, a report without records.

        Raises:
            ValueError: If the file is no report, or is truncated.
        """
        content = read_json(path)
        if not isinstance(content, dict) or "results" not in content:
            raise ValueError(f"{path} is no evaluation report: it has no `results`. Write it with `report.save`.")
        runs = {
            (run["model"], run["protocol"]): {k: v for k, v in run.items() if k not in ("model", "protocol")}
            for run in content.get("runs", [])
        }
        records = _read_records(records_path(path)) if records_path(path).exists() else []
        return cls(content["results"], records, runs, content.get("metadata", {}))


def records_path(path: str | Path) -> Path:
    """Return where the records of a report file stand: `report.json` -> `report.records.parquet`."""
    return Path(path).with_suffix(".records.parquet")


def _row_key(row: Row) -> RowKey:
    return row["model"], row["protocol"], row["behavior"], row["metric"]


def _write_records(path: Path, records: Sequence[Records]) -> None:
    import pyarrow as pa  # not everywhere where models are evaluated
    import pyarrow.parquet as pq

    tables = [
        pa.table(
            {
                "model": pa.array([part.model] * len(part)),
                "protocol": pa.array([part.protocol] * len(part)),
                "user_id": pa.array(part.users.tolist()),
                "behavior": pa.array(part.behaviors.tolist()),
                **part.values,
            }
        )
        for part in records
    ]
    with write_atomically(path) as temporary:
        pq.write_table(pa.concat_tables(tables, promote_options="default"), temporary, compression="zstd")


def _read_records(path: Path) -> list[Records]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(path).to_pydict()
    except pa.ArrowException as error:
        raise ValueError(f"{path} is truncated or corrupt ({error}). Evaluate again, or delete it.") from error
    runs = list(zip(columns.pop("model"), columns.pop("protocol"), strict=True))
    users, behaviors = columns.pop("user_id"), np.array(columns.pop("behavior"), dtype=object)
    values = {metric: np.array(column, dtype=np.float64) for metric, column in columns.items()}
    parts = []
    for model, protocol in dict.fromkeys(runs):
        rows = np.array([row for row, run in enumerate(runs) if run == (model, protocol)])
        own = {metric: column[rows] for metric, column in values.items() if not np.isnan(column[rows]).all()}
        parts.append(Records(model, protocol, as_id_array([users[row] for row in rows]), behaviors[rows], own))
    return parts
