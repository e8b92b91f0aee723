"""What a catalog's codes are like: collisions, how the codebooks are used, how much of the vectors they keep."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch

from genrec.item_tokenizers.code_table import CodeIndex, CodeTable
from genrec.item_tokenizers.quantizers import perplexity

STATUSES = ("pass", "warn", "fail")


@dataclass(frozen=True)
class Threshold:
    """Where a figure passes and where it fails; between the two it warns.

    Args:
        passes: The last value that passes.
        fails: Values beyond this one fail. Smaller than `passes` where more is better.
        meaning: What a bad value tells.
    """

    passes: float
    fails: float
    meaning: str

    def status(self, value: float) -> str:
        """Return `"pass"`, `"warn"` or `"fail"`.

        >>> Threshold(0.1, 0.4, "").status(0.3), Threshold(0.9, 0.5, "").status(0.3)
        ('warn', 'fail')
        """
        sign = 1 if self.fails >= self.passes else -1
        return STATUSES[int(sign * value > sign * self.passes) + int(sign * value > sign * self.fails)]


THRESHOLDS = {
    "raw_collision_rate": Threshold(0.25, 0.5, "similar items are told apart by repair, not by their vectors"),
    "worst_bucket_rate": Threshold(0.01, 0.05, "many items look the same to the codebooks"),
    "collision_rate": Threshold(0.0, 0.25, "items that share a code cannot be told apart"),
    "usage": Threshold(0.75, 0.25, "codes that no item has are wasted"),
    "perplexity_rate": Threshold(0.4, 0.1, "few codes of the codebook do most of the work"),
    "reconstruction_error": Threshold(0.6, 0.95, "codes say little about the vectors"),
}
"""Figure -> threshold. Rates are shares: of the items, of a codebook's size, or of the vectors' variance."""

WORST_BUCKET = Threshold(3, 6, THRESHOLDS["worst_bucket_rate"].meaning)
"""Items on one code that any catalog may have: three pass and six do not fail, however large their share."""


@dataclass(frozen=True)
class LevelReport:
    """How one codebook is used before repair.

    Args:
        size: Codes in the codebook.
        used: Codes that at least one item has.
        dead: Codes that no item has.
        usage: `used / size`.
        perplexity: How many equally used codes would be as varied.
        perplexity_rate: `perplexity / size`; for a codebook larger than the number of items, of that number.
    """

    size: int
    used: int
    dead: int
    usage: float
    perplexity: float
    perplexity_rate: float


@dataclass(frozen=True)
class Check:
    """A figure held against its threshold."""

    name: str
    value: float
    status: str
    meaning: str


@dataclass(frozen=True)
class CodeReport:
    """Figures about a catalog's codes, each with pass, warn or fail.

    Args:
        tokenizer: Class name of the item tokenizer.
        num_items: Items in the catalog.
        codebook_sizes: Sizes after repair.
        raw_collision_rate: Share of items that would be lost if items with the same code before repair were merged:
            `1 - different codes / items`.
        worst_bucket: Most items on one code before repair.
        worst_bucket_rate: Its share of the catalog beyond the first item: `(worst bucket - 1) / items`. Its status is
            no worse than that of `worst_bucket` by itself.
        collision_rate: As `raw_collision_rate`, after repair: 0 unless collisions are kept.
        repaired_rate: Share of items whose code differs from what they asked for.
        disambiguation_size: Size of the level that repair added, 0 if none.
        levels: Use of each codebook before repair.
        reconstruction_error: Share of the vectors' variance around the training mean that the codes before repair
            lose: 0 is perfect, 1 no better than the mean. None where codes describe no vector.
    """

    tokenizer: str
    num_items: int
    codebook_sizes: tuple[int, ...]
    raw_collision_rate: float
    worst_bucket: int
    worst_bucket_rate: float
    collision_rate: float
    repaired_rate: float
    disambiguation_size: int
    levels: tuple[LevelReport, ...]
    reconstruction_error: float | None

    @property
    def checks(self) -> list[Check]:
        """Every figure that has a threshold."""
        figures: dict[str, float | None] = {
            name: getattr(self, name)
            for name in ("raw_collision_rate", "worst_bucket_rate", "collision_rate", "reconstruction_error")
        }
        for number, level in enumerate(self.levels, start=1):
            figures |= {f"level {number} usage": level.usage, f"level {number} perplexity_rate": level.perplexity_rate}
        return [self._check(name, value) for name, value in figures.items() if value is not None]

    @property
    def status(self) -> str:
        """The worst status of all checks."""
        return max((check.status for check in self.checks), key=STATUSES.index)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, checks and the status as JSON-ready values."""
        return asdict(self) | {"status": self.status, "checks": [asdict(check) for check in self.checks]}

    def to_json(self) -> str:
        """Return `to_dict()` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def to_text(self) -> str:
        """Return a table for people."""
        status = {check.name: check.status for check in self.checks}
        error = self.reconstruction_error
        lines = [
            f"{self.tokenizer}: {self.num_items} items, codebooks {list(self.codebook_sizes)}: {self.status}",
            f"  raw collision rate    {self.raw_collision_rate:8.2%}  {status['raw_collision_rate']}",
            f"  worst bucket          {self.worst_bucket:8d}  {status['worst_bucket_rate']}",
            f"  after repair          {self.collision_rate:8.2%}  {status['collision_rate']}",
            f"  repaired items        {self.repaired_rate:8.2%}",
            "  reconstruction error  "
            + ("    none" if error is None else f"{error:8.2%}  {status['reconstruction_error']}"),
            "  level   size   used   dead  perplexity",
        ]
        for number, level in enumerate(self.levels, start=1):
            level_status = max(
                (status[f"level {number} {figure}"] for figure in ("usage", "perplexity_rate")), key=STATUSES.index
            )
            counts = "  ".join(f"{count:5d}" for count in (number, level.size, level.used, level.dead))
            lines.append(f"  {counts}  {level.perplexity:10.1f}  {level_status}")
        if self.disambiguation_size:
            lines.append(f"  repair added a level of {self.disambiguation_size} codes")
        lines += [f"  {check.status}: {check.name} {check.value:.3g}: {check.meaning}" for check in self._complaints()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()

    def _check(self, name: str, value: float) -> Check:
        threshold = THRESHOLDS[name.split()[-1]]
        status = threshold.status(value)
        if name == "worst_bucket_rate":  # in a catalog of twenty, two items on one code are five percent
            status = min(status, WORST_BUCKET.status(self.worst_bucket), key=STATUSES.index)
        return Check(name, value, status, threshold.meaning)

    def _complaints(self) -> list[Check]:
        return [check for check in self.checks if check.status != "pass"]


def report_codes(table: CodeTable, tokenizer: str) -> CodeReport:
    """Compute the report of a code table.

    Args:
        table: Items and codes.
        tokenizer: Class name, for the heading.
    """
    num_raw = table.raw_codes.shape[1]
    raw_sizes = table.codebook_sizes[:num_raw]
    buckets = torch.bincount(CodeIndex(table.raw_codes, raw_sizes).numbers)
    kept = CodeIndex(table.codes, table.codebook_sizes).first_rows
    changed = (table.codes[:, :num_raw] != table.raw_codes).any(dim=1) | (table.codes[:, num_raw:] > 0).any(dim=1)
    num_items = len(table)
    return CodeReport(
        tokenizer=tokenizer,
        num_items=num_items,
        codebook_sizes=tuple(table.codebook_sizes),
        raw_collision_rate=1 - len(buckets) / num_items,
        worst_bucket=int(buckets.max()),
        worst_bucket_rate=(int(buckets.max()) - 1) / num_items,
        collision_rate=1 - len(kept) / num_items,
        repaired_rate=int(changed.sum()) / num_items,
        disambiguation_size=table.codebook_sizes[-1] if len(table.codebook_sizes) > num_raw else 0,
        levels=tuple(_report_level(table.raw_codes[:, level], size) for level, size in enumerate(raw_sizes)),
        reconstruction_error=_reconstruction_error(table.errors),
    )


def _report_level(codes: torch.Tensor, size: int) -> LevelReport:
    counts = torch.bincount(codes, minlength=size)
    used = int((counts > 0).sum())
    variety = perplexity(counts)
    return LevelReport(size, used, size - used, used / size, variety, variety / min(size, len(codes)))


def _reconstruction_error(errors: torch.Tensor | None) -> float | None:
    if errors is None:
        return None
    error, deviation = errors.double().sum(dim=0).tolist()
    return error / deviation if deviation > 0 else 0.0
