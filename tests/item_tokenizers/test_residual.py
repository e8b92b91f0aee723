import warnings

import numpy as np
import pytest
import torch

from genrec.item_tokenizers import RQKMeansTokenizer, RQVAETokenizer
from genrec.item_tokenizers.residual import check_vectors

IDS = np.array(["a", "b", "c"], dtype=object)


def test_vectors_are_taken_without_a_copy():
    array = np.ones((3, 2), dtype=np.float32)
    assert np.shares_memory(check_vectors(array, IDS).numpy(), array)
    assert check_vectors(torch.ones(3, 2, dtype=torch.float64), IDS).dtype == torch.float32
    assert check_vectors(torch.ones(3, 2, dtype=torch.bfloat16), IDS).tolist() == [[1, 1]] * 3
    assert check_vectors([[1, 2], [3, 4], [5, 6]], IDS).tolist() == [[1, 2], [3, 4], [5, 6]]


def test_half_precision_and_memory_maps_stay_as_they_are(tmp_path):
    half = np.ones((3, 2), dtype=np.float16)
    assert np.shares_memory(check_vectors(half, IDS).numpy(), half)
    for dtype in (torch.float16, torch.bfloat16):
        tensor = torch.ones(3, 2, dtype=dtype)
        assert check_vectors(tensor, IDS).data_ptr() == tensor.data_ptr()
    for dtype in (np.float16, np.float32):
        path = tmp_path / f"{np.dtype(dtype)}.npy"
        np.save(path, np.ones((3, 2), dtype=dtype))
        mapped = np.load(path, mmap_mode="r")
        with warnings.catch_warnings(action="error"):
            assert np.shares_memory(check_vectors(mapped, IDS).numpy(), mapped)


@pytest.mark.parametrize("half", [np.float16, torch.float16, torch.bfloat16])
def test_half_precision_is_checked_too(half):
    def make(rows):
        return np.array(rows, dtype=half) if half is np.float16 else torch.tensor(rows, dtype=half)

    with pytest.raises(ValueError, match=r"row 1 \(item 'b'\) has inf in column 0"):
        check_vectors(make([[0.0], [np.inf], [0.0]]), IDS)
    with pytest.raises(ValueError, match="got 2 rows for 3 items"):
        check_vectors(make([[0.0], [0.0]]), IDS)
    with pytest.raises(ValueError, match="shape"):
        check_vectors(make([0.0, 0.0, 0.0]), IDS)
    with pytest.raises(ValueError, match="shape"):
        check_vectors(make([[], [], []]), IDS)


@pytest.mark.parametrize("tokenizer", [RQKMeansTokenizer([4, 16]), RQVAETokenizer([4, 16], num_steps=8)])
def test_half_precision_vectors_get_the_codes_of_their_values(tokenizer):
    vectors = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).half()
    codes = tokenizer.fit(vectors, range(60), "view,buy").codes
    error = tokenizer.report().reconstruction_error
    assert torch.equal(tokenizer.fit(vectors.float(), range(60), "view,buy").codes, codes)
    assert tokenizer.report().reconstruction_error == pytest.approx(error)
    tokenizer.add_items(["new"], vectors[:1].numpy())
    assert len(tokenizer.codes.unique(dim=0)) == 61


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_item(bad):
    array = np.zeros((3, 2), dtype=np.float32)
    array[1, 0] = bad
    with pytest.raises(ValueError, match=rf"row 1 \(item 'b'\) has {bad} in column 0 \(and 1 rows in all"):
        check_vectors(array, IDS)


def test_opposite_infinities_do_not_cancel():
    with pytest.raises(ValueError, match="item 'c'"):
        check_vectors([[0, 0], [0, 0], [np.inf, -np.inf]], IDS)


def test_huge_values_are_finite():
    assert check_vectors(np.full((3, 2), 3e38, dtype=np.float32), IDS).shape == (3, 2)


@pytest.mark.parametrize(("shape", "message"), [((2, 4), "got 2 rows for 3 items"), ((3,), "shape"), ((3, 0), "shape")])
def test_a_wrong_shape_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        check_vectors(np.zeros(shape), IDS)


def test_no_vectors_are_refused():
    with pytest.raises(ValueError, match="`embeddings` must hold one vector per item, got None"):
        check_vectors(None, IDS)


def test_new_items_need_vectors_of_the_same_space():
    vectors = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    tokenizer = RQKMeansTokenizer([4, 8]).fit(vectors, range(20), "view,buy")
    with pytest.raises(ValueError, match="vectors of the 4 dimensions .* got 5"):
        tokenizer.add_items([99], torch.ones(1, 5))


def test_chunks_change_neither_codes_nor_errors(monkeypatch):
    vectors = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    tokenizer = RQKMeansTokenizer([4, 16]).fit(vectors, range(50), "view,buy")
    monkeypatch.setattr("genrec.item_tokenizers.residual.VECTORS_PER_CHUNK", 7)
    again = RQKMeansTokenizer([4, 16]).fit(vectors, range(50), "view,buy")
    assert torch.equal(again.codes, tokenizer.codes)
    assert again.report().reconstruction_error == pytest.approx(tokenizer.report().reconstruction_error)


def test_the_reported_error_is_the_share_of_variance_that_codes_lose():
    vectors = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    tokenizer = RQKMeansTokenizer([4, 16]).fit(vectors, range(40), "view,buy")
    lost = 0.0
    for vector in vectors:
        residual = vector
        for codebook in tokenizer.codebooks:
            residual = residual - min(codebook, key=lambda code: float((residual - code).square().sum()))
        lost += float(residual.square().sum())
    variance = float((vectors - vectors.mean(dim=0)).square().sum())
    assert tokenizer.report().reconstruction_error == pytest.approx(lost / variance, rel=1e-4)


def test_a_collision_is_repaired_by_the_residual_before_the_last_level():
    """Two new items want the taken last code 0; what level 1 leaves of them is nearest to the codes 1 and 2."""
    tokenizer = RQKMeansTokenizer([1, 3]).fit(torch.zeros(3, 1), ["old", "b", "c"], "view,buy")
    tokenizer.codebooks = [torch.tensor([[100.0]]), torch.tensor([[0.0], [5.0], [-6.0]])]
    old = tokenizer.item_ids[tokenizer.codes[:, 1] == 0]
    tokenizer.remove_items([item_id for item_id in tokenizer.item_ids if item_id not in old])
    tokenizer.add_items(["x", "y"], [[102.0], [98.0]])
    assert tokenizer.codes[:, 1].tolist() == [0, 1, 2]
