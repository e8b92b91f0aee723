"""Files written whole or not at all, and read with an error that says which file is broken."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it takes the final name only if the block succeeds.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with write_atomically(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> [file.name for file in folder.iterdir()]
        ['note.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of `folder` only if the block succeeds.

    Raises:
        ValueError: If the process works in the folder (see `check_replaceable`).

    Example:
        >>> import tempfile
        >>> final = Path(tempfile.mkdtemp()) / "final"
        >>> with replace_folder(final) as temporary:
        ...     _ = (temporary / "a.txt").write_text("whole")
        >>> [path.name for path in final.iterdir()]
        ['a.txt']
    """
    check_replaceable(folder)
    folder = Path(folder).resolve()  # `runs/..` has no name of its own
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, previous = (folder.with_name(f".{folder.name}.{part}") for part in ("partial", "previous"))
    for leftover in (temporary, previous):  # of a killed run
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            folder.rename(previous)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(previous, ignore_errors=True)


def check_replaceable(folder: str | Path) -> None:
    """Refuse to replace the folder that the process works in, which would leave it, and its shell, in a removed one.

    Raises:
        ValueError: If the working folder is this one or lies in it.
    """
    resolved = Path(folder).resolve()
    if resolved.exists() and Path.cwd().is_relative_to(resolved):
        raise ValueError(
            f"The folder {str(folder)!r} would be replaced, but it is, or holds, the one you work in: {Path.cwd()}. "
            "Name another folder, for example a new one in it, or start from elsewhere."
        )


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON with sorted-as-given keys, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not whole JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): it is truncated or corrupt. Write or copy it again."
        ) from error


def save_safetensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as one safetensors file, atomically."""
    with write_atomically(path) as temporary:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata=dict(metadata or {}))


def load_safetensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated or corrupt.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or corrupt ({error}). Copy or train it again.") from error


def fingerprint(*parts: Any) -> str:
    """Return a short content hash of JSON-like values and of files (given as `Path`).

    Example:
        >>> fingerprint({"a": 1}) == fingerprint({"a": 1}), fingerprint(1) == fingerprint(2)
        (True, False)
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]
