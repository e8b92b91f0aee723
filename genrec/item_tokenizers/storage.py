"""An item tokenizer's three files: written, found in a folder or on the Hub, and read with their faults named."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genrec.data.behaviors import BehaviorLadder
from genrec.files import fingerprint, load_safetensors, read_json, save_safetensors, write_json
from genrec.item_tokenizers.code_table import CodeTable, check_item_ids
from genrec.version import __version__

CONFIG_FILE = "item_tokenizer.json"
TENSORS_FILE = "item_tokenizer.safetensors"
ITEM_IDS_FILE = "item_ids.json"
FILES = (CONFIG_FILE, TENSORS_FILE, ITEM_IDS_FILE)
FORMAT_VERSION = 1

CARD = """---
library_name: genrec
tags:
- item-tokenizer
- generative-recommendation
---

# {name}

An item tokenizer of the library genrec: the codes of {num_items} items, codebooks {sizes},
behaviors `{ladder}`.

```python
import genrec

tokenizer = genrec.AutoItemTokenizer.from_pretrained("{repo_id}")
```

```text
{report}
```
"""


@dataclass(frozen=True)
class SavedTokenizer:
    """What the three files hold.

    Args:
        tokenizer_class: Name of the class.
        settings: Its constructor's arguments.
        ladder: The behavior ladder.
        table: Items and codes.
        learned: The tensors that the class needs beside them.
    """

    tokenizer_class: str
    settings: Mapping[str, Any]
    ladder: BehaviorLadder
    table: CodeTable
    learned: dict[str, Tensor]


def write_files(folder: Path, saved: SavedTokenizer) -> None:
    """Write all three files, each atomically; the one that vouches for the others comes last."""
    table = saved.table
    write_json(folder / ITEM_IDS_FILE, table.item_ids.tolist())
    catalog = {"codes": table.codes.int(), "raw_codes": table.raw_codes.int()}
    if table.errors is not None:
        catalog["errors"] = table.errors
    save_safetensors(folder / TENSORS_FILE, catalog | saved.learned)
    config = {
        "format_version": FORMAT_VERSION,
        "genrec_version": __version__,
        "tokenizer_class": saved.tokenizer_class,
        "settings": dict(saved.settings),
        "behaviors": str(saved.ladder),
        "codebook_sizes": list(table.codebook_sizes),
        "num_items": len(table),
        "fingerprint": fingerprint(folder / ITEM_IDS_FILE, folder / TENSORS_FILE),
    }
    write_json(folder / CONFIG_FILE, config)


def read_files(folder: Path) -> SavedTokenizer:
    """Read all three files.

    Raises:
        FileNotFoundError: If one is missing.
        ValueError: If one is truncated or corrupt, or they do not belong together.
    """
    config = read_config(folder)
    learned = load_safetensors(folder / TENSORS_FILE)
    item_ids = check_item_ids(read_json(folder / ITEM_IDS_FILE))
    if fingerprint(folder / ITEM_IDS_FILE, folder / TENSORS_FILE) != config["fingerprint"]:
        raise ValueError(
            f"The item tokenizer's files in {folder} do not belong together: {CONFIG_FILE} was written for others than "
            f"{ITEM_IDS_FILE} and {TENSORS_FILE}. Save or copy all three again."
        )
    codes, raw_codes = learned.pop("codes").long(), learned.pop("raw_codes").long()
    sizes = tuple(config["codebook_sizes"])
    if codes.shape[1] != len(sizes) or (codes >= torch.tensor(sizes)).any():
        raise ValueError(
            f"{folder / CONFIG_FILE} says `codebook_sizes` {list(sizes)}, but {TENSORS_FILE} has codes up to "
            f"{codes.amax(dim=0).tolist()}. It was edited; save or copy it again."
        )
    table = CodeTable(item_ids, codes, sizes, raw_codes, learned.pop("errors", None))
    ladder = BehaviorLadder.parse(config["behaviors"])
    return SavedTokenizer(config["tokenizer_class"], config["settings"], ladder, table, learned)


def read_config(folder: Path) -> dict[str, Any]:
    """Read `item_tokenizer.json`.

    Raises:
        ValueError: If it is not whole, lacks a field or was written by a later format.
    """
    config = read_json(folder / CONFIG_FILE)
    wanted = {"format_version", "tokenizer_class", "settings", "behaviors", "codebook_sizes", "fingerprint"}
    missing = sorted(wanted - set(config)) if isinstance(config, dict) else sorted(wanted)
    if missing:
        raise ValueError(
            f"{folder / CONFIG_FILE} lacks {', '.join(missing)}: it is no fitted item tokenizer's file, or it was "
            "edited. Write it with `save_pretrained`."
        )
    if config["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{folder / CONFIG_FILE} has format version {config['format_version']}, this genrec reads up to "
            f"{FORMAT_VERSION}. Upgrade genrec."
        )
    return dict(config)


def find_folder(folder_or_repo: str | Path, **download: Any) -> Path:
    """Return a local folder with an item tokenizer's files, downloading them if a repository is named.

    Args:
        folder_or_repo: A folder, or a repository id such as `"org/name"`.
        **download: Passed to `huggingface_hub.snapshot_download`: `revision`, `cache_dir`, `token`,
            `local_files_only`.

    Raises:
        FileNotFoundError: If the folder or repository has no `item_tokenizer.json`.
    """
    folder = Path(folder_or_repo)
    if not folder.is_dir():
        if not _may_be_repository(str(folder_or_repo)):
            raise FileNotFoundError(
                f"There is no folder {str(folder)!r}. Name a saved folder or a repository `org/name`."
            )
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(str(folder_or_repo), allow_patterns=list(FILES), **download))
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{str(folder_or_repo)!r} has no {CONFIG_FILE}, so it holds no item tokenizer. "
            "Write one there with `save_pretrained`."
        )
    return folder


def push_files(tokenizer: Any, repo_id: str, *, commit_message: str, private: bool | None, token: str | None) -> str:
    """Upload an item tokenizer's files and a card in one commit, creating the repository if needed; return its URL.

    Args:
        tokenizer: The fitted item tokenizer.
        repo_id: `"org/name"`.
        commit_message: First line of the commit.
        private: Whether a new repository is private; None means the account's default.
        token: Access token; None means the stored one.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        card = CARD.format(
            name=repo_id.split("/")[-1],
            num_items=len(tokenizer),
            sizes=tokenizer.codebook_sizes,
            ladder=tokenizer.ladder,
            repo_id=repo_id,
            report=tokenizer.report(),
        )
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
    return str(commit.repo_url)


def _may_be_repository(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1 and "\\" not in name
