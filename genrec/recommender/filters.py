"""Which items a recommender may show: seen, allow and deny filters as boolean masks over the catalog."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from genrec.data.histories import Histories, ItemIndex

ID_TYPES = (str, int, float, np.generic)
ROWS = (list, tuple, np.ndarray)


@dataclass(frozen=True, eq=False)
class ItemFilter:
    """The items each user may be shown, built for a few users at a time.

    Args:
        shared: For all users, `[items]` bool, or None when every item is allowed.
        per_user: For each user of the whole request, `[users, items]` bool, or None.
        exclude_seen: Whether to leave out what a user's history holds.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> histories = as_histories([[("a", "view")], []], item_ids=["a", "b", "c"], ladder="view,buy")
        >>> item_filter = build_item_filter(histories, exclude_seen=True, deny=["c"])
        >>> item_filter.allowed(histories, np.arange(2)).tolist()
        [[False, True, False], [True, True, False]]
    """

    shared: np.ndarray | None
    per_user: np.ndarray | None
    exclude_seen: bool

    def allowed(self, histories: Histories, rows: np.ndarray) -> np.ndarray | None:
        """Return the mask of the users `rows` of the request.

        Args:
            histories: The histories of just these users.
            rows: Their rows in the whole request, `[users]`.

        Returns:
            `[users, items]` bool, `[items]` bool when all users share it, or None when everything is allowed.
        """
        if not self.exclude_seen and self.per_user is None:
            return self.shared
        mask = np.ones((len(rows), len(histories.item_ids)), dtype=bool)
        if self.per_user is not None:
            mask &= self.per_user[rows]
        if self.shared is not None:
            mask &= self.shared
        if self.exclude_seen:
            mask[histories.rows, histories.items] = False
        return mask


def build_item_filter(
    histories: Histories,
    *,
    exclude_seen: bool = False,
    allow: Iterable[Any] | np.ndarray | None = None,
    deny: Iterable[Any] | np.ndarray | None = None,
    index: ItemIndex | None = None,
) -> ItemFilter:
    """Read the filters of one request.

    Args:
        histories: The histories of the whole request.
        exclude_seen: Whether to leave out what a user's history holds.
        allow: Only these items may be shown: item ids, or a boolean mask `[items]` or `[users, items]` over catalog
            rows; a list, an array or a tensor. Ids that the catalog lacks allow nothing.
        deny: These items may not be shown, written like `allow`. Ids that the catalog lacks forbid nothing.
        index: The catalog's rows by id, when the caller keeps one; built when needed otherwise.

    Raises:
        ValueError: If a mask has another shape, or `allow` or `deny` is a string or holds what is no id.
    """
    shared: np.ndarray | None = None
    per_user: np.ndarray | None = None
    for name, items, keeps in (("allow", allow, True), ("deny", deny, False)):
        if items is None:
            continue
        mask = _item_mask(name, items, histories, index)
        mask = mask if keeps else ~mask
        if mask.ndim == 1:
            shared = mask if shared is None else shared & mask
        else:
            per_user = mask if per_user is None else per_user & mask
    return ItemFilter(shared, per_user, exclude_seen)


def _item_mask(
    name: str, items: Iterable[Any] | np.ndarray, histories: Histories, index: ItemIndex | None
) -> np.ndarray:
    if isinstance(items, str):
        raise ValueError(f"`{name}` must be a collection of item ids, got the string {items!r}. Pass [{items!r}].")
    num_items, given = len(histories.item_ids), _ids_or_mask(name, items)
    if isinstance(given, np.ndarray):
        if given.shape not in ((num_items,), (len(histories), num_items)):
            raise ValueError(
                f"A mask given as `{name}` must have the shape ({num_items},) or ({len(histories)}, {num_items}), one "
                f"value per catalog row, got {given.shape}. Pass item ids instead, or a mask over this catalog."
            )
        return given
    rows = (index or ItemIndex(histories.item_ids)).rows(given)
    mask = np.zeros(num_items, dtype=bool)
    mask[rows[rows >= 0]] = True
    return mask


def _ids_or_mask(name: str, items: Iterable[Any] | np.ndarray) -> list[Any] | np.ndarray:
    """Return a list of ids, or an array of booleans where a mask was given, as an array, a tensor or lists.

    Raises:
        ValueError: If the elements are neither ids nor booleans: an id that equals none would forbid nothing.
    """
    if isinstance(items, Tensor):
        items = items.detach().cpu().numpy()
    if isinstance(items, np.ndarray) and items.dtype == bool:
        return items
    ids = items.tolist() if isinstance(items, np.ndarray) else list(items)
    flat = [value for row in ids for value in row] if ids and all(isinstance(row, ROWS) for row in ids) else ids
    if flat and all(isinstance(value, (bool, np.bool_)) for value in flat):
        return _mask_of(name, ids)
    for value in ids:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, ID_TYPES):
            raise ValueError(
                f"`{name}` must hold item ids (numbers or texts) or be a mask of booleans, got {value!r} "
                f"({type(value).__name__}). Pass one flat list of ids, or one boolean per catalog row."
            )
    return ids


def _mask_of(name: str, rows: list[Any]) -> np.ndarray:
    try:
        return np.array(rows, dtype=bool)
    except ValueError:
        lengths = sorted({len(row) for row in rows})
        raise ValueError(
            f"A mask given as `{name}` must have rows of one length, got lengths {lengths}. Give every user one "
            "boolean per catalog row."
        ) from None
