"""Repair: give every item a code of its own, close to the code it asked for.

Only the last level changes. Of the items that ask for the same code the closest keeps it; the others take turns, the
closest first, and each takes the nearest code of its prefix that is still free. A prefix with more items than last
codes is shared out evenly, and a disambiguation level tells its items apart. The result depends on the items and their
distances; their order decides between equals only.

Taking turns is not done one by one: thousands of items of all prefixes ask at once, an over-full code keeps those whose
turn comes first, and the others ask for their next choice. That ends where taking turns ends, because all codes agree
on whose turn comes first (deferred acceptance, Gale and Shapley, American Mathematical Monthly 1962).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genrec.item_tokenizers.code_table import CodeIndex

Costs = Callable[[Tensor, Tensor, int], Tensor]
"""`costs(rows, codes, level)`: how far each code of `level` is from each row's item, `[rows, codes of the level]`,
given the codes `[rows, levels]` of the levels before."""

PREFIXES_PER_CHUNK = 4_096
ROWS_PER_CHUNK = 2_048
HOMELESS = -1


def repair_codes(raw_codes: Tensor, codebook_sizes: Sequence[int], costs: Costs) -> tuple[Tensor, list[int]]:
    """Make codes one to one.

    Args:
        raw_codes: `[items, levels]`, repeats allowed.
        codebook_sizes: One size per level.
        costs: Distances to the codes of a level.

    Returns:
        Codes, `[items, levels]`, all different, and the codebook sizes; with one level more if a prefix has more items
        than the last level has codes.

    Example:
        >>> def costs(rows, codes, level):
        ...     return torch.tensor([[0.0, 5.0, 9.0], [1.0, 2.0, 3.0]])[rows]
        >>> repair_codes(torch.tensor([[4, 0], [4, 0]]), [5, 3], costs)
        (tensor([[4, 0],
                [4, 1]]), [5, 3])
    """
    prefixes = CodeIndex(raw_codes[:, :-1], codebook_sizes[:-1]).numbers
    capacity = -(-torch.bincount(prefixes) // codebook_sizes[-1])
    nobody = torch.zeros(0, dtype=torch.long)
    request = _Request(raw_codes, prefixes, capacity, codebook_sizes[-1], costs, nobody, nobody)
    last = request.share_out()
    codes = torch.cat([raw_codes[:, :-1], last[:, None]], dim=1)
    depth = int(capacity.max())
    if depth == 1:
        return codes, list(codebook_sizes)
    return torch.cat([codes, request.digits(last)[:, None]], dim=1), [*codebook_sizes, depth]


def place_codes(raw_codes: Tensor, taken: Tensor, codebook_sizes: Sequence[int], costs: Costs) -> Tensor:
    """Give new items free codes around the codes that others have.

    An item whose prefix is full goes down the codebooks again, at each level to the nearest code with room below it.

    Args:
        raw_codes: What the new items ask for, `[new items, raw levels]`.
        taken: All codes in use, all different, `[items, levels]`.
        codebook_sizes: One size per level of `taken`: the raw levels and, where there is one, the disambiguation level.
        costs: Distances to the codes of a raw level.

    Returns:
        Codes, `[new items, levels]`, all different and none of them taken.

    Raises:
        ValueError: If there are fewer free codes than new items.
    """
    free = math.prod(codebook_sizes) - len(taken)
    if free < len(raw_codes):
        raise ValueError(
            f"The codebooks {list(codebook_sizes)} have {free} free codes, too few for {len(raw_codes)} new items. "
            "Fit the item tokenizer anew on the whole catalog."
        )
    num_raw = raw_codes.shape[1]
    depth = codebook_sizes[num_raw] if len(codebook_sizes) > num_raw else 1
    codes = _place_in_prefix(raw_codes, taken, codebook_sizes[:num_raw], depth, costs)
    homeless = torch.nonzero(codes[:, num_raw - 1] == HOMELESS).flatten()
    if depth > 1:
        housed = torch.nonzero(codes[:, num_raw - 1] != HOMELESS).flatten()
        codes = torch.cat([codes, torch.zeros(len(codes), 1, dtype=torch.long)], dim=1)
        codes[housed, -1] = _free_digits(codes[housed, :-1], taken, codebook_sizes)
    if len(homeless) > 0:
        in_use = torch.cat([taken, codes[codes[:, num_raw - 1] != HOMELESS]])
        codes[homeless] = _walk_down(homeless, in_use, codebook_sizes, num_raw, costs)
    return codes


def rank_within(groups: Tensor) -> Tensor:
    """Number the members of each group from 0 in their order, `[members]`.

    >>> rank_within(torch.tensor([7, 3, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = torch.argsort(groups, stable=True)
    _, counts = torch.unique_consecutive(groups[order], return_counts=True)
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    ranks = torch.empty_like(groups)
    ranks[order] = torch.arange(len(groups)) - starts
    return ranks


def _place_in_prefix(raw_codes: Tensor, taken: Tensor, sizes: Sequence[int], depth: int, costs: Costs) -> Tensor:
    """Return raw codes with a last code that has room, or `HOMELESS` there if the prefix is full."""
    index = CodeIndex(raw_codes[:, :-1], sizes[:-1])
    neighbours = index.find(taken[:, : len(sizes) - 1])
    near = neighbours >= 0
    capacity = torch.full((len(index.first_rows),), depth)
    taken_last = taken[near, len(sizes) - 1]
    request = _Request(raw_codes, index.numbers, capacity, sizes[-1], costs, neighbours[near], taken_last)
    return torch.cat([raw_codes[:, :-1], request.share_out()[:, None]], dim=1)


@dataclass(frozen=True)
class _Request:
    """Items that ask for last codes below their prefixes.

    Args:
        raw_codes: What the items ask for, `[items, levels]`.
        prefixes: Dense number of each item's prefix, `[items]`.
        capacity: How many items may share one last code, `[prefixes]`.
        size: How many last codes there are.
        costs: Distances to the codes of a level.
        taken_prefixes: Prefix of each code in use below these prefixes, `[taken]`.
        taken_last: Last code of each code in use, `[taken]`.
    """

    raw_codes: Tensor
    prefixes: Tensor
    capacity: Tensor
    size: int
    costs: Costs
    taken_prefixes: Tensor
    taken_last: Tensor

    def share_out(self) -> Tensor:
        """Return last codes, `[items]`, at most `capacity` items on each; `HOMELESS` where a prefix has no room."""
        wanted = self.raw_codes[:, -1]
        movers = self._movers()
        if len(movers) == 0:
            return wanted
        last = wanted.clone()
        last[movers] = HOMELESS
        for chunk in torch.unique(self.prefixes[movers]).split(PREFIXES_PER_CHUNK):
            self._take_turns(last, movers, chunk)
        return last

    def digits(self, last: Tensor) -> Tensor:
        """Number the items that share a last code from 0, the closest first, `[items]`."""
        _, leaf_of = torch.unique(self.prefixes * self.size + last, return_inverse=True)
        shared = torch.nonzero((torch.bincount(leaf_of) > 1)[leaf_of]).flatten()
        shared = shared[torch.argsort(self._distances_to(last, shared), stable=True)]
        digits = torch.zeros_like(last)
        digits[shared] = rank_within(leaf_of[shared])
        return digits

    def distances(self, rows: Tensor) -> Tensor:
        """Return the distances of items to all last codes, `[rows, size]`."""
        return self.costs(rows, self.raw_codes[rows], self.raw_codes.shape[1] - 1)

    def _movers(self) -> Tensor:
        """Return the rows that cannot have the code they ask for, the closest to it first."""
        wanted = self.raw_codes[:, -1]
        buckets, bucket_of = torch.unique(self.prefixes * self.size + wanted, return_inverse=True)
        room = self.capacity[buckets // self.size] - _count(buckets, self.taken_prefixes * self.size + self.taken_last)
        contested = torch.nonzero((torch.bincount(bucket_of) > room)[bucket_of]).flatten()
        if len(contested) == 0:
            return contested
        contested = contested[torch.argsort(self._distances_to(wanted, contested), stable=True)]
        return contested[rank_within(bucket_of[contested]) >= room[bucket_of[contested]]]

    def _distances_to(self, last: Tensor, rows: Tensor) -> Tensor:
        """Return how far these rows' items are from the last codes that `last` `[items]` gives them, `[rows]`."""
        found = torch.empty(len(rows))
        for chunk, part in zip(rows.split(ROWS_PER_CHUNK), found.split(ROWS_PER_CHUNK), strict=True):
            part[:] = self.distances(chunk).gather(1, last[chunk, None]).flatten()
        return found

    def _take_turns(self, last: Tensor, movers: Tensor, chunk: Tensor) -> None:
        """Fill in `last` for the movers of the prefixes `chunk`, who choose in their order."""
        place_of = torch.full((len(self.capacity),), HOMELESS)
        place_of[chunk] = torch.arange(len(chunk))
        room = self.capacity[chunk][:, None] - self._occupancy(last, place_of, len(chunk))
        for rows in movers[place_of[self.prefixes[movers]] >= 0].split(ROWS_PER_CHUNK):
            last[rows] = _choose_in_turn(self.distances(rows), place_of[self.prefixes[rows]], room)

    def _occupancy(self, last: Tensor, place_of: Tensor, num_places: int) -> Tensor:
        """Return how many items each last code below the chosen prefixes has already, `[places, size]`."""
        is_housed = last != HOMELESS
        ours = place_of[self.prefixes[is_housed]] * self.size + last[is_housed]
        theirs = place_of[self.taken_prefixes] * self.size + self.taken_last
        occupied = torch.cat([ours, theirs])
        counts = torch.bincount(occupied[occupied >= 0], minlength=num_places * self.size)
        return counts.view(num_places, self.size)


def _choose_in_turn(distances: Tensor, places: Tensor, room: Tensor) -> Tensor:
    """Return for each item the nearest code that those before it left room for, `HOMELESS` if there is none.

    Args:
        distances: `[items, size]`, in the order of the turns.
        places: Each item's row of `room`; items of different rows do not compete.
        room: How many more items each code may take, `[places, size]`; the room taken is subtracted.
    """
    wishes = distances.masked_fill(room[places] <= 0, torch.inf)
    chosen = torch.full((len(places),), HOMELESS)
    asking = torch.arange(len(places))
    while len(asking) > 0:
        smallest, nearest = wishes[asking].min(dim=1)
        chosen[asking] = nearest.where(smallest < torch.inf, HOMELESS)
        seated = torch.nonzero(chosen != HOMELESS).flatten()
        seats = places[seated] * room.shape[1] + chosen[seated]
        asking = seated[rank_within(seats) >= room.flatten()[seats]]
        wishes[asking, chosen[asking]] = torch.inf
    room.view(-1).scatter_add_(0, seats, -torch.ones_like(seats))
    return chosen


def _count(keys: Tensor, members: Tensor) -> Tensor:
    """Return how often each of the sorted, different `keys` occurs among `members`, `[keys]`."""
    ordered = members.sort().values
    return torch.searchsorted(ordered, keys, right=True) - torch.searchsorted(ordered, keys)


def _free_digits(codes: Tensor, taken: Tensor, codebook_sizes: Sequence[int]) -> Tensor:
    """Return the smallest disambiguation digits that are free below each code, `[new items]`, none twice."""
    if len(codes) == 0:
        return torch.zeros(0, dtype=torch.long)
    index = CodeIndex(codes, codebook_sizes[:-1])
    places = index.find(taken[:, :-1])
    occupied = torch.zeros(len(index.first_rows), codebook_sizes[-1], dtype=torch.long)
    occupied[places[places >= 0], taken[places >= 0, -1]] = 1
    free_first = occupied.argsort(dim=1, stable=True)
    return free_first[index.numbers, rank_within(index.numbers)]


def _walk_down(rows: Tensor, in_use: Tensor, sizes: Sequence[int], num_raw: int, costs: Costs) -> Tensor:
    """Lead items down the levels, at each to the nearest code with a free code below it; return their codes.

    They choose in the order of their rows. Whom an item competes with at a level is decided by its codes above, so
    all of them take one level at a time.
    """
    codes = torch.zeros(len(rows), len(sizes), dtype=torch.long)
    for level, size in enumerate(sizes):
        places, room = _room_below(codes[:, :level], in_use, sizes)
        for part in torch.arange(len(rows)).split(ROWS_PER_CHUNK):
            if level < num_raw:
                distances = costs(rows[part], codes[part, :num_raw], level)
            else:
                distances = torch.arange(size, dtype=torch.float).expand(len(part), size)
            codes[part, level] = _choose_in_turn(distances, places[part], room)
    return codes


def _room_below(prefixes: Tensor, in_use: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return which of the different prefixes each prefix is, and how many codes are free below each of their codes.

    Args:
        prefixes: Codes of the first levels, `[items, level]`.
        in_use: All codes in use, `[items in use, levels]`.
        sizes: One size per level.

    Returns:
        Places, `[items]`, and free codes, `[places, size of the level]`.
    """
    level = prefixes.shape[1]
    if level == 0:
        places, neighbours, num_places = (
            torch.zeros(len(prefixes), dtype=torch.long),
            torch.zeros(len(in_use)).long(),
            1,
        )
    else:
        index = CodeIndex(prefixes, sizes[:level])
        places, neighbours, num_places = index.numbers, index.find(in_use[:, :level]), len(index.first_rows)
    near = neighbours >= 0
    seats = neighbours[near] * sizes[level] + in_use[near, level]
    counts = torch.bincount(seats, minlength=num_places * sizes[level]).view(num_places, sizes[level])
    return places, math.prod(sizes[level + 1 :]) - counts
