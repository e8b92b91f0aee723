import itertools

import numpy as np
import pytest
import torch

from genrec.item_tokenizers.code_table import CodeIndex, CodeTable, check_item_ids

SIZES = (3, 2, 4)


def table_of(codes, ids, errors=None):
    codes = torch.tensor(codes)
    return CodeTable(check_item_ids(ids), codes, SIZES, codes, errors)


def test_the_index_agrees_with_a_dictionary_for_every_code():
    drawn = torch.randint(2**30, (15, 3), generator=torch.Generator().manual_seed(0)) % torch.tensor(SIZES)
    index = CodeIndex(drawn, SIZES)
    first_row = {}
    for row, code in enumerate(drawn.tolist()):
        first_row.setdefault(tuple(code), row)
    for code in itertools.product(*(range(-1, size + 1) for size in SIZES)):
        number = int(index.find(torch.tensor(code)))
        found = int(index.first_rows[number]) if number >= 0 else None
        assert found == first_row.get(code), code


def test_the_index_works_for_more_codes_than_an_integer_can_count():
    codes = torch.tensor([[255] * 12, [0] * 12, [255] * 11 + [254]])
    index = CodeIndex(codes, [256] * 12)
    assert index.find(codes).tolist() == [2, 0, 1]
    assert int(index.find(torch.tensor([255] * 11 + [0]))) == -1


def test_prefixes_of_no_level_are_all_the_same():
    index = CodeIndex(torch.zeros(3, 0, dtype=torch.long), [])
    assert index.numbers.tolist() == [0, 0, 0]
    assert index.find(torch.zeros(2, 0, dtype=torch.long)).tolist() == [0, 0]


def test_rows_are_found_by_id_and_by_code():
    table = table_of([[2, 1, 3], [0, 0, 0]], ["x", "y"])
    assert table.rows(["y", "x"]).tolist() == [1, 0]
    assert table.rows_of_codes(torch.tensor([[[0, 0, 0], [2, 1, 0]]])).tolist() == [[1, -1]]


def test_an_id_of_another_type_has_no_code():
    with pytest.raises(ValueError, match="item '7' has no code.*7 and '7' are different ids"):
        table_of([[0, 0, 0]], [7]).rows(["7"])


def test_select_and_extend_keep_the_other_rows():
    errors = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    table = table_of([[2, 1, 3], [0, 0, 0]], ["x", "y"], errors)
    kept = table.select(np.array([1]))
    assert (kept.item_ids.tolist(), kept.codes.tolist(), kept.errors.tolist()) == (["y"], [[0, 0, 0]], [[3.0, 4.0]])
    new = torch.tensor([[1, 1, 1]])
    longer = kept.extend(np.array([7]), new, new, torch.tensor([[5.0, 6.0]]))
    assert longer.item_ids.tolist() == ["y", 7]
    assert longer.codes.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert longer.errors.tolist() == [[3.0, 4.0], [5.0, 6.0]]
