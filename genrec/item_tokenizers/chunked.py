"""Chunked item ids: an item's number written in base `chunk_size`, one digit per token.

No training, no collisions and no semantics: the baseline that every learned tokenizer must beat (the CID of GAMER and
of MBGen).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.item_tokenizers.base import ItemTokenizer
from genrec.item_tokenizers.code_table import CodeTable
from genrec.item_tokenizers.collisions import Costs
from genrec.item_tokenizers.sizes import AUTO, auto_chunk_size, check_codebook_sizes


class ChunkedIDTokenizer(ItemTokenizer):
    """Codes are the digits of the item's number.

    `fit` numbers the items by row and reads no vectors (pass None). A new item takes the smallest number that no item
    has.

    Args:
        chunk_size: The base, at least 2 and at most the number of items; or `"auto"`, see
            `genrec.item_tokenizers.sizes.auto_chunk_size`.
        balanced: Least significant digit first, so that every first digit leads to about as many items. Otherwise the
            most significant digit comes first.
        shuffle: Number the items in a random order instead of row by row.
        seed: Of the shuffle.

    Example:
        >>> tokenizer = ChunkedIDTokenizer(chunk_size=3).fit(None, list("abcde"), "view,buy")
        >>> tokenizer.codes.tolist()
        [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1]]
    """

    needs_embeddings = False

    def __init__(
        self, chunk_size: int | str = AUTO, *, balanced: bool = True, shuffle: bool = False, seed: int = 0
    ) -> None:
        if chunk_size != AUTO and (not isinstance(chunk_size, int) or chunk_size < 2):
            raise ValueError(
                f'`chunk_size` must be "auto" or at least 2, to write a number in that base; got {chunk_size!r}.'
            )
        super().__init__(chunk_size=chunk_size, balanced=balanced, shuffle=shuffle, seed=seed)
        self._sizes: list[int] = []

    def _read_inputs(self, embeddings: Any, item_ids: np.ndarray) -> Tensor:
        """Return the numbers that the items get, `[items]`."""
        if self._fitted_table is not None:
            return self._smallest_free_numbers(len(item_ids))
        if not self.settings["shuffle"]:
            return torch.arange(len(item_ids))
        return torch.randperm(len(item_ids), generator=torch.Generator().manual_seed(self.settings["seed"]))

    def _learn(self, inputs: Tensor) -> list[int]:
        num_items, base = len(inputs), self.settings["chunk_size"]
        if base == AUTO:
            base, num_levels = auto_chunk_size(num_items)
        else:
            check_codebook_sizes([base], num_items)
            num_levels = next(levels for levels in range(1, 64) if base**levels >= num_items)
        self._sizes = [base] * num_levels
        return list(self._sizes)

    def _ask(self, inputs: Tensor) -> Tensor:
        return digits(inputs, self._sizes, self.settings["balanced"])

    def _costs(self, inputs: Tensor, codes: Tensor, level: int) -> Tensor:
        raise AssertionError("chunked ids never collide")

    def _place(self, raw_codes: Tensor, table: CodeTable, costs: Costs) -> Tensor:
        return raw_codes

    def _restore_tensors(self, tensors: dict[str, Tensor]) -> None:
        self._sizes = tensors["sizes"].tolist()

    def _tensors(self) -> dict[str, Tensor]:
        return {"sizes": torch.tensor(self._sizes)}

    def _smallest_free_numbers(self, num_new: int) -> Tensor:
        place_values = _place_values(self._sizes, self.settings["balanced"])
        taken = (self.codes * place_values).sum(dim=1)
        candidates = torch.arange(len(taken) + num_new)
        free = candidates[~torch.isin(candidates, taken)][:num_new]
        capacity = self._sizes[0] ** len(self._sizes)
        if int(free[-1]) >= capacity:
            raise ValueError(
                f"{len(self._sizes)} digits in base {self._sizes[0]} name {capacity} items, too few for {len(taken)} "
                f"and {num_new} more. Fit the item tokenizer anew on the whole catalog."
            )
        return free


def digits(numbers: Tensor, sizes: Sequence[int], balanced: bool = True) -> Tensor:
    """Write numbers in base `sizes[0]` with one digit per size, `[numbers, digits]`.

    >>> digits(torch.tensor([4]), [2, 2, 2]).tolist(), digits(torch.tensor([4]), [2, 2, 2], balanced=False).tolist()
    ([[0, 0, 1]], [[1, 0, 0]])
    """
    return numbers[:, None] // _place_values(sizes, balanced) % sizes[0]


def _place_values(sizes: Sequence[int], balanced: bool) -> Tensor:
    values = sizes[0] ** torch.arange(len(sizes))
    return values if balanced else values.flip(0)
