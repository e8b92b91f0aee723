"""The catalog as one request sees it, from its first user to its last, whatever is swapped in meanwhile."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genrec.data.behaviors import BehaviorLadder
from genrec.data.candidates import QueryContext
from genrec.data.histories import ItemIndex
from genrec.generation.trie import ItemTrie
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.item_tokenizers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from genrec.data.catalog import Catalog


@dataclass(frozen=True, eq=False)
class ServedCatalog:
    """What of an item tokenizer and its catalog is read while answering; never changed, only replaced.

    Args:
        tokenizer: The item tokenizer; the other fields are what it held when this was made.
        catalog: What is known about the items, if anything.
        index: Catalog rows by item id.
        ladder: The behaviors.
        vocabulary: Where behaviors and levels have their tokens.
        item_tokens: Token ids of all items' codes, `[items, levels]`.
        trie: The same as a tree, on the model's device.
        context: What all users did, for models that look at it.
    """

    tokenizer: ItemTokenizer
    catalog: "Catalog | None"
    index: ItemIndex
    ladder: BehaviorLadder
    vocabulary: Vocabulary
    item_tokens: Tensor
    trie: ItemTrie
    context: QueryContext | None

    @classmethod
    def of(
        cls,
        tokenizer: ItemTokenizer,
        catalog: "Catalog | None",
        context: QueryContext | None = None,
        device: torch.device | str = "cpu",
    ) -> "ServedCatalog":
        """Return the present state of a tokenizer."""
        return cls(
            tokenizer=tokenizer,
            catalog=catalog,
            index=ItemIndex(tokenizer.item_ids),
            ladder=tokenizer.ladder,
            vocabulary=tokenizer.vocabulary,
            item_tokens=tokenizer.item_tokens,
            trie=tokenizer.trie().to(device),
            context=context,
        )

    @property
    def item_ids(self) -> np.ndarray:
        """Item ids in row order, `[items]`."""
        return self.index.item_ids

    def up_to_date(self, device: torch.device) -> "ServedCatalog":
        """Return this, or its like if items came or went in the tokenizer, or the model moved."""
        if self.tokenizer.item_ids is self.item_ids and self.trie.device == device:
            return self
        return ServedCatalog.of(self.tokenizer, self.catalog, self._context_of_present_items(), device)

    def _context_of_present_items(self) -> QueryContext | None:
        """Return the context by the tokenizer's present rows; it counts by row, and rows move as items come and go."""
        if self.context is None or self.tokenizer.item_ids is self.item_ids:
            return self.context
        return self.context.for_items(self.item_ids, self.tokenizer.item_ids)
