"""Finished stages are kept: each leaves a stamp of what it was made from, and runs again only if that changed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.files import fingerprint, read_json, write_json
from genrec.version import __version__


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Args:
        name: Its name in messages and of its stamp, such as `last-session/train`.
        parts: What it depends on: settings, fingerprints of inputs, the key of the stage before it.
        outputs: Files and folders it leaves; a stamp without them does not count.
    """

    name: str
    parts: Sequence[Any]
    outputs: Sequence[Path]

    @property
    def key(self) -> str:
        """The fingerprint of everything the stage depends on."""
        return fingerprint(__version__, self.name, list(self.parts))


class KeptStages:
    """The stamps of a run folder.

    Args:
        folder: Where the stamps lie, one JSON file per stage.
        say: Gets one line for each thing that happens.

    Example:
        >>> import tempfile
        >>> stages = KeptStages(Path(tempfile.mkdtemp()), say=print)
        >>> stages.run(Stage("count", [1], []), lambda: {"rows": 3})["rows"]
        [count] ...
        [count] done in 0.0 s: 3 rows
        3
        >>> stages.run(Stage("count", [1], []), lambda: {"rows": 4})["rows"]
        [count] kept, nothing changed: 3 rows
        3
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say

    def run(self, stage: Stage, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the stage's summary: of its last run if nothing changed since, else of `work()`, run now.

        The stamp is removed before the work starts and written after it ended, so that a stage that was stopped
        midway is never taken for finished.
        """
        stamp = self._stamp(stage.name)
        kept = self.summary_of(stage)
        if kept is not None:
            self.say(f"[{stage.name}] kept, nothing changed: {describe(kept)}")
            return kept
        self.say(f"[{stage.name}] ...")
        stamp.unlink(missing_ok=True)
        started = time.perf_counter()
        summary = work()
        seconds = round(time.perf_counter() - started, 1)
        write_json(stamp, {"key": stage.key, "seconds": seconds, "summary": summary})
        self.say(f"[{stage.name}] done in {seconds} s: {describe(summary)}")
        return summary

    def summary_of(self, stage: Stage) -> dict[str, Any] | None:
        """Return what a finished, unchanged stage reported; None if it must run."""
        stamp = self._stamp(stage.name)
        if not stamp.is_file() or not all(path.exists() for path in stage.outputs):
            return None
        content = read_json(stamp)
        return content["summary"] if content["key"] == stage.key else None

    def forget(self, name: str) -> None:
        """Let a stage run again, whatever it was made from: something under it is being made anew."""
        self._stamp(name).unlink(missing_ok=True)

    def seconds_of(self, name: str) -> float:
        """Return how long a finished stage took; 0 if it never finished."""
        stamp = self._stamp(name)
        return float(read_json(stamp)["seconds"]) if stamp.is_file() else 0.0

    def _stamp(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '-')}.json"


def describe(summary: dict[str, Any]) -> str:
    """Return the numbers and texts of a summary as words.

    >>> describe({"items": 1200, "raw_collision_rate": 0.0325, "report": {"left": "out"}})
    '1,200 items, raw collision rate 0.0325'
    """
    parts = []
    for name, value in summary.items():
        words = name.replace("_", " ")
        if isinstance(value, int) and not isinstance(value, bool):
            parts.append(f"{value:,} {words}")
        elif isinstance(value, float):
            parts.append(f"{words} {value:.4g}")
        elif isinstance(value, str):
            parts.append(f"{words} {value}")
    return ", ".join(parts)
