import math

import pytest

from genrec.item_tokenizers.sizes import (
    AUTO,
    auto_chunk_size,
    auto_codebook_sizes,
    check_codebook_sizes,
    choose_codebook_sizes,
)

CATALOGS = [4, 5, 20, 100, 300, 3_000, 30_000, 168_530, 1_300_000, 2_000_000, 100_000_000]


@pytest.mark.parametrize(
    ("num_items", "sizes"),
    [
        (1, [1]),
        (3, [3]),
        (20, [8, 8, 8]),  # 16 * 16 >= 160 too, but 16 codes are more than half of 20 items
        (300, [64, 64]),  # 64 * 64 = 4096 >= 2400 > 32 * 32
        (3_000, [256, 256]),  # 65536 >= 24000 > 128 * 128
        (30_000, [512, 512]),  # 262144 >= 240000
        (2_000_000, [256, 256, 256]),  # 16.8 million >= 16 million
    ],
)
def test_auto_sizes_by_hand(num_items, sizes):
    assert auto_codebook_sizes(num_items) == sizes


@pytest.mark.parametrize("num_items", CATALOGS)
def test_auto_sizes_leave_room_and_never_exceed_half_the_catalog(num_items):
    sizes = auto_codebook_sizes(num_items)
    assert math.prod(sizes) >= 8 * num_items
    assert max(sizes) <= min(512, num_items // 2)


@pytest.mark.parametrize("num_items", [1, 2, *CATALOGS])
def test_auto_chunks_have_room_for_a_quarter_more(num_items):
    base, num_levels = auto_chunk_size(num_items)
    assert 2 <= base <= 64
    assert base**num_levels >= 1.25 * num_items


def test_explicit_sizes_are_kept():
    assert choose_codebook_sizes((4, 8), num_items=8) == [4, 8]
    assert choose_codebook_sizes(AUTO, num_items=20) == [8, 8, 8]


def test_a_codebook_larger_than_the_catalog_is_refused():
    with pytest.raises(ValueError, match=r'256 codes at level 1 and there are 255 items.*codebook_sizes="auto"'):
        check_codebook_sizes([255, 256], num_items=255)


@pytest.mark.parametrize("sizes", [[], "big", [0], [2.5], [True]])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ValueError, match=r'must be "auto" or a list with one positive size per level'):
        choose_codebook_sizes(sizes, num_items=100)
