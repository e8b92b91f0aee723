"""`GenerativeRecommender`: a model, its item tokenizer and its catalog, from histories to lists of items."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel

from genrec.data.histories import Histories, ItemIndex, as_histories
from genrec.generation.beam_search import constrained_beam_search
from genrec.generation.logits_processor import TrieConstrainedLogitsProcessor
from genrec.generation.trie import DEAD_END, ItemTrie
from genrec.item_tokenizers.auto import AutoItemTokenizer
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.item_tokenizers.inputs import prompt_tensors
from genrec.item_tokenizers.vocabulary import PAD
from genrec.recommender.base import NO_ITEM, Recommendations
from genrec.recommender.checkpoint import find_checkpoint, load_model, save_model
from genrec.recommender.filters import build_item_filter
from genrec.recommender.scoring import check_k, tie_ranks

if TYPE_CHECKING:
    from genrec.data.catalog import Catalog

SEARCHES = ("fast", "generate")
DEAD_SCORE = -1e8  # `generate` fills up with beams that score -1e9
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

    Raises:
        ValueError: If the model and the tokenizer, or the tokenizer and the catalog, do not belong together, or a
            setting is out of range.

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
    ) -> None:
        _check_settings(model, num_beams, batch_size, search)
        _check_match(model, tokenizer)
        _check_catalog(catalog, tokenizer)
        self.model: Any = model
        self.tokenizer = tokenizer
        self.catalog = catalog
        self.num_beams = num_beams
        self.batch_size = batch_size
        self.search = search
        self._index = ItemIndex(tokenizer.item_ids)

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

        Raises:
            ValueError: If `k` is below 1, the behavior is unknown, or histories or filters cannot be read.
        """
        check_k(k)
        asked = self.tokenizer.ladder.index(behavior if behavior is not None else self.tokenizer.ladder.target)
        index = self._current_index()
        read = as_histories(histories, index, self.tokenizer.ladder, unknown_items=unknown_items)
        item_filter = build_item_filter(read, exclude_seen=exclude_seen, allow=allow, deny=deny, index=index)
        items = np.full((len(read), k), NO_ITEM, dtype=np.int64)
        scores = np.full((len(read), k), -np.inf)
        item_tokens, trie = self.tokenizer.item_tokens, self.tokenizer.trie().to(self.model.device)
        with _asked(self.model), _progress(len(read)) as progress:
            for rows in self._batches(read):
                part = read.select(rows)
                prompts = prompt_tensors(part, item_tokens, self.tokenizer.vocabulary, asked, self._max_history_items)
                allowed = item_filter.allowed(part, rows)
                items[rows], scores[rows] = self._answer(prompts, trie, allowed, k)
                progress.update(len(rows))
        return Recommendations(items, scores, self.tokenizer.item_ids, read.users, read.num_unknown)

    @property
    def _max_history_items(self) -> int | None:
        return getattr(self.model.config, "max_history_items", None)

    def _current_index(self) -> ItemIndex:
        """Return the catalog's rows by id, made anew once items came or went."""
        if self._index.item_ids is not self.tokenizer.item_ids:
            self._index = ItemIndex(self.tokenizer.item_ids)
        return self._index

    def _batches(self, histories: Histories) -> Iterator[np.ndarray]:
        """Yield rows of similar length, the longest first: they need the most memory, so a lack of it shows at once."""
        order = np.argsort(-histories.lengths, kind="stable")
        return (order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size))

    def _answer(
        self, prompts: dict[str, Tensor], trie: ItemTrie, allowed: np.ndarray | None, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the items and scores of one batch, `[users, k]` each."""
        prompts = {name: part.to(self.model.device) for name, part in prompts.items()}
        mask = None if allowed is None else torch.from_numpy(allowed).to(self.model.device)
        sizes = {"num_beams": max(self.num_beams, k), "num_return_sequences": k}
        output: Any = self._search(prompts, trie, mask, sizes)
        scores = output.sequences_scores.float()
        nodes = trie.walk(output.sequences[:, -trie.num_levels :])
        found = trie.leaf_items(nodes.masked_fill(scores <= DEAD_SCORE, DEAD_END))
        num_users = len(prompts["input_ids"])
        return _first_items(
            found.unflatten(0, (num_users, k)).cpu().numpy(),
            scores.unflatten(0, (num_users, k)).cpu().numpy(),
            allowed,
            len(self._index.item_ids),
        )

    def _search(self, prompts: dict[str, Tensor], trie: ItemTrie, mask: Tensor | None, sizes: dict[str, int]) -> Any:
        if self.search == "fast":
            return constrained_beam_search(self.model, trie=trie, allowed_items=mask, **prompts, **sizes)  # type: ignore[arg-type]
        settings = GenerationConfig(
            max_new_tokens=trie.num_levels,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=True,
            renormalize_logits=False,
            use_cache=True,
            pad_token_id=PAD,
            return_dict_in_generate=True,
            output_scores=True,
            **sizes,
        )
        known = inspect.signature(self.model.forward).parameters
        prompts = {name: part for name, part in prompts.items() if name in known}
        processor = TrieConstrainedLogitsProcessor(trie, mask)
        with _settings_of_its_own(self.model):
            return self.model.generate(**prompts, generation_config=settings, logits_processor=[processor])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model, item tokenizer and catalog into one folder, each file whole or not at all.

        Raises:
            ValueError: If items came or went in the tokenizer since, and the catalog did not follow.
        """
        _check_catalog(self.catalog, self.tokenizer)
        save_model(self.model, folder)
        self.tokenizer.save_pretrained(folder)
        if self.catalog is not None:
            self.catalog.save(folder)

    @classmethod
    def from_pretrained(
        cls, folder_or_repo: str | Path, *, device: torch.device | str | None = None, **settings: Any
    ) -> Self:
        """Load a checkpoint folder or a repository on the Hub.

        Args:
            folder_or_repo: What `save_pretrained` wrote, or a repository id.
            device: Where to put the model; None leaves it on the CPU.
            **settings: `num_beams`, `batch_size` and `search`; and for a repository `revision`, `cache_dir`, `token`
                and `local_files_only`.

        Raises:
            FileNotFoundError: If there is no checkpoint there.
            ValueError: If a file is truncated or corrupt, or the files do not belong together.
        """
        own = {name: settings.pop(name) for name in ("num_beams", "batch_size", "search") if name in settings}
        folder = find_checkpoint(folder_or_repo, **settings)
        tokenizer = AutoItemTokenizer.from_pretrained(folder)
        model: Any = load_model(folder)
        return cls(model if device is None else model.to(device), tokenizer, _load_catalog(folder), **own)


def _first_items(
    found: np.ndarray, scores: np.ndarray, allowed: np.ndarray | None, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return each user's first k items.

    Args:
        found: The items of each code, `[users, k, items per code]`, -1 where there is none.
        scores: Each code's score, `[users, k]`, best first.
        allowed: A code is shared by items of which not all may be allowed: `[items]`, `[users, items]` or None.
        num_items: Items in the catalog.
    """
    num_users, k, per_code = found.shape
    if per_code > 1:
        # Items that share a code share a score, and come in the fixed random order of all ties.
        order = np.where(found == NO_ITEM, num_items, tie_ranks(num_items)[found]).argsort(axis=2)
        found = np.take_along_axis(found, order, axis=2)
    items = found.reshape(num_users, k * per_code)
    if allowed is not None:
        by_user = np.broadcast_to(allowed, (num_users, num_items))
        items = np.where(np.take_along_axis(by_user, items.clip(min=0), axis=1), items, NO_ITEM)
    first = (items == NO_ITEM).argsort(axis=1, kind="stable")[:, :k]
    items = np.take_along_axis(items, first, axis=1)
    values = np.take_along_axis(np.repeat(scores, per_code, axis=1), first, axis=1)
    return items, np.where(items == NO_ITEM, -np.inf, values)


def _check_settings(model: PreTrainedModel, num_beams: int, batch_size: int, search: str) -> None:
    if num_beams < 1 or batch_size < 1:
        raise ValueError(f"`num_beams` and `batch_size` must be at least 1, got {num_beams} and {batch_size}.")
    if search not in SEARCHES:
        raise ValueError(f"`search` must be one of {', '.join(map(repr, SEARCHES))}, got {search!r}.")
    if search == "fast" and model.config.model_type != "gamer":
        raise ValueError(
            f"`search='fast'` knows how GAMER keeps its prompt; the model is {model.config.model_type!r}. Pass "
            "`search='generate'`, which works with every model."
        )


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


def _load_catalog(folder: Path) -> "Catalog | None":
    from genrec.data.catalog import CATALOG_FILE, Catalog

    return Catalog.load(folder) if (folder / CATALOG_FILE).is_file() else None


@contextmanager
def _asked(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off, and back on after if the model was being trained."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _settings_of_its_own(model: PreTrainedModel) -> Iterator[None]:
    """Take the model's generation settings away, which `generate` mixes into those it is given."""
    inherited = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = inherited


def _progress(num_users: int) -> tqdm:
    return tqdm(total=num_users, desc="recommend", unit="user", delay=PROGRESS_DELAY_SECONDS, leave=False, disable=None)
