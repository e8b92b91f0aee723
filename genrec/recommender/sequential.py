"""`SequentialRecommender`: a model with `score_items`, its catalog and its ladder, from histories to lists of items."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from genrec.data.behaviors import BehaviorLadder
from genrec.data.event_columns import as_id_array
from genrec.data.histories import DEFAULT_GAP_MINUTES, Histories
from genrec.files import read_json, write_json
from genrec.recommender.checkpoint import (
    CATALOG_FILES,
    find_checkpoint,
    load_catalog,
    load_model,
    remove_leftovers,
    save_model,
    switched_to_evaluation,
)
from genrec.recommender.rule_base import CONFIG_FILE, ITEM_IDS_FILE
from genrec.recommender.scoring import ScoringRecommender

if TYPE_CHECKING:
    from genrec.data.catalog import Catalog

SETTINGS = ("batch_size", "gap_minutes")
NO_ROW = -1  # what pads a history


class SequentialRecommender(ScoringRecommender):
    """Recommends the items that a model scores highest after a history.

    The model reads the last `max_history_items` of a history. `recommend` is that of `ScoringRecommender`, with the
    same filters and the same fixed order among equal scores.

    Args:
        model: A model with `score_items(items, behaviors, asked_behavior, sessions, times)`.
        item_ids: The catalog's ids, in the order of the model's items.
        ladder: The behavior ladder.
        catalog: What is known about the items, in the same order; only kept and saved.
        batch_size: Histories per batch.
        gap_minutes: The pause that starts a new session in the histories that are asked about, as in the log that the
            model was trained on; saved with it. A table's own `session` column goes before it.

    Raises:
        ValueError: If the model has another number of items or behaviors, the catalog has other items, or
            `batch_size` is below 1.

    Example:
        >>> from genrec.models.discriminative import SASRecConfig, SASRecModel
        >>> model = SASRecModel(SASRecConfig(num_items=3, num_behaviors=2, hidden_size=8))
        >>> recommender = SequentialRecommender(model, ["a", "b", "c"], "view,buy")
        >>> sorted(recommender.recommend([[("a", "view"), ("b", "view")]], k=3, exclude_seen=True)[0].item_ids)
        ['c']
    """

    def __init__(
        self,
        model: PreTrainedModel,
        item_ids: Sequence[Any] | np.ndarray,
        ladder: str | Sequence[str] | BehaviorLadder,
        catalog: "Catalog | None" = None,
        *,
        batch_size: int = 256,
        gap_minutes: float = DEFAULT_GAP_MINUTES,
    ) -> None:
        super().__init__(self._score_histories, item_ids, ladder, gap_minutes=gap_minutes)
        _check(model, self.item_ids, self.ladder, catalog, batch_size)
        self.model: Any = model
        self.catalog = catalog
        self.batch_size = batch_size

    def _score_histories(self, histories: Histories, behavior: str) -> np.ndarray:
        """Return scores, `[users, items]`."""
        asked = histories.ladder.index(behavior)
        scores = np.empty((len(histories), len(self.item_ids)), dtype=np.float32)
        with switched_to_evaluation(self.model):
            for rows in self._batches(histories):
                padded = padded_histories(histories.select(rows), self.model.config.max_history_items)
                parts = {name: part.to(self.model.device) for name, part in padded.items()}
                scores[rows] = self.model.score_items(**parts, asked_behavior=asked).float().cpu().numpy()
        return scores

    def _batches(self, histories: Histories) -> Iterator[np.ndarray]:
        """Yield rows of similar length, so that little is padding."""
        order = np.argsort(-histories.lengths, kind="stable")
        return (order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model, item ids, ladder and catalog into one folder, each file whole or not at all.

        What an earlier recommender left there is replaced or removed.
        """
        save_model(self.model, folder)
        folder = Path(folder)
        write_json(folder / ITEM_IDS_FILE, self.item_ids.tolist())
        settings = {"behaviors": str(self.ladder), "gap_minutes": self.gap_minutes}
        write_json(folder / CONFIG_FILE, {"recommender": type(self).__name__, **settings})
        if self.catalog is not None:
            self.catalog.save(folder)
        remove_leftovers(folder, [CONFIG_FILE, *(CATALOG_FILES if self.catalog is not None else ())])

    @classmethod
    def from_pretrained(
        cls, folder_or_repo: str | Path, *, device: torch.device | str | None = None, **settings: Any
    ) -> Self:
        """Load a folder or a repository on the Hub.

        Args:
            folder_or_repo: What `save_pretrained` wrote, or a repository id.
            device: Where to put the model; None leaves it on the CPU.
            **settings: `batch_size` and `gap_minutes` (the saved one unless given); and for a repository `revision`,
                `cache_dir`, `token` and `local_files_only`.

        Raises:
            FileNotFoundError: If there is no such recommender there.
            ValueError: If the folder holds another recommender, a file is truncated or corrupt, or the files do not
                belong together.
        """
        own = {name: settings.pop(name) for name in SETTINGS if name in settings}
        folder = find_checkpoint(folder_or_repo, **settings)
        config = read_json(folder / CONFIG_FILE)
        if config["recommender"] != cls.__name__:
            raise ValueError(
                f"{folder} holds a {config['recommender']}, not a {cls.__name__}. Load it with its own class."
            )
        own = {"gap_minutes": config.get("gap_minutes", DEFAULT_GAP_MINUTES), **own}
        model: Any = load_model(folder, AutoModel)
        item_ids = as_id_array(read_json(folder / ITEM_IDS_FILE))
        ladder = BehaviorLadder.parse(config["behaviors"])
        return cls(model if device is None else model.to(device), item_ids, ladder, load_catalog(folder), **own)


def padded_histories(histories: Histories, max_history_items: int) -> dict[str, Tensor]:
    """Return the last items of histories as the rows that `score_items` reads.

    Args:
        histories: One row per user.
        max_history_items: How many of the latest interactions to keep.

    Returns:
        `items`, `behaviors`, `sessions` and `times`, each `[users, length]` int64; where a history is shorter than the
        longest one, it ends with items of -1 and zeros.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> two = as_histories([[("a", "view"), ("b", "buy")], [("b", "view")]], ["a", "b"], "view,buy")
        >>> padded_histories(two, max_history_items=5)["items"].tolist()
        [[0, 1], [1, -1]]
    """
    last = histories.last(max_history_items)
    rows = last.rows
    columns = np.arange(len(rows)) - last.offsets[:-1][rows]

    def placed(values: np.ndarray, filler: int) -> Tensor:
        grid = np.full((len(last), int(last.lengths.max(initial=0))), filler, dtype=np.int64)
        grid[rows, columns] = values
        return torch.from_numpy(grid)

    return {
        "items": placed(last.items, NO_ROW),
        "behaviors": placed(last.behaviors, 0),
        "sessions": placed(last.sessions, 0),
        "times": placed(last.times, 0),
    }


def _check(
    model: PreTrainedModel, item_ids: np.ndarray, ladder: BehaviorLadder, catalog: "Catalog | None", batch_size: int
) -> None:
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    for name, of_model, given in (
        ("items", model.config.num_items, len(item_ids)),
        ("behaviors", model.config.num_behaviors, len(ladder.names)),
    ):
        if of_model != given:
            raise ValueError(
                f"The model knows {of_model} {name} but {given} are given: they do not belong together. Load both from "
                "one folder, or build the model for this catalog and ladder."
            )
    if catalog is not None and not np.array_equal(catalog.item_ids, item_ids):
        raise ValueError(
            f"The catalog's {len(catalog)} items are not the {len(item_ids)} of `item_ids`, or stand in another order. "
            "Pass the catalog that the model was trained on."
        )
