"""`GenerativeRecommender`: a model, its item tokenizer and its catalog, from histories to lists of items."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from genrec.data.candidates import Asked, QueryContext, check_context
from genrec.data.histories import DEFAULT_GAP_MINUTES, Histories
from genrec.item_tokenizers.auto import AutoItemTokenizer
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.item_tokenizers.inputs import candidate_tensors, moments_asked, prompt_tensors
from genrec.recommender.base import NO_ITEM, Recommendations
from genrec.recommender.batch_search import BatchSearch
from genrec.recommender.checkpoint import (
    CATALOG_FILES,
    CONTEXT_FILES,
    find_checkpoint,
    load_catalog,
    load_model,
    remove_leftovers,
    save_model,
    switched_to_evaluation,
)
from genrec.recommender.filters import ItemFilter, build_item_filter
from genrec.recommender.found_items import found_items
from genrec.recommender.reading import check_gap_minutes, load_gap_minutes, read_histories, save_gap_minutes
from genrec.recommender.scoring import check_k
from genrec.recommender.served_catalog import ServedCatalog

if TYPE_CHECKING:
    from genrec.data.catalog import Catalog

SETTINGS = ("num_beams", "batch_size", "search", "compile_search", "gap_minutes")
MAX_PREPARED_MOMENTS = 50_000  # a few kilobytes each
PROGRESS_DELAY_SECONDS = 2.0


class GenerativeRecommender:
    """Recommends the items whose codes a model finds most likely to come next.

    The score of an item is the sum of its codes' log-probabilities. Only items of the catalog come out, none twice;
    where fewer than k qualify, or fewer survive in the beams, the list is short.

    Args:
        model: A causal language model over the item tokenizer's vocabulary.
        tokenizer: The item tokenizer it was trained with.
        catalog: What is known about the items, in the tokenizer's row order; only kept and saved.
        num_beams: Beam width; at least k is used.
        batch_size: Histories per batch.
        search: `"fast"` computes each prompt once (`constrained_beam_search`, for GAMER); `"generate"` is
            transformers' own beam search with a logits processor, for any model.
        compile_search: Whether to run the fast search compiled, in batches padded to few shapes, and on CUDA as one
            graph per shape. The first batch of each shape takes long (see `genrec.generation.search_buckets`).
        context: What all users did, for models with `trend_head` or `neighbor_head`.
        gap_minutes: The pause that starts a new session in the histories that are asked about, as in the log that the
            model was trained on; saved with it. A table's own `session` column goes before it.

    Raises:
        ValueError: If the model and the tokenizer, the tokenizer and the catalog, or the model and the context do not
            belong together, or a setting is out of range.

    Example:
        >>> from genrec.item_tokenizers import ChunkedIDTokenizer
        >>> from genrec.models.gamer import GamerConfig, GamerForCausalLM
        >>> tokenizer = ChunkedIDTokenizer(chunk_size=2).fit(None, ["a", "b", "c"], "view,buy")
        >>> config = GamerConfig(
        ...     hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        ...     head_dim=8, **tokenizer.model_config_fields(),
        ... )
        >>> recommender = GenerativeRecommender(GamerForCausalLM(config), tokenizer)
        >>> sorted(recommender.recommend([[("a", "view"), ("b", "view")]], k=3)[0].item_ids)
        ['a', 'b', 'c']
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: ItemTokenizer,
        catalog: "Catalog | None" = None,
        *,
        num_beams: int = 20,
        batch_size: int = 64,
        search: str = "fast",
        compile_search: bool = False,
        context: QueryContext | None = None,
        gap_minutes: float = DEFAULT_GAP_MINUTES,
    ) -> None:
        if num_beams < 1 or batch_size < 1:
            raise ValueError(f"`num_beams` and `batch_size` must be at least 1, got {num_beams} and {batch_size}.")
        _check_parts(model, tokenizer, catalog, context)
        self.model: Any = model
        self.num_beams = num_beams
        self.batch_size = batch_size
        self.search = search
        self.gap_minutes = check_gap_minutes(gap_minutes)
        self._search = BatchSearch(model, search, compile_search)
        self._served = ServedCatalog.of(tokenizer, catalog, context)

    @property
    def tokenizer(self) -> ItemTokenizer:
        """The item tokenizer."""
        return self._served.tokenizer

    @property
    def catalog(self) -> "Catalog | None":
        """What is known about the items."""
        return self._served.catalog

    @property
    def item_ids(self) -> np.ndarray:
        """The ids of what can be recommended, in row order, `[items]`."""
        return self.tokenizer.item_ids

    @property
    def context(self) -> QueryContext | None:
        """What all users did, by the item tokenizer's present rows."""
        return self._served.up_to_date(self.model.device).context

    def swap_catalog(
        self, tokenizer: ItemTokenizer, catalog: "Catalog | None" = None, context: QueryContext | None = None
    ) -> None:
        """Recommend from another catalog from now on, without a restart.

        Requests that other threads have under way finish on the old one. Everything is built and checked beforehand:
        a request sees the one catalog or the other, and after an error still the old one.

        Args:
            tokenizer: An item tokenizer of the same vocabulary, for example a loaded copy with `add_items` called.
            catalog: What is known about its items.
            context: What all users did, over its items; `QueryContext.for_items` brings one over from another catalog.

        Raises:
            ValueError: If the tokenizer is not of the model's vocabulary, or the others not of the tokenizer.
        """
        _check_parts(self.model, tokenizer, catalog, context)
        self._served = ServedCatalog.of(tokenizer, catalog, context, self.model.device)

    def recommend(
        self,
        histories: Any,
        k: int = 10,
        behavior: str | None = None,
        *,
        exclude_seen: bool = False,
        allow: Iterable[Any] | np.ndarray | None = None,
        deny: Iterable[Any] | np.ndarray | None = None,
        unknown_items: str = "skip",
        at: Any = None,
    ) -> Recommendations:
        """Return the k best items for each history; fewer where fewer qualify.

        The model reads the last `max_history_items` of a history. Sampling and other generation settings that came
        with the model are not used. A progress bar shows in a terminal once it takes more than two seconds.

        Args:
            histories: Histories in any form that `genrec.data.histories.as_histories` reads. An empty one is a cold
                user and gets the model's prior.
            k: Items per user.
            behavior: The behavior to predict; None means the target behavior, the strongest of the ladder.
            exclude_seen: Whether to leave out what a user's history holds.
            allow: Item ids, or a boolean mask `[items]` or `[users, items]`: nothing else may be recommended.
            deny: Written like `allow`: what may not be recommended.
            unknown_items: `"skip"` or `"error"` for interactions whose item the catalog lacks.
            at: The moment of the question, or one per user: seconds since 1970, a `datetime` or ISO text. What is not
                before it is left out (`num_later` counts). None means the histories' own `query_times`, or without
                any, for a model that reads times, a second after all that is known.

        Raises:
            ValueError: If `k` is below 1, the behavior is unknown, or histories, filters or `at` cannot be read.
        """
        filters = {"exclude_seen": exclude_seen, "allow": allow, "deny": deny}
        (lists,) = self._recommend(histories, k, [behavior], unknown_items=unknown_items, at=at, **filters).values()
        return lists

    def recommend_each(
        self, histories: Any, k: int = 10, behaviors: Sequence[str] | None = None, **settings: Any
    ) -> dict[str, Recommendations]:
        """Return the k best items for each history and each of several behaviors.

        The same as asking one by one, but each history is computed once.

        Args:
            histories: As in `recommend`.
            k: Items per user and behavior.
            behaviors: The behaviors to predict; None means all, weakest first.
            **settings: `exclude_seen`, `allow`, `deny`, `unknown_items` and `at` of `recommend`.

        Raises:
            ValueError: As in `recommend`, and if no behavior is asked for or one twice.
        """
        names = self.tokenizer.behaviors if behaviors is None else list(behaviors)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"`behaviors` must name at least one behavior, each once, got {names}.")
        return self._recommend(histories, k, names, **settings)

    def _recommend(
        self,
        histories: Any,
        k: int,
        behaviors: Sequence[str | None],
        *,
        unknown_items: str = "skip",
        at: Any = None,
        **filters: Any,
    ) -> dict[str, Recommendations]:
        """Return each behavior's lists, in the order asked for."""
        check_k(k)
        self._served = served = self._served.up_to_date(self.model.device)
        names = [served.ladder.target if behavior is None else behavior for behavior in behaviors]
        asked = [served.ladder.index(name) for name in names]
        read = self._read(histories, served, unknown_items=unknown_items, at=at)
        read = self._with_query_times(read, served)
        served = self._prepared_for(read, served)
        item_filter = build_item_filter(read, index=served.index, **filters)
        items = np.full((len(names), len(read), k), NO_ITEM, dtype=np.int64)
        scores = np.full((len(names), len(read), k), -np.inf)
        with switched_to_evaluation(self.model), _progress(len(read)) as progress:
            for rows in self._batches(read):
                items[:, rows], scores[:, rows] = self._answer(read.select(rows), rows, served, asked, item_filter, k)
                progress.update(len(rows))
        skipped = (read.num_unknown, read.num_later)
        return {
            name: Recommendations(items[number], scores[number], served.item_ids, read.users, *skipped)
            for number, name in enumerate(names)
        }

    def update(self, events: Any) -> None:
        """Let the model know what happened since: it counts from the next request on, without training.

        Args:
            events: Histories in any form that `as_histories` reads, with times. Items that the catalog lacks are left
                out.

        Raises:
            ValueError: If the recommender has no context, or the events have no times, or none in seconds.
        """
        served = self._served.up_to_date(self.model.device)
        if served.context is None:
            raise ValueError(
                "This recommender's model does not look at what all users do, so there is nothing to update."
            )
        read = self._read(events, served)
        if len(read.items) and not read.has_times:
            raise ValueError("An update needs the time of each event. Give events as (item, behavior, time).")
        context = served.context.with_events(read.items, read.behaviors, read.times)
        self._served = replace(served, context=context)

    def _read(self, histories: Any, served: ServedCatalog, **settings: Any) -> Histories:
        return read_histories(histories, served.index, served.ladder, gap_minutes=self.gap_minutes, **settings)

    def _with_query_times(self, read: Histories, served: ServedCatalog) -> Histories:
        """Return histories that a model that reads times can be asked about: now, where nothing else is said."""
        config = self.model.config
        reads_times = getattr(config, "has_mixture", False) or getattr(config, "time_context", False)
        if not reads_times or read.query_times is not None:
            return read
        known = moments_asked(read)
        if served.context is not None and len(served.context.events):
            known = np.maximum(known, served.context.events.times[-1] + 1)
        return replace(read, query_times=known)

    def _prepared_for(self, read: Histories, served: ServedCatalog) -> ServedCatalog:
        """Return a catalog whose context has counted what rises at all moments asked about, in one go over time.

        Each batch by itself would go over all events, because its users are of like length and not of like time.
        """
        if served.context is None or not self.model.config.trend_head or read.query_times is None:
            return served
        if len(read) <= self.batch_size or len(np.unique(read.query_times)) > MAX_PREPARED_MOMENTS:
            return served
        return replace(served, context=served.context.prepared(read.query_times))

    def _prompts(self, part: Histories, served: ServedCatalog, asked: int) -> dict[str, Tensor]:
        """Return the model's inputs for one behavior asked of some users."""
        length = getattr(self.model.config, "max_history_items", None)
        prompts = prompt_tensors(part, served.item_tokens, served.vocabulary, asked, length)
        return {name: tensor.to(self.model.device) for name, tensor in prompts.items()}

    def _candidates(self, part: Histories, served: ServedCatalog, asked: list[int]) -> list[dict[str, Tensor]]:
        """Return for each behavior what its users may be pointed at; a user's neighbors are looked up once."""
        if served.context is None:
            return [{} for _ in asked]
        config = self.model.config
        queries = Asked.of_histories(part.last(config.max_history_items), asked, served.context.num_recent)
        tensors = candidate_tensors(
            served.context,
            queries,
            served.item_tokens,
            has_trend=config.trend_head,
            has_neighbors=config.neighbor_head,
        )
        tensors = {name: tensor.to(self.model.device) for name, tensor in tensors.items()}
        return [{name: tensor[place :: len(asked)] for name, tensor in tensors.items()} for place in range(len(asked))]

    def _batches(self, histories: Histories) -> Iterator[np.ndarray]:
        """Yield rows of similar length, the longest first: they need the most memory, so a lack of it shows at once."""
        order = np.argsort(-histories.lengths, kind="stable")
        return (order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size))

    def _answer(
        self,
        part: Histories,
        rows: np.ndarray,
        served: ServedCatalog,
        asked: list[int],
        item_filter: ItemFilter,
        k: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the items and scores of one batch, `[behaviors, users, k]` each.

        Args:
            part: The histories of the batch.
            rows: Their rows in the request `[users]`.
            served: The catalog.
            asked: The behaviors' indices.
            item_filter: What may come out.
            k: Items per list.
        """
        allowed = item_filter.allowed(part, rows)
        mask = None if allowed is None else torch.from_numpy(allowed).to(self.model.device)
        candidates = self._candidates(part, served, asked)
        prompts = [self._prompts(part, served, behavior) | candidates[place] for place, behavior in enumerate(asked)]
        sizes = {"num_beams": max(self.num_beams, k), "num_return_sequences": k}
        output = self._search(self.model, prompts, served.trie, mask, sizes)
        if allowed is not None and allowed.ndim == 2:
            allowed = np.repeat(allowed, len(asked), axis=0)
        found = found_items(output, served.trie, allowed, k)
        items, scores = (lists.reshape(len(rows), len(asked), k).swapaxes(0, 1) for lists in found)
        return items, scores

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model, item tokenizer and catalog into one folder, each file whole or not at all.

        What an earlier recommender left there is replaced or removed.

        Raises:
            ValueError: If items came or went in the tokenizer since, and the catalog did not follow.
        """
        _check_catalog(self.catalog, self.tokenizer)
        save_model(self.model, folder)
        self.tokenizer.save_pretrained(folder)
        save_gap_minutes(folder, self.gap_minutes)
        context = self.context
        own: list[str] = []
        if self.catalog is not None:
            self.catalog.save(folder)
            own += CATALOG_FILES
        if context is not None:
            context.save(folder)
            own += CONTEXT_FILES
        remove_leftovers(folder, own)

    @classmethod
    def from_pretrained(
        cls, folder_or_repo: str | Path, *, device: torch.device | str | None = None, **settings: Any
    ) -> Self:
        """Load a checkpoint folder or a repository on the Hub.

        Args:
            folder_or_repo: What `save_pretrained` wrote, or a repository id.
            device: Where to put the model; None leaves it on the CPU.
            **settings: `num_beams`, `batch_size`, `search`, `compile_search` and `gap_minutes` (the saved one unless
                given); and for a repository `revision`, `cache_dir`, `token` and `local_files_only`.

        Raises:
            FileNotFoundError: If there is no checkpoint there.
            ValueError: If a file is truncated or corrupt, or the files do not belong together.
        """
        own = {name: settings.pop(name) for name in SETTINGS if name in settings}
        folder = find_checkpoint(folder_or_repo, **settings)
        own = {"gap_minutes": load_gap_minutes(folder), **own}
        tokenizer = AutoItemTokenizer.from_pretrained(folder)
        model: Any = load_model(folder)
        model = model if device is None else model.to(device)
        return cls(model, tokenizer, load_catalog(folder), context=QueryContext.load(folder), **own)


def _check_parts(
    model: PreTrainedModel, tokenizer: ItemTokenizer, catalog: "Catalog | None", context: QueryContext | None
) -> None:
    _check_match(model, tokenizer)
    check_context(model.config, context, len(tokenizer))
    _check_catalog(catalog, tokenizer)


def _check_match(model: PreTrainedModel, tokenizer: ItemTokenizer) -> None:
    for name, value in tokenizer.model_config_fields().items():
        of_model = getattr(model.config, name, value)
        if of_model != value:
            raise ValueError(
                f"The model's `{name}` is {of_model} but the item tokenizer's is {value}: they do not belong together. "
                "Load both from one folder, or train the model with this tokenizer."
            )


def _check_catalog(catalog: "Catalog | None", tokenizer: ItemTokenizer) -> None:
    if catalog is not None and not np.array_equal(catalog.item_ids, tokenizer.item_ids):
        raise ValueError(
            f"The catalog's {len(catalog)} items are not the item tokenizer's {len(tokenizer)}, or stand in another "
            "order. Pass the catalog that the tokenizer was fitted on; `Catalog.with_items` and `Catalog.select` "
            "follow items that come and go."
        )


def _progress(num_users: int) -> tqdm:
    return tqdm(total=num_users, desc="recommend", unit="user", delay=PROGRESS_DELAY_SECONDS, leave=False, disable=None)
