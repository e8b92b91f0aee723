"""Which items a recommender may show: seen, allow and deny filters as boolean masks over the catalog."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.data.histories import Histories, ItemIndex


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
            rows. Ids that the catalog lacks allow nothing.
        deny: These items may not be shown, written like `allow`. Ids that the catalog lacks forbid nothing.
        index: The catalog's rows by id, when the caller keeps one; built when needed otherwise.

    Raises:
        ValueError: If a mask has another shape, or `allow` or `deny` is a string.
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
    num_items = len(histories.item_ids)
    if isinstance(items, np.ndarray) and items.dtype == bool:
        if items.shape not in ((num_items,), (len(histories), num_items)):
            raise ValueError(
                f"A mask given as `{name}` must have the shape ({num_items},) or ({len(histories)}, {num_items}), one "
                f"value per catalog row, got {items.shape}. Pass item ids instead, or a mask over this catalog."
            )
        return items
    if isinstance(items, str):
        raise ValueError(f"`{name}` must be a collection of item ids, got the string {items!r}. Pass [{items!r}].")
    rows = (index or ItemIndex(histories.item_ids)).rows(items if isinstance(items, np.ndarray) else list(items))
    mask = np.zeros(num_items, dtype=bool)
    mask[rows[rows >= 0]] = True
    return mask
