import itertools
import math

import pytest
import torch

from genrec.item_tokenizers import collisions
from genrec.item_tokenizers.collisions import place_codes, rank_within, repair_codes
from genrec.item_tokenizers.quantizers import reconstruct, residual_codes, squared_distances

SIZES = [4, 6]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(num_items, seed=0, sizes=SIZES, dim=3):
    """Vectors, their nearest codes in random codebooks, and the distances that repair asks for."""
    vectors = torch.randn(num_items, dim, generator=generator(seed))
    codebooks = [torch.randn(size, dim, generator=generator(99 + level)) for level, size in enumerate(sizes)]

    def costs(rows, codes, level):
        residual = vectors[rows] - (reconstruct(codes[:, :level], codebooks[:level]) if level else 0)
        return squared_distances(residual, codebooks[level])

    return residual_codes(vectors, codebooks), costs


def naive_repair(raw, costs, size):
    """One prefix after the other, one item after the other, with Python lists; for prefixes that are not over-full."""
    codes = raw.tolist()
    for prefix in {tuple(code[:-1]) for code in codes}:
        rows = [row for row, code in enumerate(raw.tolist()) if tuple(code[:-1]) == prefix]
        distance = {row: costs(torch.tensor([row]), raw[[row]], raw.shape[1] - 1)[0].tolist() for row in rows}
        own = sorted(rows, key=lambda row: (distance[row][codes[row][-1]], row))
        taken, movers = set(), []
        for row in own:
            movers.append(row) if codes[row][-1] in taken else taken.add(codes[row][-1])
        for row in movers:
            free = [code for code in range(size) if code not in taken]
            codes[row][-1] = min(free, key=lambda code: distance[row][code])
            taken.add(codes[row][-1])
    return codes


def is_one_to_one(codes):
    return len({tuple(code) for code in codes.tolist()}) == len(codes)


def test_the_closest_item_keeps_the_code_and_the_next_takes_the_nearest_free_one():
    distances = torch.tensor([[0.5, 9.0, 2.0, 7.0], [0.1, 3.0, 1.0, 8.0], [0.9, 4.0, 6.0, 5.0], [9.0, 9.0, 9.0, 0.0]])
    raw = torch.tensor([[0, 0], [0, 0], [0, 0], [0, 3]])
    codes, sizes = repair_codes(raw, [1, 4], lambda rows, codes, level: distances[rows])
    # Row 1 is closest to code 0 and keeps it; row 0 chooses next and takes 2, row 2 takes 1 (3 belongs to row 3).
    assert codes.tolist() == [[0, 2], [0, 0], [0, 1], [0, 3]]
    assert sizes == [1, 4]


@pytest.mark.parametrize("seed", range(5))
def test_repair_equals_a_naive_one(seed):
    sizes = [4, 16]
    raw, costs = problem(24, seed, sizes)
    codes, same_sizes = repair_codes(raw, sizes, costs)
    assert same_sizes == sizes
    assert not torch.equal(codes, raw)
    assert codes.tolist() == naive_repair(raw, costs, 16)


def test_chunks_of_prefixes_and_rows_change_nothing(monkeypatch):
    raw, costs = problem(40, sizes=[8, 40])
    whole = repair_codes(raw, [8, 40], costs)[0]
    monkeypatch.setattr(collisions, "PREFIXES_PER_CHUNK", 1)
    monkeypatch.setattr(collisions, "ROWS_PER_CHUNK", 3)
    assert not torch.equal(whole, raw)
    assert torch.equal(repair_codes(raw, [8, 40], costs)[0], whole)


@pytest.mark.parametrize("seed", range(4))
def test_turns_taken_together_equal_turns_taken_one_by_one(seed):
    """Many items of few prefixes, with distances that often tie."""
    sizes = [2, 40]
    raw = torch.stack([torch.randint(2, (70,), generator=generator(seed)), torch.zeros(70, dtype=torch.long)], dim=1)
    distances = torch.randint(6, (70, 40), generator=generator(seed)).float()

    def costs(rows, codes, level):
        return distances[rows]

    assert repair_codes(raw, sizes, costs)[0].tolist() == naive_repair(raw, costs, 40)


def naive_walk(raw, taken, sizes, costs):
    """One new item after the other, from the first level down, with a plain set of the codes in use."""
    in_use, placed = {tuple(code) for code in taken.tolist()}, []
    for row in range(len(raw)):
        code = []
        for level, size in enumerate(sizes):
            below = math.prod(sizes[level + 1 :])
            open_codes = [
                last for last in range(size) if sum(used[: level + 1] == (*code, last) for used in in_use) < below
            ]
            known = torch.tensor([[*code, *[0] * (len(sizes) - level)]])
            distance = costs(torch.tensor([row]), known, level)[0].tolist()
            code.append(min(open_codes, key=lambda last: distance[last]))
        in_use.add(tuple(code))
        placed.append(code)
    return placed


@pytest.mark.parametrize("rows_per_chunk", [2, 1000])
def test_many_items_of_full_prefixes_walk_down_as_one_by_one(rows_per_chunk, monkeypatch):
    monkeypatch.setattr(collisions, "ROWS_PER_CHUNK", rows_per_chunk)
    sizes = [3, 3, 4]
    _, costs = problem(14, sizes=sizes)
    full = torch.tensor([[0, 0, last] for last in range(4)])  # everyone asks for the full prefix (0, 0)
    others = torch.tensor([[1, 0, 0], [1, 0, 1], [1, 0, 2], [2, 2, 3]])
    taken = torch.cat([full, others])
    raw = torch.zeros(14, 3, dtype=torch.long)
    assert place_codes(raw, taken, sizes, costs).tolist() == naive_walk(raw, taken, sizes, costs)


def test_the_order_of_items_does_not_matter():
    raw, costs = problem(20)
    codes, _ = repair_codes(raw, SIZES, costs)
    order = torch.randperm(20, generator=generator())
    shuffled, _ = repair_codes(raw[order], SIZES, lambda rows, codes, level: costs(order[rows], codes, level))
    assert torch.equal(shuffled, codes[order])


def test_codes_without_collision_stay():
    raw = torch.tensor(list(itertools.product(range(4), range(6))))

    def never(rows, codes, level):
        raise AssertionError("nothing to choose")

    codes, sizes = repair_codes(raw, SIZES, never)
    assert torch.equal(codes, raw)
    assert sizes == SIZES


def test_an_over_full_prefix_gets_a_level_and_is_shared_out_evenly():
    distances = torch.tensor([[0.0, 1.0, 2.0]]).repeat(7, 1)
    raw = torch.tensor([[0, 0]] * 7 + [[1, 2]])
    codes, sizes = repair_codes(raw, [2, 3], lambda rows, codes, level: distances[rows])
    assert sizes == [2, 3, 3]  # 7 items on 3 codes: at most 3 each
    assert is_one_to_one(codes)
    assert torch.bincount(codes[:7, 1]).tolist() == [3, 3, 1]
    assert codes[7].tolist() == [1, 2, 0]


def test_one_level_can_be_repaired():
    raw = torch.zeros(3, 1, dtype=torch.long)
    distances = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).repeat(3, 1)
    codes, sizes = repair_codes(raw, [4], lambda rows, codes, level: distances[rows])
    assert codes.tolist() == [[0], [1], [2]]
    assert sizes == [4]


def test_new_items_go_around_the_taken_codes():
    taken = torch.tensor([[0, 0], [0, 2], [1, 1]])
    distances = torch.tensor([[0.0, 5.0, 1.0, 3.0], [0.5, 6.0, 7.0, 2.0], [9.0, 0.0, 9.0, 8.0]])
    raw = torch.tensor([[0, 0], [0, 0], [0, 1]])
    codes = place_codes(raw, taken, [2, 4], lambda rows, codes, level: distances[rows][:, : [2, 4][level]])
    # Codes 0 and 2 are taken and row 2 asked for the free code 1: rows 0 and 1 find only code 3 free below prefix 0,
    # and row 0, closer to what it asked for, gets it. Row 1 has to go down again; prefix 0 is full by then.
    assert codes[0].tolist() == [0, 3]
    assert codes[2].tolist() == [0, 1]
    assert codes[1].tolist() == [1, 0]


def test_items_of_a_full_prefix_walk_to_the_nearest_prefix_with_room():
    sizes = [3, 2]
    taken = torch.tensor([[0, 0], [0, 1], [2, 0]])
    first, last = torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([[0.0, 1.0]])
    codes = place_codes(
        torch.tensor([[0, 0], [0, 0], [0, 1]]),
        taken,
        sizes,
        lambda rows, codes, level: (first if level == 0 else last).repeat(len(rows), 1),
    )
    assert codes.tolist() == [[2, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("sizes", [SIZES, [4, 6, 3]])
def test_a_table_can_be_filled_to_the_brim(sizes):
    raw, costs = problem(24 if len(sizes) == 2 else 72, seed=3)
    everything = torch.tensor(list(itertools.product(*map(range, sizes))))
    taken = everything[torch.randperm(len(everything), generator=generator())[: len(everything) // 2]]
    codes = place_codes(raw[: len(everything) - len(taken)], taken, sizes, costs)
    assert is_one_to_one(torch.cat([taken, codes]))


def test_new_items_take_the_smallest_free_digit_of_a_disambiguation_level():
    taken = torch.tensor([[0, 0, 1], [0, 1, 0], [1, 0, 0]])
    distances = torch.tensor([[0.0, 9.0]]).repeat(2, 1)
    codes = place_codes(torch.tensor([[0, 0], [0, 0]]), taken, [2, 2, 3], lambda rows, codes, level: distances[rows])
    assert codes.tolist() == [[0, 0, 0], [0, 0, 2]]


def test_more_items_than_free_codes_are_refused():
    raw, costs = problem(3)
    taken = torch.tensor(list(itertools.product(range(4), range(6))))[:22]
    with pytest.raises(ValueError, match="have 2 free codes, too few for 3 new items"):
        place_codes(raw, taken, SIZES, costs)


def test_ranks_count_within_groups():
    assert rank_within(torch.tensor([5, 5, 1, 5, 1])).tolist() == [0, 1, 0, 2, 1]
    assert rank_within(torch.tensor([], dtype=torch.long)).tolist() == []
