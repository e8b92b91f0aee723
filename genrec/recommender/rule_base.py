"""What the rules share: settings as dataclass fields, fit, tune, top k, save and load."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from genrec.data.behaviors import BehaviorLadder
from genrec.data.event_columns import as_id_array
from genrec.data.histories import Histories, Queries
from genrec.files import load_safetensors, read_json, save_safetensors, write_json
from genrec.recommender.base import Recommendations
from genrec.recommender.scoring import ScoringRecommender
from genrec.recommender.tuning import Settings, coordinate_search, merged_ndcg

CONFIG_FILE = "recommender.json"
ARRAYS_FILE = "recommender.safetensors"
ITEM_IDS_FILE = "item_ids.json"
MAX_TUNING_QUERIES = 1000

Arrays = dict[str, np.ndarray]


@dataclass(eq=False)
class RuleRecommender(ABC):
    """A recommender that counts instead of training.

    Subclasses are dataclasses whose fields are the settings. They say what to count (`_count`) and how counts and a
    history score an item (`_score`).

    Attributes:
        grid: The values that `tune` tries for each setting, one setting at a time in this order.
        scoring_settings: The settings that do not change the counts, so that trying them needs no new fit.
        trials: What `tune` tried: settings and their merged NDCG as `figure`, in order. Empty before.
    """

    grid: ClassVar[Mapping[str, Sequence[Any]]]
    scoring_settings: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self.trials: list[Settings] = []
        self._train: Histories | None = None
        self._arrays: Arrays = {}
        self._scoring: ScoringRecommender | None = None

    @property
    def settings(self) -> Settings:
        """The settings by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def item_ids(self) -> np.ndarray:
        """The ids of what can be recommended, in row order, `[items]`.

        Raises:
            ValueError: If the recommender has not been fitted.
        """
        return self._fitted().item_ids

    def fit(self, train: Histories) -> Self:
        """Count in the training histories, and return the recommender itself.

        Raises:
            ValueError: If there is no event, or a setting needs times that the histories lack.
        """
        if len(train.items) == 0:
            raise ValueError("The training histories hold no event, so there is nothing to count. Check the split.")
        self._train = train
        return self._set_arrays(self._count(train), train.item_ids, train.ladder)

    def tune(
        self,
        validation: Queries,
        k: int = 10,
        max_queries: int = MAX_TUNING_QUERIES,
        seed: int = 0,
        settings: Iterable[str] | None = None,
    ) -> Self:
        """Choose the settings by merged NDCG@k on validation queries, and return the recommender itself.

        Tries `grid` one setting at a time, starting from the present settings, at most twice over; see `trials`.

        Args:
            validation: Queries over the catalog of the training histories.
            k: Length of the lists.
            max_queries: Where there are more queries, this many of them are drawn.
            seed: Seed of that draw.
            settings: Which settings to choose; the others stay. None means all of `grid`.

        Raises:
            ValueError: If the recommender has not been fitted in this process, no query has a target, or there is no
                such setting.
        """
        if self._train is None:
            raise ValueError(f"{type(self).__name__} counts anew while tuning. Call `fit(train)` before `tune`.")
        if len(validation) > max_queries:
            drawn = np.random.default_rng(seed).choice(len(validation), max_queries, replace=False)
            validation = validation.select(np.sort(drawn))
        fitted = {self._counting_key(self.settings): self}

        def measure(trial: Settings) -> float:
            return merged_ndcg(self._with(trial, fitted), validation, k)

        self.trials = coordinate_search(measure, self.settings, self._grid_of(settings, self._train))
        best = dict(max(self.trials, key=lambda trial: trial["figure"]))
        del best["figure"]
        chosen = self._with(best, fitted)
        for name, value in best.items():
            setattr(self, name, value)
        return self._set_arrays(chosen._arrays, self._train.item_ids, self._train.ladder)

    def recommend(
        self,
        histories: Any,
        k: int = 10,
        behavior: str | None = None,
        *,
        at: Any = None,
        exclude_seen: bool = False,
        allow: Iterable[Any] | np.ndarray | None = None,
        deny: Iterable[Any] | np.ndarray | None = None,
        unknown_items: str = "skip",
    ) -> Recommendations:
        """Return the k best items for each history. Arguments as in `ScoringRecommender.recommend`.

        Raises:
            ValueError: If the recommender has not been fitted, and as `ScoringRecommender.recommend` does.
        """
        return self._fitted().recommend(
            histories,
            k,
            behavior,
            at=at,
            exclude_seen=exclude_seen,
            allow=allow,
            deny=deny,
            unknown_items=unknown_items,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write settings, counts and item ids to a folder: JSON and safetensors."""
        scoring = self._fitted()
        folder = Path(folder)
        config = {"recommender": type(self).__name__, "behaviors": str(scoring.ladder), "settings": self.settings}
        save_safetensors(folder / ARRAYS_FILE, {name: torch.from_numpy(a) for name, a in self._arrays.items()})
        write_json(folder / ITEM_IDS_FILE, scoring.item_ids.tolist())
        write_json(folder / CONFIG_FILE, {**config, "trials": self.trials})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote; `RuleRecommender.from_pretrained` reads whichever rule the folder holds.

        Raises:
            ValueError: If the folder holds another recommender, or a file is truncated or corrupt.
        """
        folder = Path(folder)
        config = read_json(folder / CONFIG_FILE)
        rule = getattr(importlib.import_module("genrec.recommender"), config["recommender"], None)
        if not (isinstance(rule, type) and issubclass(rule, cls)):
            raise ValueError(
                f"{folder} holds a {config['recommender']}, not a {cls.__name__}. Load it with its own class."
            )
        recommender = rule(**config["settings"])
        recommender.trials = config["trials"]
        arrays = {name: tensor.numpy() for name, tensor in load_safetensors(folder / ARRAYS_FILE).items()}
        item_ids = as_id_array(read_json(folder / ITEM_IDS_FILE))
        return recommender._set_arrays(arrays, item_ids, BehaviorLadder.parse(config["behaviors"]))

    @abstractmethod
    def _count(self, train: Histories) -> Arrays:
        """Return everything that `_score` needs, as arrays that can be saved."""

    @abstractmethod
    def _score(self, histories: Histories, behavior: str) -> np.ndarray:
        """Return scores, `[users, items]`."""

    def _usable_grid(self, train: Histories) -> Mapping[str, Sequence[Any]]:
        """Return the part of the grid that these histories allow."""
        return self.grid

    def _grid_of(self, settings: Iterable[str] | None, train: Histories) -> Mapping[str, Sequence[Any]]:
        chosen = set(self.grid if settings is None else settings)
        if not chosen <= set(self.grid):
            wrong = sorted(chosen - set(self.grid))[0]
            raise ValueError(f"`settings` names {wrong!r}, but {type(self).__name__} tunes {', '.join(self.grid)}.")
        return {name: values for name, values in self._usable_grid(train).items() if name in chosen}

    def _set_arrays(self, arrays: Arrays, item_ids: np.ndarray, ladder: BehaviorLadder) -> Self:
        self._arrays = arrays
        self._scoring = ScoringRecommender(self._score, item_ids, ladder)
        return self

    def _with(self, settings: Settings, fitted: dict[tuple[Any, ...], Self]) -> Self:
        """Return a copy with these settings, counting only if no copy in `fitted` has counted so before."""
        assert self._train is not None
        copy = replace(self, **settings)
        key = self._counting_key(settings)
        if key not in fitted:
            fitted[key] = copy.fit(self._train)
        return copy._set_arrays(fitted[key]._arrays, self._train.item_ids, self._train.ladder)

    def _counting_key(self, settings: Settings) -> tuple[Any, ...]:
        return tuple(value for name, value in settings.items() if name not in self.scoring_settings)

    def _fitted(self) -> ScoringRecommender:
        if self._scoring is None:
            raise ValueError(f"{type(self).__name__} has not been fitted. Call `fit(train)` first.")
        return self._scoring
