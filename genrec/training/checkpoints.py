"""The folders that a run resumes from: which is the newest, and whether all its files are whole.

Weights are safetensors. The optimizer's and the random generators' states are files that transformers writes with
`torch.save` and reads back as plain tensors (`weights_only`); they serve resuming alone and are part of no checkpoint
that is published.
"""

import json
import re
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def newest_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the checkpoint of the latest step that was written to its end, or None.

    The trainer's state is the last file of a checkpoint, so a folder that a killed run left half-written lacks it.
    Folders whose name ends in no step, such as a copy called `checkpoint-best`, are not looked at.
    """
    states = Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")
    steps = {state.parent: step for state in states if (step := _step(state.parent)) is not None}
    whole = [folder for folder in steps if _fault(folder / TRAINER_STATE_NAME) is None]
    return max(whole, key=lambda folder: steps[folder], default=None)


def check_checkpoint(folder: str | Path) -> None:
    """Refuse a checkpoint with a truncated or corrupt file, before anything is read from it.

    Raises:
        ValueError: If a file is not whole, or the folder is no checkpoint.
    """
    folder = Path(folder)
    if not (folder / TRAINER_STATE_NAME).is_file():
        raise ValueError(
            f"{folder} is no whole checkpoint to resume from: it has no {TRAINER_STATE_NAME}. Resume from another."
        )
    for path in sorted(folder.iterdir()):
        if (fault := _fault(path)) is not None:
            raise ValueError(
                f"{path} is truncated or corrupt ({fault}). Delete the folder {folder.name} and resume from an earlier "
                "checkpoint."
            )


def newest_checkpoint_or_raise(output_dir: str | None) -> str:
    """Return the newest whole checkpoint.

    Raises:
        ValueError: If there is none.
    """
    checkpoint = newest_checkpoint(output_dir or ".")
    if checkpoint is None:
        raise ValueError(f"There is no whole checkpoint in {output_dir} to resume from. Start without resuming.")
    return str(checkpoint)


def check_folder_is_free(output_dir: str | None) -> None:
    """Refuse a folder with a checkpoint of an earlier run.

    Raises:
        ValueError: If it has one.
    """
    checkpoint = newest_checkpoint(output_dir or ".")
    if checkpoint is not None:
        raise ValueError(
            f"{checkpoint} is of an earlier run, which a new one would mix with. Pass `resume_from_checkpoint=True` to "
            "go on with it, delete it, or choose another `output_dir`."
        )


def _step(folder: Path) -> int | None:
    """Return the step that a checkpoint's name tells, None if it tells none."""
    match = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-([0-9]+)", folder.name)
    return None if match is None else int(match.group(1))


def _fault(path: Path) -> str | None:
    """Say what is wrong with a file as far as its form shows, without reading weights; None if nothing is."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                pass
        elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):  # what `torch.save` writes
            return "no whole zip archive"
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        return str(error)
    return None
