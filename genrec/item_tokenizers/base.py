"""Item tokenizers: every item of a catalog has a short code, and a history becomes a row of token ids.

`ItemTokenizer` holds the catalog, its codes and all look-ups. What differs between tokenizers is where codes come
from: a subclass says what it learns and which code an item asks for, the base class makes codes one to one, keeps them
as items come and go, and saves them.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from transformers import BatchEncoding

from genrec.data.behaviors import BehaviorLadder
from genrec.data.histories import as_histories
from genrec.item_tokenizers.code_table import NO_ROW, CodeTable, check_item_ids
from genrec.item_tokenizers.collisions import Costs, place_codes, repair_codes
from genrec.item_tokenizers.inputs import prompt_tensors
from genrec.item_tokenizers.report import CodeReport, report_codes
from genrec.item_tokenizers.storage import SavedTokenizer, find_folder, push_files, read_files, write_files
from genrec.item_tokenizers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from genrec.generation.trie import ItemTrie

logger = logging.getLogger(__name__)

DEAD_SCORE = -1e8


class ItemTokenizer(ABC):
    """A catalog's codes, and what turns them into a model's tokens and back.

    Args:
        **settings: The subclass's constructor arguments, JSON-ready; saved with the tokenizer.

    Attributes:
        needs_embeddings: Whether `fit` and `add_items` read the items' vectors.
    """

    needs_embeddings: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self._fitted_table: CodeTable | None = None
        self._fitted_ladder: BehaviorLadder | None = None
        self._trie: ItemTrie | None = None

    # What a subclass says.

    @abstractmethod
    def _read_inputs(self, embeddings: Any, item_ids: np.ndarray) -> Tensor:
        """Check what `fit` or `add_items` was given and return one row per item, `[items, ...]`."""

    @abstractmethod
    def _learn(self, inputs: Tensor) -> list[int]:
        """Learn what codes need from the inputs and return the codebook sizes."""

    @abstractmethod
    def _ask(self, inputs: Tensor) -> Tensor:
        """Return the code that each item asks for, `[items, levels]`, repeats allowed."""

    @abstractmethod
    def _costs(self, inputs: Tensor, codes: Tensor, level: int) -> Tensor:
        """Return each item's distances to the codes of a level, given its codes before that level: `[items, size]`."""

    def _errors(self, inputs: Tensor, codes: Tensor) -> Tensor | None:
        """Return squared reconstruction errors and distances from the mean, `[items, 2]`, or None without vectors."""
        return None

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """Return what was learned, to be saved."""

    @abstractmethod
    def _restore_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `_tensors` returned."""

    def _repair(self, raw_codes: Tensor, sizes: list[int], costs: Costs) -> tuple[Tensor, list[int]]:
        return repair_codes(raw_codes, sizes, costs)

    def _place(self, raw_codes: Tensor, table: CodeTable, costs: Costs) -> Tensor:
        return place_codes(raw_codes, table.codes, table.codebook_sizes, costs)

    # Fitting, and items that come and go.

    def fit(
        self,
        embeddings: Any,
        item_ids: Sequence[Any] | np.ndarray,
        behaviors: str | Sequence[str] | BehaviorLadder,
    ) -> Self:
        """Learn codes for a catalog.

        Args:
            embeddings: The items' vectors, `[items, dim]`, an array or a tensor; what else a tokenizer may take, its
                class says.
            item_ids: One id per row, integers or strings, none twice.
            behaviors: The behavior ladder, for example `"view,cart,buy"`.

        Returns:
            This tokenizer.

        Raises:
            ValueError: If ids repeat or do not match the rows, a value is not finite, or the settings do not fit the
                catalog.
        """
        ladder = BehaviorLadder.parse(behaviors)
        ids = check_item_ids(item_ids)
        self._fitted_table = self._trie = None
        inputs = self._read_inputs(embeddings, ids)
        sizes = self._learn(inputs)
        raw_codes = self._ask(inputs)
        codes, sizes = self._repair(raw_codes, sizes, self._costs_of(inputs))
        self._fitted_ladder = ladder
        self._set_table(CodeTable(ids, codes, tuple(sizes), raw_codes, self._errors(inputs, raw_codes)))
        if self.report().status == "fail":
            logger.warning("The item codes are poor:\n%s", self.report())
        return self

    def add_items(self, item_ids: Sequence[Any] | np.ndarray, embeddings: Any = None) -> Self:
        """Give new items codes with the frozen codebooks; no item that is there changes its code or its row.

        Args:
            item_ids: Ids of the new items, none of them known.
            embeddings: What `fit` took, for the new items.

        Returns:
            This tokenizer. The new items take the rows after the last.

        Raises:
            ValueError: If an id is known or repeated, a value is not finite, or there are not enough free codes. The
                tokenizer is then unchanged.
        """
        if len(item_ids) == 0:
            return self
        table = self._table
        ids = check_item_ids(item_ids)
        known = np.flatnonzero(table.items.rows(ids) != NO_ROW)
        if len(known) > 0:
            raise ValueError(
                f"`add_items` takes new items only, but {ids.tolist()[known[0]]!r} has a code already. "
                "Leave it out, or remove it first with `remove_items`."
            )
        inputs = self._read_inputs(embeddings, ids)
        raw_codes = self._ask(inputs)
        codes = self._place(raw_codes, table, self._costs_of(inputs))
        self._set_table(table.extend(ids, codes, raw_codes, self._errors(inputs, raw_codes)))
        return self

    def remove_items(self, item_ids: Sequence[Any] | np.ndarray) -> Self:
        """Take items out of the catalog; the others keep their codes and their order, freed codes may be used again.

        Returns:
            This tokenizer. Rows behind a removed item move up.

        Raises:
            ValueError: If an id is unknown or no item would be left.
        """
        keep = np.ones(len(self), dtype=bool)
        keep[self._table.rows(item_ids)] = False
        if not keep.any():
            raise ValueError(f"`remove_items` would remove all {len(self)} items. Keep at least one.")
        self._set_table(self._table.select(np.flatnonzero(keep)))
        return self

    def report(self) -> CodeReport:
        """Return collisions, codebook use and reconstruction error of the present catalog, with pass, warn or fail."""
        return report_codes(self._table, type(self).__name__)

    # The catalog and its codes.

    def __len__(self) -> int:
        return len(self._table)

    @property
    def item_ids(self) -> np.ndarray:
        """Item ids in row order, `[items]`."""
        return self._table.item_ids

    @property
    def ladder(self) -> BehaviorLadder:
        """The behavior ladder.

        Raises:
            ValueError: If there are no codes yet.
        """
        if self._fitted_ladder is None:
            raise self._not_fitted()
        return self._fitted_ladder

    @property
    def behaviors(self) -> list[str]:
        """Behavior names, weakest first."""
        return list(self.ladder.names)

    @property
    def behavior_levels(self) -> list[int]:
        """The ladder level of each behavior."""
        return list(self.ladder.levels)

    @property
    def codes(self) -> Tensor:
        """Codes of all items, `[items, levels]` int64, all different (unless collisions were kept on purpose)."""
        return self._table.codes

    @property
    def codebook_sizes(self) -> list[int]:
        """Codes per level, the disambiguation level included where repair added one."""
        return list(self._table.codebook_sizes)

    @property
    def num_levels(self) -> int:
        """Codes per item."""
        return len(self._table.codebook_sizes)

    @property
    def vocabulary(self) -> Vocabulary:
        """The token ids that belong to these codes and behaviors."""
        return Vocabulary(len(self.ladder.names), self._table.codebook_sizes)

    @property
    def item_tokens(self) -> Tensor:
        """Token ids of all items' codes, `[items, levels]` int64."""
        return self.codes + torch.tensor(self.vocabulary.level_offsets)

    def model_config_fields(self) -> dict[str, Any]:
        """Return what a model's config must hold to match this tokenizer."""
        return {
            "codebook_sizes": self.codebook_sizes,
            "behavior_levels": self.behavior_levels,
            "vocab_size": self.vocabulary.vocab_size,
        }

    def trie(self) -> "ItemTrie":
        """Return the prefix tree over all items' tokens, for constrained decoding; built once for a catalog."""
        if self._trie is None:
            from genrec.generation.trie import ItemTrie

            vocabulary = self.vocabulary
            self._trie = ItemTrie(self.item_tokens, vocabulary.vocab_size, vocabulary.level_offsets)
        return self._trie

    # From items to tokens and back.

    def encode(self, item_ids: Sequence[Any] | np.ndarray) -> Tensor:
        """Return the codes of items, `[ids, levels]`.

        Raises:
            ValueError: If an item has no code.
        """
        return self.codes[torch.from_numpy(self._table.rows(item_ids))]

    def items_of(self, tokens: Tensor) -> Tensor:
        """Return the catalog rows of code tokens.

        Args:
            tokens: Token ids, `[..., levels]`.

        Returns:
            Rows, `[...]` int64 on the tokens' device: -1 where no item has these tokens; the smallest row where
            several have them (only where collisions were kept).
        """
        codes = tokens.cpu() - torch.tensor(self.vocabulary.level_offsets)
        return self._table.rows_of_codes(codes).to(tokens.device)

    def decode(self, output: Any) -> list[Any]:
        """Read items off generated rows.

        Args:
            output: Token ids `[rows, tokens]`, or what `generate` returned. The last `num_levels` tokens of each row
                count.

        Returns:
            One item id per row; None where these tokens are no item's code, or where the output has
            `sequences_scores` and the row's is -1e8 or less, which is how beam search fills up rows that died.

        Raises:
            ValueError: If rows have fewer tokens than a code.
        """
        sequences = output if isinstance(output, Tensor) else output.sequences
        if sequences.dim() != 2 or sequences.shape[1] < self.num_levels:
            raise ValueError(
                f"`decode` reads the last {self.num_levels} tokens of each row, but got shape {list(sequences.shape)}. "
                f"Generate with max_new_tokens={self.num_levels}."
            )
        rows = self.items_of(sequences[:, -self.num_levels :])
        scores = getattr(output, "sequences_scores", None)
        if scores is not None:
            rows = rows.masked_fill(scores <= DEAD_SCORE, NO_ROW)
        ids = self.item_ids[rows.cpu().numpy()].tolist()
        return [item_id if row != NO_ROW else None for item_id, row in zip(ids, rows.tolist(), strict=True)]

    def __call__(
        self,
        histories: Any,
        behavior: str | None = None,
        max_history_items: int | None = None,
        unknown_items: str = "skip",
    ) -> BatchEncoding:
        """Return model inputs that ask what comes next.

        Args:
            histories: A list of histories, a table or `Histories` (see `genrec.data.histories.as_histories`).
            behavior: The behavior to predict; None means the target behavior.
            max_history_items: Only the last so many interactions are read; None reads all.
            unknown_items: `"skip"` leaves out items without a code and logs how many; `"error"` refuses them.

        Returns:
            `input_ids`, `attention_mask` and `session_ids`, each `[histories, tokens]` int64, left-padded; an empty
            history is the behavior token alone. Real tokens have sessions from 1, padding has 0.

        Raises:
            ValueError: If a behavior is unknown, or an item under `unknown_items="error"`.
        """
        asked = self.ladder.index(behavior if behavior is not None else self.ladder.target)
        read = as_histories(histories, self._table.items, self.ladder, unknown_items=unknown_items)
        if read.num_unknown:
            logger.warning("Skipped %d interactions with items that have no code.", read.num_unknown)
        return BatchEncoding(prompt_tensors(read, self.item_tokens, self.vocabulary, asked, max_history_items))

    # Files.

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `item_ids.json`, `item_tokenizer.safetensors` and, last, `item_tokenizer.json` into a folder."""
        saved = SavedTokenizer(type(self).__name__, self.settings, self.ladder, self._table, self._tensors())
        write_files(Path(folder), saved)

    @classmethod
    def from_pretrained(cls, folder_or_repo: str | Path, **download: Any) -> Self:
        """Load a tokenizer of this class from a folder or a repository on the Hub.

        Args:
            folder_or_repo: What `save_pretrained` wrote, or a repository id.
            **download: `revision`, `cache_dir`, `token`, `local_files_only` for a repository.

        Raises:
            FileNotFoundError: If there is no item tokenizer there.
            ValueError: If a file is truncated or corrupt, the files do not belong together, or the class is another.
        """
        folder = find_folder(folder_or_repo, **download)
        saved = read_files(folder)
        if saved.tokenizer_class != cls.__name__:
            raise ValueError(
                f"{folder} holds a {saved.tokenizer_class}, not a {cls.__name__}. "
                "Load it with `AutoItemTokenizer.from_pretrained`."
            )
        try:
            tokenizer = cls(**saved.settings)
        except TypeError as error:
            raise ValueError(f"The settings in {folder} are not those of a {cls.__name__}: {error}.") from error
        tokenizer._restore_tensors(saved.learned)
        tokenizer._fitted_ladder = saved.ladder
        tokenizer._set_table(saved.table)
        return tokenizer

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload item tokenizer",
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Upload the files and a card to a repository, creating it if needed.

        Returns:
            The repository's URL.
        """
        return push_files(self, repo_id, commit_message=commit_message, private=private, token=token)

    @property
    def _table(self) -> CodeTable:
        if self._fitted_table is None:
            raise self._not_fitted()
        return self._fitted_table

    def _not_fitted(self) -> ValueError:
        return ValueError(
            f"This {type(self).__name__} has no codes yet. Call `fit`, or load one with `from_pretrained`."
        )

    def _set_table(self, table: CodeTable) -> None:
        self._fitted_table, self._trie = table, None

    def _costs_of(self, inputs: Tensor) -> Costs:
        return lambda rows, codes, level: self._costs(inputs[rows], codes, level)
