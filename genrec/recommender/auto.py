"""`load_recommender`: whatever recommender a folder or a repository holds."""

from pathlib import Path
from typing import Any

import torch

from genrec.files import read_json
from genrec.recommender.base import Recommender
from genrec.recommender.checkpoint import CONFIG_FILE as MODEL_CONFIG_FILE
from genrec.recommender.checkpoint import find_checkpoint
from genrec.recommender.rule_base import CONFIG_FILE


def load_recommender(
    folder_or_repo: str | Path,
    *,
    device: torch.device | str | None = None,
    num_beams: int = 20,
    batch_size: int | None = None,
    **download: Any,
) -> Recommender:
    """Load a generative model, a scoring model or a rule, by what the folder says it holds.

    Args:
        folder_or_repo: What a recommender's `save_pretrained` wrote, or a repository id.
        device: Where to put a model; None leaves it on the CPU.
        num_beams: Beam width of a generative model.
        batch_size: Histories per batch of a model; None takes its class's own.
        **download: For a repository: `revision`, `cache_dir`, `token` and `local_files_only`.

    Raises:
        FileNotFoundError: If there is no recommender there.
        ValueError: If a file is truncated or corrupt, or the files do not belong together.
    """
    folder = Path(folder_or_repo)
    if not (folder / CONFIG_FILE).is_file():
        folder = find_checkpoint(folder_or_repo, **download)
    kind = read_json(folder / CONFIG_FILE)["recommender"] if (folder / CONFIG_FILE).is_file() else None
    sizes = {} if batch_size is None else {"batch_size": batch_size}
    if kind is None and read_json(folder / MODEL_CONFIG_FILE).get("is_encoder_decoder"):
        from genrec.recommender.encoder_decoder import Seq2SeqRecommender

        return Seq2SeqRecommender.from_pretrained(folder, device=device, num_beams=num_beams, **sizes)
    if kind is None:
        from genrec.recommender.generative import GenerativeRecommender

        return GenerativeRecommender.from_pretrained(folder, device=device, num_beams=num_beams, **sizes)
    if kind == "SequentialRecommender":
        from genrec.recommender.sequential import SequentialRecommender

        return SequentialRecommender.from_pretrained(folder, device=device, **sizes)
    from genrec.recommender.rule_base import RuleRecommender

    return RuleRecommender.from_pretrained(folder)
