"""Codes from elsewhere as an item tokenizer like any other: released semantic IDs, random codes, another tool's."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from genrec.data.behaviors import BehaviorLadder
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.item_tokenizers.code_table import CodeIndex, CodeTable
from genrec.item_tokenizers.collisions import Costs
from genrec.item_tokenizers.sizes import AUTO, CodebookSizes, check_codebook_sizes

KEEP, REPAIR = "keep", "repair"


class GivenCodesTokenizer(ItemTokenizer):
    """Items have the codes they are given.

    Where other tokenizers take vectors, `fit` and `add_items` take codes: integers from 0, `[items, levels]`.

    Args:
        codebook_sizes: One size per level, or `"auto"`: at each level the largest code and 1.
        on_collision: `"repair"` gives items that share a code with another the next free last code (with wrap-around),
            and adds a level only where a prefix is over-full; `"keep"` leaves them, and `decode` then answers with the
            first item of that code. Either way the report counts them.

    Example:
        >>> tokenizer = GivenCodesTokenizer.from_codes([[0, 1], [0, 1], [1, 0]], ["a", "b", "c"], "view,buy")
        >>> tokenizer.codes.tolist(), round(tokenizer.report().raw_collision_rate, 3)
        ([[0, 1], [0, 0], [1, 0]], 0.333)
    """

    needs_embeddings = False

    def __init__(self, codebook_sizes: CodebookSizes = AUTO, *, on_collision: str = REPAIR) -> None:
        if on_collision not in (KEEP, REPAIR):
            raise ValueError(f"`on_collision` must be 'keep' or 'repair', got {on_collision!r}.")
        sizes = codebook_sizes if isinstance(codebook_sizes, str) else list(codebook_sizes)
        super().__init__(codebook_sizes=sizes, on_collision=on_collision)
        self._sizes: list[int] = []

    @classmethod
    def from_codes(
        cls,
        codes: Any,
        item_ids: Sequence[Any] | np.ndarray,
        behaviors: str | Sequence[str] | BehaviorLadder,
        on_collision: str = REPAIR,
    ) -> Self:
        """Return a tokenizer with these codes.

        Args:
            codes: Integers from 0, `[items, levels]`.
            item_ids: One id per row.
            behaviors: The behavior ladder.
            on_collision: `"repair"` or `"keep"`.

        Raises:
            ValueError: If codes are no such integers, or ids repeat or do not match the rows.
        """
        return cls(on_collision=on_collision).fit(codes, item_ids, behaviors)

    def _read_inputs(self, embeddings: Any, item_ids: np.ndarray) -> Tensor:
        codes = _check_codes(embeddings, item_ids)
        if self._fitted_table is not None:
            _check_within(codes, self._sizes, item_ids)
        elif self.settings["codebook_sizes"] != AUTO:
            _check_within(codes, check_codebook_sizes(self.settings["codebook_sizes"], len(item_ids)), item_ids)
        return codes

    def _learn(self, inputs: Tensor) -> list[int]:
        sizes = self.settings["codebook_sizes"]
        self._sizes = (inputs.amax(dim=0) + 1).tolist() if sizes == AUTO else list(sizes)
        return list(self._sizes)

    def _ask(self, inputs: Tensor) -> Tensor:
        return inputs

    def _costs(self, inputs: Tensor, codes: Tensor, level: int) -> Tensor:
        size = self._sizes[level]
        return ((torch.arange(size) - inputs[:, level, None]) % size).float()

    def _repair(self, raw_codes: Tensor, sizes: list[int], costs: Costs) -> tuple[Tensor, list[int]]:
        keeps = self.settings["on_collision"] == KEEP
        return (raw_codes, sizes) if keeps else super()._repair(raw_codes, sizes, costs)

    def _place(self, raw_codes: Tensor, table: CodeTable, costs: Costs) -> Tensor:
        return raw_codes if self.settings["on_collision"] == KEEP else super()._place(raw_codes, table, costs)

    def _tensors(self) -> dict[str, Tensor]:
        return {"sizes": torch.tensor(self._sizes)}

    def _restore_tensors(self, tensors: dict[str, Tensor]) -> None:
        self._sizes = tensors["sizes"].tolist()


def random_codes(num_items: int, codebook_sizes: Sequence[int], seed: int = 0) -> Tensor:
    """Draw a different random code for every item: a baseline without any meaning (GAMER's RID).

    Args:
        num_items: Items in the catalog.
        codebook_sizes: One size per level.
        seed: Makes the draw repeatable.

    Returns:
        Codes, `[num_items, levels]` int64, all different.

    Raises:
        ValueError: If there are fewer codes than items.
    """
    capacity = int(np.prod(np.array(codebook_sizes, dtype=object)))
    if capacity < num_items:
        raise ValueError(
            f"The codebooks {list(codebook_sizes)} hold {capacity} codes, too few for {num_items} items. "
            "Choose larger sizes or more levels."
        )
    rng = np.random.default_rng(seed)
    codes = torch.zeros(0, len(codebook_sizes), dtype=torch.long)
    while len(codes) < num_items:
        drawn = torch.from_numpy(rng.integers(0, list(codebook_sizes), size=(num_items, len(codebook_sizes))))
        codes = torch.cat([codes, drawn])
        codes = codes[CodeIndex(codes, codebook_sizes).first_rows.sort().values]
    return codes[:num_items]


def _check_codes(codes: Any, item_ids: np.ndarray) -> Tensor:
    array = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if array.ndim != 2 or array.dtype.kind not in "iu" or len(array) != len(item_ids) or array.shape[1] == 0:
        raise ValueError(
            f"Given codes must be integers [items, levels] with one row for each of the {len(item_ids)} `item_ids`, "
            f"got {array.dtype} of shape {list(array.shape)}."
        )
    if (array < 0).any():
        row = int(np.flatnonzero((array < 0).any(axis=1))[0])
        raise ValueError(
            f"Every item needs a code, numbers from 0, but row {row} (item {item_ids.tolist()[row]!r}) has "
            f"{array[row].tolist()}. Give it a code, or take it out of the catalog and the log."
        )
    return torch.from_numpy(array.astype(np.int64))


def _check_within(codes: Tensor, sizes: Sequence[int], item_ids: np.ndarray) -> None:
    if codes.shape[1] != len(sizes):
        raise ValueError(f"Codes must have {len(sizes)} levels, one per codebook, got {codes.shape[1]}.")
    outside = torch.nonzero((codes >= torch.tensor(sizes)).any(dim=1)).flatten().tolist()
    if outside:
        raise ValueError(
            f"Codes must be below the codebook sizes {list(sizes)}, but row {outside[0]} "
            f"(item {item_ids.tolist()[outside[0]]!r}) has {codes[outside[0]].tolist()}."
        )
