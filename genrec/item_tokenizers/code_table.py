"""Which item has which code: the catalog side of an item tokenizer, with look-up in both directions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.data.event_columns import as_id_array
from genrec.data.histories import ItemIndex

NO_ROW = -1


class CodeIndex:
    """Finds codes among the rows of a table by binary search, level by level.

    A known prefix has a dense number; following a code from prefix `p` looks for the key `p * codebook_size + code`
    among the sorted keys of that level. Keys stay small for any number of levels.

    Args:
        codes: `[rows, levels]`, at least one row; rows may repeat.
        codebook_sizes: One size per level.

    Attributes:
        numbers: The dense number of each row's code in lexicographic order, `[rows]`.
        first_rows: The smallest row with that code, `[different codes]`.

    Example:
        >>> index = CodeIndex(torch.tensor([[1, 0], [0, 2], [1, 0]]), [2, 3])
        >>> index.numbers.tolist(), index.first_rows.tolist(), index.find(torch.tensor([[1, 0], [1, 1]])).tolist()
        ([1, 0, 1], [1, 0], [1, -1])
    """

    def __init__(self, codes: Tensor, codebook_sizes: Sequence[int]) -> None:
        self._sizes = tuple(codebook_sizes)
        self._keys: list[Tensor] = []
        numbers = torch.zeros(len(codes), dtype=torch.long)
        for level, size in enumerate(self._sizes):
            keys, numbers = torch.unique(numbers * size + codes[:, level], return_inverse=True)
            self._keys.append(keys)
        self.numbers = numbers
        rows = torch.arange(len(codes))
        first_rows = torch.full((int(numbers.max()) + 1,), len(codes))
        self.first_rows = first_rows.scatter_reduce(0, numbers, rows, reduce="amin")

    def find(self, codes: Tensor) -> Tensor:
        """Return the dense number of each code, `[...]` for codes `[..., levels]`; -1 where no row has it."""
        numbers = torch.zeros(codes.shape[:-1], dtype=torch.long)
        known = torch.ones(codes.shape[:-1], dtype=torch.bool)
        for level, (size, keys) in enumerate(zip(self._sizes, self._keys, strict=True)):
            known &= (codes[..., level] >= 0) & (codes[..., level] < size)
            wanted = numbers * size + codes[..., level]
            numbers = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            known &= keys[numbers] == wanted
        return torch.where(known, numbers, -1)


@dataclass(frozen=True, eq=False)
class CodeTable:
    """Item ids and their codes, row by row.

    Args:
        item_ids: `[items]`, row order = row numbers everywhere.
        codes: What the model uses, `[items, levels]` int64.
        codebook_sizes: One size per level of `codes`.
        raw_codes: Before repair, `[items, raw levels]` int64; one level fewer where repair added one.
        errors: Squared reconstruction error and squared distance from the training mean, `[items, 2]` float32, or None
            where codes describe no vector.
    """

    item_ids: np.ndarray
    codes: Tensor
    codebook_sizes: tuple[int, ...]
    raw_codes: Tensor
    errors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def items(self) -> ItemIndex:
        """Rows of item ids."""
        return ItemIndex(self.item_ids)

    @cached_property
    def _code_index(self) -> CodeIndex:
        return CodeIndex(self.codes, self.codebook_sizes)

    def rows(self, item_ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Return the rows of ids, `[ids]`.

        Raises:
            ValueError: If an id has no code.
        """
        rows = self.items.rows(item_ids)
        if (rows == NO_ROW).any():
            missing = list(item_ids)[int(np.flatnonzero(rows == NO_ROW)[0])]
            raise ValueError(
                f"The item {missing!r} has no code: it is not among the {len(self)} items of the item tokenizer. "
                "Add it with `add_items`, and mind that 7 and '7' are different ids."
            )
        return rows

    def rows_of_codes(self, codes: Tensor) -> Tensor:
        """Return the row of each code, `[...]` for codes `[..., levels]`; -1 if none, the smallest if several."""
        numbers = self._code_index.find(codes)
        return torch.where(numbers >= 0, self._code_index.first_rows[numbers.clamp(min=0)], NO_ROW)

    def select(self, rows: np.ndarray) -> "CodeTable":
        """Keep these rows; their codes stay as they are."""
        kept = torch.from_numpy(rows)
        errors = None if self.errors is None else self.errors[kept]
        return replace(
            self, item_ids=self.item_ids[rows], codes=self.codes[kept], raw_codes=self.raw_codes[kept], errors=errors
        )

    def extend(self, item_ids: np.ndarray, codes: Tensor, raw_codes: Tensor, errors: Tensor | None) -> "CodeTable":
        """Append rows; the codes of the rows before stay as they are."""
        return replace(
            self,
            item_ids=as_id_array([*self.item_ids.tolist(), *item_ids.tolist()]),
            codes=torch.cat([self.codes, codes]),
            raw_codes=torch.cat([self.raw_codes, raw_codes]),
            errors=None if self.errors is None or errors is None else torch.cat([self.errors, errors]),
        )


def check_item_ids(item_ids: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Return ids as an array that gives the log's own ids back.

    Raises:
        ValueError: If there is no item, an id is neither an integer nor a string, or an id stands twice.
    """
    ids = as_id_array(item_ids)
    if len(ids) == 0:
        raise ValueError("A catalog needs at least one item, but `item_ids` is empty.")
    seen: dict[Any, int] = {}
    for row, item_id in enumerate(ids.tolist()):
        if not isinstance(item_id, (int, str)):
            raise ValueError(f"An item id must be an integer or a string, but row {row} has {item_id!r}. Convert it.")
        if seen.setdefault(item_id, row) != row:
            raise ValueError(
                f"An item id must be unique, but {item_id!r} stands in rows {seen[item_id]} and {row} of `item_ids`. "
                "Drop one of them."
            )
    return ids
