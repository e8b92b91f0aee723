"""Print the README's results table from the CSV files: merged NDCG@10, mean over seeds, outermost interval ends.

python benchmarks/quality/table.py            # prints the table
python benchmarks/quality/table.py --write    # puts it into README.md, between its two marks
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

from genrec.evaluation.benchmark_tables import recipe_of

FOLDER = Path(__file__).parent
README = FOLDER.parent.parent / "README.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
LOGS = {"deskdrop": "deskdrop", "retailrocket": "retailrocket", "taobao": "taobao", "market": "synthetic market"}
RULES = ("popularity", "trending", "recency", "recency-undone", "co-occurrence")
GENERATING = ("gamer-plus-tiny", "gamer", "gamer-last", "gamer-last-session", "qwen3", "mbgen-long", "tiger-mb-long")
SEQUENTIAL = ("sasrec", "gru4rec", "bert4rec", "sasrec-b", "mb-str", "pbat", "mbht")
GRAPHS = ("mb-gmn", "s-mbrec")
MODELS = (*GENERATING, *SEQUENTIAL, *GRAPHS, *RULES, "upper-bound")


def figures(path: Path) -> dict[str, list[dict[str, str]]]:
    """Return each model's merged NDCG@10 rows of the `last-session` protocol, one per seed, of the log's own recipe."""
    by_model: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            is_asked = (row["protocol"], row["behavior"], row["metric"]) == ("last-session", "merged", "ndcg@10")
            if is_asked and recipe_of(row["config"]) == path.stem:
                by_model[row["model"]][row["seed"]] = row  # each recipe measures the upper bound anew
    return defaultdict(list, {model: list(rows.values()) for model, rows in by_model.items()})


def cell(rows: list[dict[str, str]]) -> str:
    """Return `mean [low, high] (seeds)` over the seeds' rows."""
    if not rows:
        return "pending"
    mean = sum(float(row["value"]) for row in rows) / len(rows)
    low, high = min(float(row["low"]) for row in rows), max(float(row["high"]) for row in rows)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}] ({len(rows)})"


def table() -> str:
    """Return the Markdown table of all logs that have a file."""
    logs = {
        title: figures(FOLDER / f"{name}.csv") for name, title in LOGS.items() if (FOLDER / f"{name}.csv").is_file()
    }
    header = ["merged NDCG@10 (seeds)", *logs]
    lines = [[model, *(cell(by_model[model]) for by_model in logs.values())] for model in MODELS]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def readme_with(text: str) -> str:
    """Return the README with the table between its marks."""
    readme = README.read_text(encoding="utf-8")
    return f"{readme.partition(BEGIN)[0]}{BEGIN}\n{text}\n{END}{readme.partition(END)[2]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        README.write_text(readme_with(table()), encoding="utf-8")
    else:
        print(table())
