"""Print the speed tables of `benchmarks/README.md` from the JSON files in `results/`.

python -m benchmarks.speed.table            # prints them
python -m benchmarks.speed.table --write    # puts them into benchmarks/README.md, between its two marks
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
ORDER = (
    "generate",
    "pointers",
    "trie",
    "growth",
    "train",
    "encoder_decoder",
    "item_softmax",
    "experts",
    "attention",
    "tokenizer",
    "evaluate",
    "limits",
)
HEADER = ("table", "contender", "figure", "median (p10 to p90), runs", "times the baseline", "of the limit")
TIMING = ("table", "name", "repeats", "median_seconds", "p10_seconds", "p90_seconds", "ratio", "of_limit")
NOTHING = "No results yet: run the benchmarks, then `python -m benchmarks.speed.table --write`."


def tables(results: Path = RESULTS) -> str:
    """Return the Markdown of all result files, in the order of `ORDER`, CPU before CUDA."""
    files = sorted(results.glob("*.json"), key=_rank)
    return "\n\n".join(section(path) for path in files) if files else NOTHING


def _rank(path: Path) -> tuple[int, str]:
    benchmark = path.stem.rpartition("-")[0]
    return (ORDER.index(benchmark) if benchmark in ORDER else len(ORDER)), path.stem


def section(path: Path) -> str:
    """Return one file's heading, machine, ratios and rows."""
    content = json.loads(path.read_text(encoding="utf-8"))
    parts = [f"### `{content['benchmark']}` on {content['settings']['device'].upper()}", _origin(content)]
    if path.with_suffix(".png").is_file():
        parts.append(f"![{content['benchmark']}](speed/results/{path.stem}.png)")
    if content["ratios"]:
        ratios = [[f"`{key}`", _number(value)] for key, value in content["ratios"].items()]
        parts.append(_markdown(("ratio", "times"), ratios))
    parts.append(_markdown(HEADER, [_cells(row) for row in content["rows"] if not row["table"].endswith(" axis")]))
    return "\n\n".join(parts)


def _origin(content: dict[str, Any]) -> str:
    machine, versions = content["machine"], content["versions"]
    where = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions)
    commit = f"commit `{content['commit']}`, " if content["commit"] else ""
    day = content["finished"][:10]
    return f"`{content['command']}`: {where}, threads: {machine['threads']}, {packages}, {commit}{day}."


def _cells(row: dict[str, Any]) -> list[str]:
    figures = {name: value for name, value in row.items() if name not in TIMING}
    figure = ", ".join(
        f"{name.replace('_per_second', '/s').replace('_', ' ')} {_number(figures[name])}" for name in figures
    )
    times = [_seconds(row[f"{name}_seconds"]) if "median_seconds" in row else "" for name in ("median", "p10", "p90")]
    spread = f"{times[0]} ({times[1]} to {times[2]}), {row['repeats']}" if times[0] else ""
    of_limit = f"{row['of_limit']:.1%}" if "of_limit" in row else ""
    return [row["table"], row["name"], figure, spread, _number(row.get("ratio", "")), of_limit]


def _seconds(seconds: float) -> str:
    """Return a time in the unit that reads best.

    Example:
        >>> _seconds(0.0213), _seconds(61.4)
        ('21.3 ms', '61.4 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def _number(value: Any) -> str:
    """Return a figure with three digits, or with thousands marked.

    Example:
        >>> _number(21.347), _number(1300000), _number(8.67e9), _number("zipf")
        ('21.3', '1,300,000', '8.67e+09', 'zipf')
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def readme_with(text: str, readme: str) -> str:
    """Return the README's text with the tables between its marks.

    Raises:
        ValueError: If it lacks the marks.
    """
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"The README needs the marks {BEGIN} and {END}, one line each, where the tables go.")
    return f"{readme.partition(BEGIN)[0]}{BEGIN}\n{text}\n{END}{readme.partition(END)[2]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or write them into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args(arguments).write:
        README.write_text(readme_with(tables(), README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(tables())


if __name__ == "__main__":
    main()
