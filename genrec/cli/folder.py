"""Where everything of a run lies."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    Args:
        root: The folder.
        primary: The protocol whose checkpoint is `checkpoint/`; others keep theirs in a folder of their own.

    Example:
        >>> folder = RunFolder(Path("runs/demo"), primary="last-session")
        >>> str(folder.checkpoint("last-session")), str(folder.checkpoint("temporal"))
        ('runs/demo/checkpoint', 'runs/demo/temporal/checkpoint')
    """

    root: Path
    primary: str

    @property
    def recipe(self) -> Path:
        """The recipe as it was run."""
        return self.root / "recipe.yaml"

    @property
    def stamps(self) -> Path:
        """What finished stages were made from."""
        return self.root / "stages"

    @property
    def prepared(self) -> Path:
        """The prepared data."""
        return self.root / "prepared"

    @property
    def report(self) -> Path:
        """All figures, as JSON."""
        return self.root / "report.json"

    @property
    def report_text(self) -> Path:
        """The figures as a Markdown table."""
        return self.root / "report.md"

    @property
    def plots(self) -> Path:
        """Pictures of the figures and of the training curves."""
        return self.root / "plots"

    def item_tokenizer(self, protocol: str) -> Path:
        """The fitted item tokenizer of a split."""
        return self.root / protocol / "item_tokenizer"

    def training(self, protocol: str) -> Path:
        """The Trainer's own folder of a split: checkpoints to resume from, and the curve."""
        return self.root / protocol / "training"

    def checkpoint(self, protocol: str) -> Path:
        """The finished checkpoint of a split, ready to load, push or copy."""
        return self.root / "checkpoint" if protocol == self.primary else self.root / protocol / "checkpoint"
