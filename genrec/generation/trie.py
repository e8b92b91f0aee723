"""A prefix tree over all item codes, as flat tensors: what may follow what, for thousands of beams at once.

The codes are sorted once. Nodes are numbered breadth first in sorted order, the root being 0, so the edge number `e`
leads to the node `e + 1` and no next-state array is needed: the whole tree is a row pointer per inner node and one
small integer per edge. STATIC (YouTube, arXiv 2602.22647) stores `[token, next state]` pairs instead.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

DEAD_END = -1
NO_ITEM = -1
ROOT = 0
_KEY_BITS = 63


class ItemTrie:
    """The catalog's codes as a tree of fixed depth.

    A *node* is an int64 number: `ROOT` (0), then all nodes of the first level, then those of the second, and so on;
    within a level nodes stand in the order of their codes. The nodes of the last level are the *leaves*. `DEAD_END`
    (-1) is the node of every prefix that begins no item.

    Args:
        item_tokens: Token ids of the items, `[items, levels]`. Items with equal rows share a leaf.
        vocab_size: How many token ids the model has.
        level_offsets: The first token id of each level, `[levels]`; None takes the smallest one in use.

    Attributes:
        num_items: Items in the tree.
        num_levels: Codes per item.
        num_nodes: Nodes, the root included.
        first_leaf: The number of the first leaf.
        max_fanouts: The most children that any node has, for the root and each further inner level.
        level_ranges: `(first token id, last token id + 1)` in use at each level.

    Raises:
        ValueError: If there is no item, the shape is not `[items, levels]`, or a token id is outside the vocabulary.

    Example:
        >>> trie = ItemTrie(torch.tensor([[3, 5], [3, 6], [4, 6]]), vocab_size=7)
        >>> trie.walk(torch.tensor([[3, 6], [4, 5]])).tolist()  # the second pair is no item
        [4, -1]
        >>> trie.allowed_mask(trie.walk(torch.tensor([[4]]))).nonzero()[:, 1].tolist()
        [6]
        >>> trie.leaf_items(torch.tensor([4, -1])).tolist()
        [[1], [-1]]
    """

    def __init__(self, item_tokens: Tensor, vocab_size: int, level_offsets: Sequence[int] | None = None) -> None:
        tokens = _checked_tokens(item_tokens, vocab_size)
        self.vocab_size = vocab_size
        self.num_items, self.num_levels = tokens.shape
        self.level_ranges = tuple((int(column.min()), int(column.max()) + 1) for column in tokens.T)
        offsets = level_offsets if level_offsets is not None else [first for first, _ in self.level_ranges]
        self.level_offsets = tuple(int(offset) for offset in offsets)
        columns = [column - offset for column, offset in zip(tokens.T, self.level_offsets, strict=True)]
        if any(int(column.min()) < 0 for column in columns):
            raise ValueError(
                f"`level_offsets` must not exceed the token ids in use, got {self.level_offsets} for levels that begin "
                f"at {[first for first, _ in self.level_ranges]}. Pass the offsets of the same vocabulary."
            )
        self._build(columns)

    def _build(self, columns: list[np.ndarray]) -> None:
        order = _lexicographic_order(columns)
        codes_dtype = _smallest_dtype(max(int(column.max()) for column in columns))
        begins = np.zeros(self.num_items, dtype=bool)
        begins[0] = True
        starts = np.zeros(1, dtype=np.int64)  # the root covers all sorted items from the first on
        pointers: list[np.ndarray] = []
        codes: list[np.ndarray] = []
        num_edges = 0
        for column in columns:
            in_order = column[order]
            begins[1:] |= in_order[1:] != in_order[:-1]
            child_starts = np.flatnonzero(begins)
            pointers.append(num_edges + np.searchsorted(child_starts, starts))
            codes.append(in_order[child_starts].astype(codes_dtype))
            num_edges += len(child_starts)
            starts = child_starts
        row_pointers = np.concatenate([*pointers, [num_edges]])
        leaf_sizes = np.diff(np.append(starts, self.num_items))
        level_sizes = [1, *(len(level) for level in codes)]
        self._level_starts = tuple(int(start) for start in np.cumsum([0, *level_sizes]))
        self.num_nodes = num_edges + 1
        self.first_leaf = self.num_nodes - len(starts)
        self.max_fanouts = tuple(
            int(np.diff(np.append(level, end)).max())
            for level, end in zip(pointers, [*(level[0] for level in pointers[1:]), num_edges], strict=True)
        )
        self.max_items_per_leaf = int(leaf_sizes.max())
        self._tensors = {
            "row_pointers": torch.from_numpy(row_pointers.astype(np.int32)),
            "codes": torch.from_numpy(np.concatenate(codes)),
            "items": torch.from_numpy(order.astype(np.int32)),
            "repeats": torch.from_numpy(np.repeat(np.arange(len(starts), dtype=np.int32), leaf_sizes - 1)),
            "offsets": torch.tensor([*self.level_offsets, 0]),
            "boundaries": torch.tensor(self._level_starts[1:-1]),
        }

    @property
    def device(self) -> torch.device:
        """Where the tree lies."""
        return self._tensors["codes"].device

    @property
    def num_leaves(self) -> int:
        """Distinct codes in the catalog."""
        return self.num_nodes - self.first_leaf

    @property
    def num_bytes(self) -> int:
        """Memory of all tensors."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def to(self, device: torch.device | str) -> "ItemTrie":
        """Return this tree on a device; itself if it is there."""
        if torch.device(device) == self.device:
            return self
        moved = object.__new__(ItemTrie)
        moved.__dict__.update(self.__dict__)
        moved._tensors = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return moved

    def follow(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """Return the children of `nodes` along `tokens`, both `[*beams]`; `DEAD_END` where there is none.

        A binary search among each node's sorted children, all beams at once.
        """
        first, end = self._edges(nodes)
        codes = tokens - self._offsets(nodes)
        low, high = first, end
        for _ in range(max(self.max_fanouts).bit_length()):
            middle = (low + high) // 2
            is_left = (self._codes(middle) < codes) & (middle < high)
            low, high = torch.where(is_left, middle + 1, low), torch.where(is_left, high, middle)
        found = (low < end) & (self._codes(low) == codes)
        return torch.where(found, low + 1, DEAD_END)

    def walk(self, prefixes: Tensor) -> Tensor:
        """Return the nodes `[*batch]` at the end of code prefixes `[*batch, depth]`, from the root."""
        nodes = torch.full(prefixes.shape[:-1], ROOT, device=prefixes.device)
        for depth in range(prefixes.shape[-1]):
            nodes = self.follow(nodes, prefixes[..., depth])
        return nodes

    def children(self, nodes: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return all children of nodes of one level.

        Args:
            nodes: `[*beams]`, the root at level 0, nodes of the first code at level 1, and so on; or `DEAD_END`.
            level: The level of the children's codes.

        Returns:
            The child nodes `[*beams, max_fanouts[level]]` in order of their codes, then `DEAD_END`; and their token
            ids in the same places, a legal but meaningless one beside a `DEAD_END`.
        """
        first, end = self._edges(nodes)
        edges = first[..., None] + torch.arange(self.max_fanouts[level], device=nodes.device)
        tokens = self._codes(edges) + self.level_offsets[level]
        return torch.where(edges < end[..., None], edges + 1, DEAD_END), tokens

    def allowed_mask(self, nodes: Tensor, alive: Tensor | None = None) -> Tensor:
        """Return which tokens may follow, over the whole vocabulary.

        Args:
            nodes: `[rows]`, of any levels.
            alive: The nodes that lead to an allowed item, from `alive_nodes`: `[nodes]`, or `[batch, nodes]` with
                `rows` a multiple of `batch`, the rows of one user adjacent.

        Returns:
            `[rows, vocab_size]` bool; nothing follows a leaf or a `DEAD_END`.
        """
        first, end = self._edges(nodes)
        edges = first[:, None] + torch.arange(max(self.max_fanouts), device=nodes.device)
        allowed = edges < end[:, None]
        if alive is not None:
            allowed &= is_alive(alive, torch.where(allowed, edges + 1, DEAD_END))
        tokens = self._codes(edges) + self._offsets(nodes)[:, None]
        mask = torch.zeros(len(nodes), self.vocab_size + 1, dtype=torch.bool, device=nodes.device)
        mask.scatter_(1, torch.where(allowed, tokens, self.vocab_size), True)
        return mask[:, :-1]

    def alive_nodes(self, allowed_items: Tensor) -> Tensor:
        """Return which nodes lead to an allowed item.

        Args:
            allowed_items: `[items]` or `[batch, items]` bool.

        Returns:
            `[nodes]` or `[batch, nodes]` bool.

        Raises:
            ValueError: If the mask is not over this tree's items.
        """
        if allowed_items.dtype != torch.bool or allowed_items.shape[-1] != self.num_items or allowed_items.ndim > 2:
            raise ValueError(
                f"`allowed_items` must be bool [items] or [batch, items] over the {self.num_items} items of the trie, "
                f"got {allowed_items.dtype} {list(allowed_items.shape)}. Make the mask from this catalog."
            )
        reached = allowed_items.to(self.device)[..., self._tensors["items"]]
        if self.max_items_per_leaf > 1:
            reached = _any_in_ranges(reached, self._first_items(torch.arange(self.num_leaves + 1, device=self.device)))
        levels = [reached]
        pointers = self._tensors["row_pointers"]
        for level in reversed(range(self.num_levels)):
            nodes = slice(self._level_starts[level], self._level_starts[level + 1] + 1)
            ranges = pointers[nodes] - (self._level_starts[level + 1] - 1)  # edge e leads to node e + 1
            levels.append(_any_in_ranges(levels[-1], ranges))
        return torch.cat(levels[::-1], dim=-1)

    def leaf_items(self, nodes: Tensor) -> Tensor:
        """Return the catalog rows at leaves.

        Args:
            nodes: `[*beams]`.

        Returns:
            `[*beams, max_items_per_leaf]` int64: the rows, lowest first, then `NO_ITEM`; nothing but `NO_ITEM` for a
            node that is no leaf.
        """
        leaves = nodes - self.first_leaf
        is_leaf = leaves >= 0
        leaves = leaves.clamp(min=0)
        slots = self._first_items(leaves)[..., None] + torch.arange(self.max_items_per_leaf, device=nodes.device)
        items = self._tensors["items"][slots.clamp(max=self.num_items - 1)].long()
        is_own = slots < self._first_items(leaves + 1)[..., None]
        return torch.where(is_own & is_leaf[..., None], items, NO_ITEM)

    def levels_of(self, nodes: Tensor) -> Tensor:
        """Return how many codes lead to each node, `[*beams]`: 0 for the root and for `DEAD_END`."""
        return torch.bucketize(nodes.contiguous(), self._tensors["boundaries"], right=True)

    def _first_items(self, leaves: Tensor) -> Tensor:
        """Return where each leaf's items begin in the sorted catalog: one place per leaf and repeat before it."""
        return leaves + torch.searchsorted(self._tensors["repeats"], leaves.int())

    def _edges(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first edge out of each node and the one after its last; an empty range at leaves and dead ends."""
        pointers = self._tensors["row_pointers"]
        first = pointers[nodes.clamp(0, self.first_leaf)].long()
        end = pointers[(nodes + 1).clamp(0, self.first_leaf)].long()
        return first, torch.where(nodes == DEAD_END, first, end)

    def _codes(self, edges: Tensor) -> Tensor:
        return self._tensors["codes"][edges.clamp(max=self.num_nodes - 2)].long()

    def _offsets(self, nodes: Tensor) -> Tensor:
        """Return the offset of the level below each node."""
        return self._tensors["offsets"][self.levels_of(nodes)]


def is_alive(alive: Tensor, nodes: Tensor) -> Tensor:
    """Look nodes up in what `ItemTrie.alive_nodes` returned.

    Args:
        alive: `[nodes in the tree]` or `[batch, nodes in the tree]` bool.
        nodes: `[rows, children]`, `rows` a multiple of `batch`; `DEAD_END` is never alive.

    Returns:
        `[rows, children]` bool.
    """
    if alive.ndim == 1:
        found = alive[nodes.clamp(min=0)]
    else:
        found = alive.gather(1, nodes.clamp(min=0).reshape(len(alive), -1)).reshape(nodes.shape)
    return found & (nodes != DEAD_END)


def _checked_tokens(item_tokens: Tensor, vocab_size: int) -> np.ndarray:
    if item_tokens.ndim != 2 or 0 in item_tokens.shape:
        raise ValueError(
            f"`item_tokens` must be [items, levels] with at least one item and one level, got the shape "
            f"{list(item_tokens.shape)}. Pass the `item_tokens` of a fitted item tokenizer."
        )
    tokens = item_tokens.detach().cpu().numpy()
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"`item_tokens` must lie in 0..{vocab_size - 1}, got {low}..{high}. "
            "Pass token ids (codes plus level offsets) and the `vocab_size` of the same vocabulary."
        )
    return tokens


def _lexicographic_order(columns: list[np.ndarray]) -> np.ndarray:
    """Return the row order sorted by the first column, then the second, and so on, ties by row."""
    keys: list[np.ndarray] = []
    bits_left = 0
    for column in columns:
        bits = int(column.max()).bit_length()
        if not keys or bits > bits_left:
            keys.append(column.astype(np.int64))
            bits_left = _KEY_BITS - bits
        else:
            keys[-1] = keys[-1] << bits | column
            bits_left -= bits
    return np.argsort(keys[0], kind="stable") if len(keys) == 1 else np.lexsort(keys[::-1])


def _smallest_dtype(largest: int) -> type:
    if largest < 1 << 8:
        return np.uint8
    return np.int16 if largest < 1 << 15 else np.int32


def _any_in_ranges(flags: Tensor, pointers: Tensor) -> Tensor:
    """Return for each range `pointers[i]:pointers[i + 1]` whether any flag in it is set, `[.., ranges]`."""
    counts = torch.nn.functional.pad(flags.cumsum(dim=-1, dtype=torch.int32), (1, 0))[..., pointers]
    return counts[..., 1:] > counts[..., :-1]
