"""The checkpoint folder's model: written whole or not at all, and read with an error that names the broken file."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from genrec.files import read_json

if TYPE_CHECKING:
    from genrec.data.catalog import Catalog

CONFIG_FILE = "config.json"
MODEL_JSON_FILES = (CONFIG_FILE, "generation_config.json", "model.safetensors.index.json")
RECOMMENDER_FILES = ("recommender.json", "recommender.safetensors")  # of scoring models and rules
CATALOG_FILES = ("catalog.parquet",)
CONTEXT_FILES = ("query_context.json", "query_context.safetensors")
DOWNLOADED = ("*.json", "*.safetensors", "*.parquet")


def find_checkpoint(folder_or_repo: str | Path, **download: Any) -> Path:
    """Return a local folder with a checkpoint's files, downloading them if a repository is named.

    Args:
        folder_or_repo: A folder, or a repository id such as `"org/name"`.
        **download: Passed to `huggingface_hub.snapshot_download`: `revision`, `cache_dir`, `token`,
            `local_files_only`.

    Raises:
        FileNotFoundError: If there is neither such a folder nor a name that a repository could have, or no model.
    """
    folder, name = Path(folder_or_repo), str(folder_or_repo)
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise FileNotFoundError(
                f"There is no folder {name!r}. Name a checkpoint folder or a repository `org/name`."
            )
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, allow_patterns=list(DOWNLOADED), **download))
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{name!r} has no {CONFIG_FILE}, so it holds no model. Write a checkpoint there with `save_pretrained`."
        )
    return folder


def load_model(folder: Path, auto_class: Any = AutoModelForCausalLM) -> PreTrainedModel:
    """Load a checkpoint folder's model, ready to be asked.

    Args:
        folder: What `save_model` wrote.
        auto_class: The Auto class that knows the model.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If a file is truncated or corrupt, or some weights are missing.
    """
    for path in (folder / name for name in MODEL_JSON_FILES):
        if path.is_file():
            read_json(path)  # transformers would not say what is wrong with it, or go on without it
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"{folder} has no model.safetensors. Copy or train the checkpoint again.")
    for path in weights:
        _check_weights(path)
    loaded: Any = auto_class.from_pretrained(folder, output_loading_info=True)
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(
            f"{folder} lacks weights of its model, for example {sorted(report['missing_keys'])[0]!r}. Copy or train "
            "the checkpoint again."
        )
    return model.eval()


def save_model(model: PreTrainedModel, folder: str | Path) -> None:
    """Write a model's configuration, generation configuration and weights, each file whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
        model.save_pretrained(temporary)
        for path in sorted(Path(temporary).iterdir(), reverse=True):  # the weights before the configuration
            os.replace(path, folder / path.name)


def remove_leftovers(folder: str | Path, own: Iterable[str]) -> None:
    """Remove the files that an earlier recommender left in a folder; they would be read as this one's.

    Args:
        folder: Where a recommender was saved just now.
        own: The files that it wrote, of those that not every recommender has.
    """
    for name in {*RECOMMENDER_FILES, *CATALOG_FILES, *CONTEXT_FILES} - set(own):
        (Path(folder) / name).unlink(missing_ok=True)


def load_catalog(folder: Path) -> "Catalog | None":
    """Load the catalog beside a model, None if there is none."""
    from genrec.data.catalog import CATALOG_FILE, Catalog

    return Catalog.load(folder) if (folder / CATALOG_FILE).is_file() else None


@contextmanager
def switched_to_evaluation(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off, and back on after if the model was being trained."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _check_weights(path: Path) -> None:
    """Refuse a file whose header and size disagree, without reading the weights."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or corrupt ({error}). Copy or train it again.") from error
