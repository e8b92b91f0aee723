"""How every speed benchmark measures: rivals in one process, outputs checked equal first, timed in turn, kept as JSON.

    python -m benchmarks.speed.<name> [--quick] [--output FILE] [--threads N] [--device cpu|cuda] [--large]

A benchmark is a module with `measure(settings) -> Results` and `run("<name>", measure)` at its end. The headline
figures are ratios, the baseline's time divided by ours, since they carry over from machine to machine better than
seconds do.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.speed.machine import commit, describe_machine, versions
from benchmarks.speed.memory import peak_memory_mb
from benchmarks.speed.timing import Contender, Row, no_garbage_collection, order_of_runs, times_to_run
from genrec.files import write_atomically

__all__ = ["Contender", "Results", "Row", "Settings", "check_close", "peak_memory_mb", "run"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Settings:
    """What the command line asked for.

    Args:
        quick: Whether to end within a minute on two cores, with sizes that prove nothing but that it works.
        device: `"cpu"` or `"cuda"`.
        threads: How many threads torch uses.
        seed: Decides weights, items and histories.
        large: Whether to add what takes many minutes or much memory.
    """

    quick: bool = False
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    large: bool = False

    def choose(self, full: Any, quick: Any) -> Any:
        """Return the value for a full or for a quick run."""
        return quick if self.quick else full


@dataclass
class Results:
    """What a benchmark found; `run` prints it and writes it as JSON.

    Args:
        settings: What was asked for.
        rows: One dictionary per figure.
        ratios: The headline: key -> how many times faster, or smaller, than a baseline.
    """

    settings: Settings
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)

    def compare(
        self,
        table: str,
        contenders: Sequence[Contender],
        *,
        baseline: str,
        work: float,
        unit: str,
        repeats: int,
        check: Callable[[dict[str, Any]], None] | None,
        ratio: str | None = None,
        warmup: int = 1,
        max_seconds: float | None = None,
        limit: float | None = None,
    ) -> dict[str, Row]:
        """Check that the contenders' outputs are equal, then time them in turn.

        Args:
            table: A name for the comparison.
            contenders: At least one; names must differ.
            baseline: The contender that ratios refer to.
            work: How many units a run does.
            unit: What is counted, a plural such as `"users"`.
            repeats: How often to time each contender.
            check: Gets the outputs by name, of the last warm-up run, and raises if they disagree; None only if there
                is nothing to compare.
            ratio: The headline key of each contender but the baseline, with `{name}` in the place of its name.
            warmup: Untimed runs of each contender, at least 1.
            max_seconds: A contender is timed less often, but at least once, where it would take longer than this.
            limit: Units per second that the machine's arithmetic or memory allows, see `limits.py`.

        Returns:
            Contender -> its row.

        Raises:
            ValueError: If names repeat or none is the baseline's.
            Exception: Whatever `check` raises; nothing is timed then.
        """
        names = [contender.name for contender in contenders]
        if len(set(names)) < len(names) or baseline not in names:
            raise ValueError(f"Contenders need different names, one of them the baseline {baseline!r}; got {names}.")
        outputs, estimates = {}, {}
        for contender in contenders:
            self.say(f"{table}: first run of {contender.name}")
            for _ in range(max(1, warmup if contender.warmup is None else contender.warmup)):
                estimates[contender.name], outputs[contender.name] = self._time(contender.call)
        if check is not None:
            check(outputs)
        outputs.clear()
        counts = {name: times_to_run(repeats, seconds, max_seconds) for name, seconds in estimates.items()}
        seconds = self._time_in_turn(table, contenders, counts)
        medians = {name: median(times) for name, times in seconds.items()}
        rows = {
            name: Row(table, name, times, work, unit, medians[baseline] / medians[name], limit)
            for name, times in seconds.items()
        }
        self.rows += [row.as_json() for row in rows.values()]
        for name, row in rows.items():
            self.say(f"{table}: {name} {row.per_second:.4g} {unit}/s, {row.ratio:.3g} times {baseline}")
            if ratio is not None and name != baseline:
                self.ratio(ratio.format(name=name), row.ratio or 0.0)
        return rows

    def add(self, table: str, name: str, **figures: Any) -> None:
        """Keep figures that are no timings, such as bytes or arithmetic."""
        self.rows.append({"table": table, "name": name, **figures})

    def ratio(self, key: str, value: float) -> None:
        """Keep a headline ratio, such as `search/dict_trie@8`.

        Raises:
            ValueError: If the key is taken.
        """
        if key in self.ratios:
            raise ValueError(f"The ratio {key!r} is there already ({self.ratios[key]}). Give each ratio its own key.")
        self.ratios[key] = float(value)

    def say(self, line: str) -> None:
        """Print a line of progress to the standard error."""
        print(line, file=sys.stderr, flush=True)

    def as_json(self, benchmark: str) -> dict[str, Any]:
        """Return all that is kept of a run."""
        return {
            "benchmark": benchmark,
            "command": f"python -m benchmarks.speed.{benchmark} {' '.join(sys.argv[1:])}".strip(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "versions": versions(),
            "machine": describe_machine(self.settings.device, self.settings.threads),
            "settings": vars(self.settings),
            "ratios": self.ratios,
            "rows": self.rows,
        }

    def write(self, path: str | Path, benchmark: str) -> None:
        """Write the JSON file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as temporary:
            text = json.dumps(self.as_json(benchmark), indent=1, allow_nan=False)
            Path(temporary).write_text(text + "\n", encoding="utf-8")

    def _time_in_turn(
        self, table: str, contenders: Sequence[Contender], counts: Mapping[str, int]
    ) -> dict[str, list[float]]:
        calls = {contender.name: contender.call for contender in contenders}
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for name in order_of_runs(counts):
            seconds[name].append(self._time(calls[name])[0])
        return seconds

    def _time(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds that a call takes until the device is done, and its output."""
        self._synchronize()
        with no_garbage_collection():
            start = time.perf_counter()
            output = call()
            self._synchronize()
            return time.perf_counter() - start, output

    def _synchronize(self) -> None:
        if torch.device(self.settings.device).type == "cuda":
            torch.cuda.synchronize(self.settings.device)


def check_close(outputs: Mapping[str, Sequence[torch.Tensor]], *, baseline: str, tolerance: float, what: str) -> None:
    """Refuse contenders whose tensors differ from the baseline's.

    Args:
        outputs: Contender -> its tensors, in one order.
        baseline: The contender that the others are held against.
        tolerance: The norm of a difference, relative to that of the baseline's tensor.
        what: What the tensors are, for the message.

    Raises:
        ValueError: If one is further off.
    """
    for name, found in outputs.items():
        for ours, theirs in zip(found, outputs[baseline], strict=True):
            off = float((ours - theirs).norm() / theirs.norm())
            if not off <= tolerance:
                raise ValueError(f"{name}: {what} off by {off:.1e}.")


def run(
    benchmark: str,
    measure: Callable[[Settings], Results],
    arguments: Sequence[str] | None = None,
    after_writing: Callable[[Results, Path], None] | None = None,
) -> Results:
    """Run a benchmark from the command line: print its rows and ratios, write its JSON.

    Args:
        benchmark: The module's name.
        measure: What it measures.
        arguments: Of the command line; None takes the real one.
        after_writing: Called with the results and the JSON file's path, if one is written.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.speed.{benchmark}", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute; writes no file by itself")
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--large", action="store_true", help="also what takes many minutes or much memory")
    given = vars(parser.parse_args(arguments))
    output = given.pop("output")
    settings = Settings(**given)
    if settings.device == "cuda" and not torch.cuda.is_available():
        parser.error("`--device cuda` needs a CUDA device, and torch sees none. Use `--device cpu`.")
    torch.set_num_threads(settings.threads)
    results = measure(settings)
    print("\n".join(lines(results)))
    if output is None and not settings.quick:
        output = RESULTS / f"{benchmark}-{settings.device}.json"
    if output is not None:
        results.write(output, benchmark)
        print(f"written: {output}")
        if after_writing is not None:
            after_writing(results, output)
    return results


def lines(results: Results) -> list[str]:
    """Return the rows and ratios as text, one per line."""
    machine = describe_machine(results.settings.device, results.settings.threads)
    head = ", ".join(f"{name} {value}" for name, value in {**machine, "torch": versions().get("torch")}.items())
    rows = [
        f"{row['table']:<24} {row['name']:<24} "
        + "  ".join(f"{name}={_short(value)}" for name, value in row.items() if name not in ("table", "name"))
        for row in results.rows
    ]
    return [head, *rows, *(f"{key:<48} {_short(value)}" for key, value in results.ratios.items())]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
