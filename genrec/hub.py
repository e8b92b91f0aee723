"""The Hub: a model card filled from the run, and a checkpoint folder pushed as one repository."""

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from genrec.files import read_json, write_atomically
from genrec.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

logger = logging.getLogger(__name__)

HEADLINE_METRICS = ("hit", "recall", "ndcg")
LOCAL_NAME = "path/to/this/folder"
REQUIRED_FILES = (
    "config.json",
    "model.safetensors",
    "item_tokenizer.json",
    "item_tokenizer.safetensors",
    "item_ids.json",
)
SCORING_FILE = "recommender.json"  # what a model that scores items has instead of item codes
SCORING_FILES = ("config.json", "model.safetensors", SCORING_FILE, "item_ids.json")
PUBLISHED_SUFFIXES = (".json", ".safetensors", ".parquet", ".md", ".png", ".py", ".yaml")
TRAINING_REPORT = "training_report.json"


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    portable: bool = False,
    license: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload a genrec checkpoint",
) -> str:
    """Publish a checkpoint folder as one model repository and return its address.

    Only JSON, safetensors, parquet, text and images leave the machine. The folder itself is not changed: the card
    that is uploaded names the repository where the local one names the folder.

    Args:
        folder: A checkpoint folder as training writes it.
        repo_id: `owner/name`; the repository is made if it does not exist.
        private: Whether a new repository is private.
        portable: Also upload the model's code, so that `AutoModelForCausalLM.from_pretrained(...,
            trust_remote_code=True)` works where genrec is not installed.
        license: The licence for the card, such as `apache-2.0`; None leaves the card as it is.
        token: The Hub's token; None uses the one that `hf auth login` stored or `HF_TOKEN`.
        commit_message: The commit's first line.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If the folder is no checkpoint, or `repo_id` is not `owner/name`.
    """
    from huggingface_hub import HfApi

    folder = check_checkpoint_folder(folder)
    if portable and scores_items(folder):
        raise ValueError("`portable` is for models that write item codes; this one scores items. Leave it out.")
    if portable and is_encoder_decoder(folder):
        raise ValueError("`portable` is for GAMER, whose code travels alone; this is another model. Leave it out.")
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ValueError(f"`repo_id` must be `owner/name`, got {repo_id!r}.")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        replaced = _portable_files(folder, Path(temporary)) if portable else {}
        card = model_card(folder, location=repo_id, license=license, portable=portable)
        operations = _operations(folder, replaced, card)
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        with warnings.catch_warnings():  # the client takes the catalog's parquet file for a data set gone astray
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            api.create_commit(repo_id, operations, commit_message=commit_message)
    return str(address)


def check_checkpoint_folder(folder: str | Path) -> Path:
    """Return the folder if it holds what a checkpoint needs.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If one of its files is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Pass a checkpoint folder, such as runs/demo/checkpoint.")
    required = SCORING_FILES if scores_items(folder) else REQUIRED_FILES
    missing = [name for name in required if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} is no checkpoint folder: {missing[0]} is missing. Pass the folder `checkpoint` of a run."
        )
    return folder


def scores_items(folder: Path) -> bool:
    """Say whether a checkpoint folder's model scores items, so that it has no item codes."""
    return (folder / SCORING_FILE).is_file()


def is_encoder_decoder(folder: Path) -> bool:
    """Say whether a checkpoint folder's model writes item codes behind an encoder, as TIGER does."""
    return bool(read_json(folder / "config.json").get("is_encoder_decoder"))


def write_model_card(folder: str | Path, license: str | None = None) -> Path:
    """Write `README.md` into a checkpoint folder, filled from the files beside it, and return its path."""
    path = Path(folder) / "README.md"
    card = model_card(folder, license=license)
    with write_atomically(path) as temporary:
        temporary.write_text(card, encoding="utf-8")
    return path


def model_card(
    folder: str | Path,
    *,
    location: str = LOCAL_NAME,
    license: str | None = None,
    portable: bool = False,
) -> str:
    """Return the model card of a checkpoint folder: front matter, use, model, data, results, limits.

    Args:
        folder: The checkpoint folder; `training_report.json` is used where there is one.
        location: What the usage code loads from: a repository, or a placeholder for the folder.
        license: A licence identifier, or None to say that none was given.
        portable: Whether the model's code travels along.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    described = read_json(folder / (SCORING_FILE if scores_items(folder) else "item_tokenizer.json"))
    item_ids = read_json(folder / "item_ids.json")
    report = read_json(folder / TRAINING_REPORT) if (folder / TRAINING_REPORT).is_file() else {}
    ladder = str(
        described["behaviors"] if isinstance(described["behaviors"], str) else ",".join(described["behaviors"])
    )
    template = _template("scoring_card.md" if scores_items(folder) else "model_card.md")
    return _front_matter(config, report, license) + Template(template).substitute(
        title=report.get("name", config["model_type"]),
        version=report.get("versions", {}).get("genrec", __version__),
        ladder=ladder,
        location=location,
        recommender="Seq2SeqRecommender" if is_encoder_decoder(folder) else "GenerativeRecommender",
        auto_class="AutoModelForSeq2SeqLM" if is_encoder_decoder(folder) else "AutoModelForCausalLM",
        trust=", trust_remote_code=True" if portable else "",
        target=ladder.split(",")[-1],
        example=f'({_first_id(item_ids)!r}, "{ladder.split(",")[0].split("=")[0]}")',
        model_table=_table(["setting", "value"], list(_model_facts(config).items())),
        data_table=_table(["what", "value"], list(report.get("data", {}).items())) or "Not recorded.",
        results=_results(report.get("results", [])),
        num_items=f"{len(_ids(item_ids)):,}",
        improving=_improving(report),
        license_text=f"`{license}`" if license else "None was given: ask the publisher before you use it.",
    )


def results_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return report rows as a Markdown table: one line per model and behavior, one column per metric.

    Args:
        rows: `model, protocol, behavior, metric, value, low, high` each.

    Example:
        >>> row = dict(model="gamer", protocol="temporal", behavior="buy", metric="ndcg@10", value=.5, low=.4, high=.6)
        >>> print(results_table([row]))
        | protocol | behavior | model | ndcg@10 |
        | --- | --- | --- | --- |
        | temporal | buy | gamer | .500 [.400, .600] |
    """
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        cells = lines.setdefault((row["protocol"], row["behavior"], row["model"]), {})
        cells[row["metric"]] = _figure(row)
    body = [(*line, *(cells.get(metric, "") for metric in metrics)) for line, cells in lines.items()]
    return _table(["protocol", "behavior", "model", *metrics], body)


def _figure(row: Mapping[str, Any]) -> str:
    numbers = [row["value"], row.get("low"), row.get("high")]
    value, low, high = (None if number is None else f"{number:.3f}".removeprefix("0") for number in numbers)
    return f"{value} [{low}, {high}]" if low is not None and high is not None else str(value)


def _results(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "Not evaluated yet."
    return (
        "Full ranking over the catalog, seen items kept; 95 % bootstrap intervals over users. The rules are tuned on "
        "validation.\n\n" + results_table(headline_rows(rows))
    )


def headline_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Keep hit rate, recall and NDCG at the deepest cut-off: the figures that a card shows.

    Example:
        >>> rows = [{"metric": "ndcg@5"}, {"metric": "ndcg@10"}, {"metric": "ndcg@10/cold"}, {"metric": "mrr@10"}]
        >>> headline_rows(rows)
        [{'metric': 'ndcg@10'}]
    """
    cuts = [int(row["metric"].partition("@")[2].partition("/")[0]) for row in rows] or [0]
    shown = {f"{name}@{max(cuts)}" for name in HEADLINE_METRICS}
    return [row for row in rows if row["metric"] in shown]


def _table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    if not body:
        return ""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _model_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "architecture": ", ".join(config.get("architectures") or [config["model_type"]]),
        "layers": config.get("num_hidden_layers", config.get("num_layers")),
        "width": config.get("hidden_size", config.get("d_model")),
        "codebook sizes": config.get("codebook_sizes"),
        "vocabulary": config.get("vocab_size"),
        "history": config.get("max_history_items"),
        "cross-level layers": config.get("cross_level_layers"),
        "behavior injection layers": config.get("behavior_injection_layers"),
    }
    return {name: value for name, value in names.items() if value is not None}


def _improving(report: Mapping[str, Any]) -> str:
    if not report.get("still_improving"):
        return ""
    return "* Training was stopped while validation was still improving: a longer run would do better.\n"


def _front_matter(config: Mapping[str, Any], report: Mapping[str, Any], license_id: str | None) -> str:
    """Return the card's YAML head, with the results in the Hub's `model-index`."""
    from huggingface_hub import EvalResult, ModelCardData

    name = str(report.get("name", config["model_type"]))
    results = [
        EvalResult(
            task_type="recommendation",
            dataset_type=name,
            dataset_name=f"{name}, {row['protocol']}, {row['behavior']}",
            metric_type=row["metric"],
            metric_value=row["value"],
        )
        for row in headline_rows(report.get("results", []))
        if row["model"] == report.get("model_name", "gamer") and row["behavior"] == "merged"
    ]
    data = ModelCardData(
        library_name="genrec",
        license=license_id,
        tags=["recommendation", *_family_tags(config), config["model_type"]],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _family_tags(config: Mapping[str, Any]) -> list[str]:
    writes_codes = "codebook_sizes" in config
    return ["generative-recommendation", "semantic-ids"] if writes_codes else ["sequential-recommendation"]


def _template(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _ids(item_ids: Any) -> list[Any]:
    return item_ids["item_ids"] if isinstance(item_ids, dict) else item_ids


def _first_id(item_ids: Any) -> Any:
    return _ids(item_ids)[0]


def _portable_files(folder: Path, temporary: Path) -> dict[str, Path]:
    """Write the model's code and a config that points to it; returns the files by their name in the repository."""
    from genrec.models.gamer import GamerForCausalLM
    from genrec.models.gamer.portable import save_portable

    save_portable(GamerForCausalLM.from_pretrained(folder), temporary)
    return {str(path.relative_to(temporary)): path for path in sorted(temporary.rglob("*")) if path.is_file()}


def _operations(folder: Path, replaced: Mapping[str, Path], card: str) -> "list[CommitOperationAdd]":
    from huggingface_hub import CommitOperationAdd

    files = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in PUBLISHED_SUFFIXES and not path.name.startswith(".")
    }
    files |= replaced
    files.pop("README.md", None)
    additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    return [*additions, CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card.encode())]
