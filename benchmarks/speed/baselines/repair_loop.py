"""Repair of colliding item codes as most code does it: item after item, with a set of the codes that are taken."""

from collections import defaultdict

import torch
from torch import Tensor

from genrec.item_tokenizers.collisions import Costs


def repair_by_loop(raw_codes: Tensor, size: int, costs: Costs) -> Tensor:
    """Return codes that differ, `[items, levels]`: the closest item keeps a code, others take the nearest free one.

    Args:
        raw_codes: `[items, levels]`; no prefix may have more items than the last level has codes.
        size: Codes of the last level.
        costs: See `genrec.item_tokenizers.collisions`.

    Example:
        >>> distances = torch.tensor([[0.0, 5.0, 9.0], [1.0, 2.0, 3.0]])
        >>> repair_by_loop(torch.tensor([[4, 0], [4, 0]]), 3, lambda rows, codes, level: distances[rows]).tolist()
        [[4, 0], [4, 1]]
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    codes = raw_codes.tolist()
    for row, code in enumerate(codes):
        groups[tuple(code[:-1])].append(row)
    for rows in groups.values():
        if len({codes[row][-1] for row in rows}) < len(rows):
            _repair_group(rows, codes, size, costs)
    return torch.tensor(codes)


def _repair_group(rows: list[int], codes: list[list[int]], size: int, costs: Costs) -> None:
    ids = torch.tensor(rows)
    distances = costs(ids, torch.tensor([codes[row] for row in rows]), len(codes[0]) - 1).tolist()
    distance_of = dict(zip(rows, distances, strict=True))
    taken: set[int] = set()
    movers = []
    for row in sorted(rows, key=lambda row: distance_of[row][codes[row][-1]]):
        if codes[row][-1] in taken:
            movers.append(row)
        else:
            taken.add(codes[row][-1])
    for row in movers:
        free = (code for code in range(size) if code not in taken)
        codes[row][-1] = min(free, key=distance_of[row].__getitem__)
        taken.add(codes[row][-1])
