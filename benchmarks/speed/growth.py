"""How the cost of a search grows with the history, the beams, the catalog and the levels, one at a time from one point.

    python -m benchmarks.speed.growth [--quick] [--output FILE.json]

Writes FILE.json and draws FILE.png beside it (with matplotlib); dashed is what the arithmetic allows on this machine.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.speed.harness import Contender, Results, Settings, run
from benchmarks.speed.limits import measure_peaks, search_cost
from benchmarks.speed.workload import item_tokens, item_trie, random_codes, random_model, random_prompts
from genrec.files import write_atomically
from genrec.generation import ItemTrie, constrained_beam_search
from genrec.models.gamer import GamerConfig, GamerForCausalLM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {"history_items": "items of history", "beams": "beams", "items": "items in the catalog", "levels": "levels"}
VALUES = {
    "history_items": (20, 100, 200),
    "beams": (10, 20, 50, 200),
    "items": (2_000, 20_000, 200_000, 2_000_000),
    "levels": (3, 4, 8),
}
QUICK_VALUES = {"history_items": (5, 10), "beams": (5, 20), "items": (2_000, 20_000), "levels": (3, 4)}
COLOR, LIMIT_COLOR = "#0072B2", "#666666"


@dataclass(frozen=True)
class Point:
    """One setting of what the cost depends on."""

    history_items: int = 100
    beams: int = 20
    items: int = 20_000
    levels: int = 4


def points(base: Point, values: Mapping[str, tuple[int, ...]]) -> dict[str, Point]:
    """Return `axis=value` -> the base point with that value, and the base point as `base`.

    Example:
        >>> list(points(Point(), {"beams": (10, 20), "levels": (3,)}))
        ['base', 'beams=10', 'levels=3']
    """
    found = {"base": base}
    for axis, axis_values in values.items():
        for value in axis_values:
            if value != getattr(base, axis):
                found[f"{axis}={value}"] = dataclasses.replace(base, **{axis: value})
    return found


class Workbench:
    """The models and catalogs of several points, each made once.

    Args:
        preset: The model's shape.
        batch_size: Users at once.
        settings: The device and the seed.
    """

    def __init__(self, preset: str, batch_size: int, settings: Settings) -> None:
        self.preset = preset
        self.batch_size = batch_size
        self.settings = settings
        self._models: dict[int, GamerForCausalLM] = {}
        self._tries: dict[tuple[int, int], tuple[Tensor, ItemTrie]] = {}

    def model(self, point: Point) -> GamerForCausalLM:
        """Return the model of a point's levels."""
        if point.levels not in self._models:
            longest = max(VALUES["history_items"])
            model = random_model(self.preset, point.levels, self.settings.seed, max_history_items=longest)
            self._models[point.levels] = model.to(self.settings.device)  # type: ignore[arg-type]
        return self._models[point.levels]

    def catalog(self, point: Point) -> tuple[Tensor, ItemTrie]:
        """Return the token ids of a point's items and their trie."""
        key = (point.items, point.levels)
        if key not in self._tries:
            config = self.model(point).config
            tokens = item_tokens(config, random_codes(point.items, point.levels, self.settings.seed))
            self._tries[key] = tokens, item_trie(config, tokens).to(self.settings.device)
        return self._tries[key]

    def search(self, point: Point) -> Callable[[], tuple[Tensor, Tensor]]:
        """Return the call that searches at a point, for items `[users * beams, levels]` and scores."""
        model, (tokens, trie) = self.model(point), self.catalog(point)
        prompts = random_prompts(tokens, self.batch_size, point.history_items, self.settings.seed)
        on_device = {name: values.to(model.device) for name, values in prompts.items()}
        return partial(_found, model, on_device, trie, point)

    def check(self, found: dict[str, tuple[Tensor, Tensor]], chosen: Mapping[str, Point]) -> None:
        """Refuse an output that is not as many distinct items of the catalog as there are beams, best first.

        Raises:
            AssertionError: If one is not; the message names its point.
        """
        for name, (items, scores) in found.items():
            leaves = self.catalog(chosen[name])[1].walk(items).view(self.batch_size, -1)
            assert (leaves >= 0).all(), f"At {name} something came out that is no item."
            distinct = [len(set(row)) for row in leaves.tolist()]
            assert min(distinct) == chosen[name].beams, f"At {name} an item came out twice or is missing."
            ordered = scores.view(self.batch_size, -1).diff(dim=1) <= 0
            assert ordered.all(), f"At {name} the items are not in the order of their scores."


def _found(model: Any, prompts: dict[str, Tensor], trie: ItemTrie, point: Point) -> tuple[Tensor, Tensor]:
    output: Any = constrained_beam_search(
        model, **prompts, trie=trie, num_beams=point.beams, num_return_sequences=point.beams
    )
    return output.sequences[:, -point.levels :], output.sequences_scores


def measure(settings: Settings) -> Results:
    """Return users/s at each point, all timed in turn, and the limit there."""
    results = Results(settings)
    base = settings.choose(Point(), Point(history_items=10))
    chosen = points(base, settings.choose(VALUES, QUICK_VALUES))
    batch_size = settings.choose(256 if settings.device == "cuda" else 8, 2)
    bench = Workbench(settings.choose("gamer-base", "gamer-tiny"), batch_size, settings)
    results.compare(
        "growth",
        [Contender(name, bench.search(point)) for name, point in chosen.items()],
        baseline="base",
        work=batch_size,
        unit="users",
        repeats=settings.choose(7, 2),
        max_seconds=30,
        check=partial(bench.check, chosen=chosen),
    )
    peaks = measure_peaks(settings.device, torch.float32, settings.quick)
    for name, point in chosen.items():
        config: GamerConfig = bench.model(point).config
        limit = peaks.per_second(search_cost(config, point.history_items, point.beams))
        results.add("growth limit", name, users_per_second=limit)
    for axis, values in settings.choose(VALUES, QUICK_VALUES).items():
        results.add("growth axis", axis, base=getattr(base, axis), values=list(values))
    return results


def plot(results: Results, path: Path) -> None:
    """Draw users/s along each axis beside the JSON file; without matplotlib say so and draw nothing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        results.say("No plot: matplotlib is not installed. Run: pip install matplotlib")
        return
    measured, limits = (
        {row["name"]: row["users_per_second"] for row in results.rows if row["table"] == table}
        for table in ("growth", "growth limit")
    )
    axes_rows = [row for row in results.rows if row["table"] == "growth axis"]
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for panel, row in zip(figure.subplots(1, len(axes_rows), sharey=True), axes_rows, strict=True):
        names = [_name(row, value) for value in row["values"]]
        _draw(panel, row["values"], [measured[name] for name in names], [limits[name] for name in names])
        panel.set_xlabel(AXES[row["name"]])
    figure.axes[0].set_ylabel("users per second")
    figure.axes[-1].legend(frameon=False, fontsize=8)
    with write_atomically(path.with_suffix(".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _name(axis: Mapping[str, Any], value: int) -> str:
    return "base" if value == axis["base"] else f"{axis['name']}={value}"


def _draw(panel: "Axes", values: list[int], measured: list[float], limits: list[float]) -> None:
    panel.plot(values, measured, color=COLOR, marker="o", markersize=5, label="search")
    panel.plot(values, limits, color=LIMIT_COLOR, linestyle="--", linewidth=1.2, label="limit")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(values, [f"{value:,}" if value < 1_000_000 else f"{value // 1_000_000} M" for value in values])
    panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    panel.tick_params(axis="x", labelsize=7)
    panel.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


if __name__ == "__main__":
    run("growth", measure, after_writing=plot)
