"""`AutoItemTokenizer`: the right class for a saved item tokenizer or a preset."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.behaviors import BehaviorLadder
from genrec.files import read_json
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.item_tokenizers.storage import CONFIG_FILE, find_folder, read_config
from genrec.presets import preset_path

HOMES = {
    "ChunkedIDTokenizer": "genrec.item_tokenizers.chunked",
    "GivenCodesTokenizer": "genrec.item_tokenizers.given",
    "RQKMeansTokenizer": "genrec.item_tokenizers.rqkmeans",
    "RQVAETokenizer": "genrec.item_tokenizers.rqvae",
}
"""Class name -> module."""


class AutoItemTokenizer:
    """Makes item tokenizers without naming their class; it is never instantiated."""

    def __init__(self) -> None:
        raise TypeError("AutoItemTokenizer is made with `from_pretrained`, `from_preset` or `from_codes`.")

    @classmethod
    def from_pretrained(cls, folder_or_repo: str | Path, **download: Any) -> ItemTokenizer:
        """Load an item tokenizer from a folder or a repository on the Hub.

        Args:
            folder_or_repo: What `save_pretrained` wrote, or a repository id.
            **download: `revision`, `cache_dir`, `token`, `local_files_only` for a repository.

        Raises:
            FileNotFoundError: If there is no item tokenizer there.
            ValueError: If a file is truncated or corrupt.
        """
        folder = find_folder(folder_or_repo, **download)
        return tokenizer_class(read_config(folder)["tokenizer_class"]).from_pretrained(folder)

    @classmethod
    def from_preset(cls, name: str, **settings: Any) -> ItemTokenizer:
        """Return an item tokenizer with a preset's settings, not fitted yet.

        Args:
            name: A folder of `tokenizers/`, for example `"rqkmeans-auto"`.
            **settings: Constructor arguments that replace the preset's.

        Raises:
            ValueError: If there is no such preset.

        Example:
            >>> AutoItemTokenizer.from_preset("chunked-64", shuffle=True).settings["chunk_size"]
            64
        """
        preset = read_json(preset_path("tokenizers", name) / CONFIG_FILE)
        return tokenizer_class(preset["tokenizer_class"])(**preset["settings"] | settings)

    @classmethod
    def from_codes(
        cls,
        codes: Any,
        item_ids: Sequence[Any] | np.ndarray,
        behaviors: str | Sequence[str] | BehaviorLadder,
        on_collision: str = "repair",
    ) -> ItemTokenizer:
        """Return an item tokenizer of codes from elsewhere: released semantic IDs, random codes, another tool's.

        Of a log in the released GAMER layout the arguments are `prepared.released_codes()`,
        `prepared.catalog.item_ids` and `prepared.ladder`; of an index file alone, see
        `genrec.data.gamer_layout.read_semantic_ids`.

        Args:
            codes: Integers from 0, `[items, levels]`.
            item_ids: One id per row.
            behaviors: The behavior ladder.
            on_collision: `"repair"` makes codes one to one, `"keep"` leaves them; the report counts them either way.

        Raises:
            ValueError: If codes are no such integers, an item has none, or ids repeat or do not match the rows.

        Example:
            >>> AutoItemTokenizer.from_codes([[2, 0], [2, 1]], ["a", "b"], "view,buy").encode(["b"]).tolist()
            [[2, 1]]
        """
        from genrec.item_tokenizers.given import GivenCodesTokenizer

        return GivenCodesTokenizer.from_codes(codes, item_ids, behaviors, on_collision=on_collision)


def tokenizer_class(name: str) -> type[ItemTokenizer]:
    """Return an item tokenizer class by its name.

    Raises:
        ValueError: If there is no such class.
    """
    if name not in HOMES:
        raise ValueError(f"There is no item tokenizer class {name!r}. Choose one of {', '.join(HOMES)}.")
    found: type[ItemTokenizer] = getattr(importlib.import_module(HOMES[name]), name)
    return found
