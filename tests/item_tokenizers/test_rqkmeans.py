import subprocess
import sys

import numpy as np
import pytest
import torch

from genrec.item_tokenizers import RQKMeansTokenizer


def vectors_of(num_items, dim=6, seed=0):
    return torch.randn(num_items, dim, generator=torch.Generator().manual_seed(seed))


def fit(num_items=200, **settings):
    return RQKMeansTokenizer(**settings).fit(vectors_of(num_items), range(num_items), "view,buy")


def test_two_levels_of_clusters_are_found():
    """Four far clusters, each with the same four near offsets: the codes must be (cluster, offset)."""
    far = 1000 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    near = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    vectors = (far[:, None] + near[None]).view(16, 2)
    tokenizer = RQKMeansTokenizer([4, 4]).fit(vectors, range(16), "view,buy")
    grid = tokenizer.codes.view(4, 4, 2)
    assert (grid[:, :, 0] == grid[:, :1, 0]).all()
    assert len(grid[:, 0, 0].unique()) == 4
    assert (grid[:, :, 1] == grid[:1, :, 1]).all()
    report = tokenizer.report()
    assert report.raw_collision_rate == 0
    assert report.reconstruction_error == pytest.approx(0, abs=1e-6)


def test_more_levels_lose_less():
    errors = [fit(codebook_sizes=[16] * levels).report().reconstruction_error for levels in (1, 2, 3)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.5 * errors[0]


def test_codes_depend_on_the_seed_alone():
    assert torch.equal(fit(codebook_sizes=[8, 32], seed=1).codes, fit(codebook_sizes=[8, 32], seed=1).codes)
    assert not torch.equal(fit(codebook_sizes=[8, 32], seed=1).codes, fit(codebook_sizes=[8, 32], seed=2).codes)


def test_auto_sizes_follow_the_catalog():
    assert fit(20).codebook_sizes == [8, 8, 8]
    assert fit(1).codes.tolist() == [[0]]


def test_codebooks_are_learned_from_a_sample_and_all_items_are_coded():
    tokenizer = fit(codebook_sizes=[4, 64], max_vectors_per_code=1)
    assert not torch.allclose(tokenizer.center, vectors_of(200).mean(dim=0))
    assert len(tokenizer.codes.unique(dim=0)) == 200
    assert tokenizer.report().reconstruction_error < 1


def test_equal_vectors_get_different_codes():
    vectors = np.ones((100, 3), dtype=np.float32)
    tokenizer = RQKMeansTokenizer([4, 8]).fit(vectors, range(100), "view,buy")
    assert len(tokenizer.codes.unique(dim=0)) == 100
    assert tokenizer.report().worst_bucket == 100
    assert tokenizer.num_levels == 3


def test_a_codebook_larger_than_the_catalog_is_refused():
    with pytest.raises(ValueError, match=r'asks for 256 codes at level 0 and there are 200 items.*"auto"'):
        fit(codebook_sizes=[256, 256])


def test_all_vectors_may_be_learned_from():
    everything = fit(codebook_sizes=[4, 16], max_vectors_per_code=None)
    assert torch.allclose(everything.center, vectors_of(200).mean(dim=0))
    assert torch.equal(everything.codes, fit(codebook_sizes=[4, 16], max_vectors_per_code=13).codes)


def test_the_device_may_be_named():
    named = fit(codebook_sizes=[4, 16], device="cpu")
    assert named.codebooks[0].device.type == "cpu"
    assert named.settings["device"] == "cpu"
    assert len(named.codes.unique(dim=0)) == 200


@pytest.mark.parametrize("settings", [{"num_iterations": 0}, {"max_vectors_per_code": 0}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=r"must be at least 1 \(or None, for all vectors\), got"):
        RQKMeansTokenizer(**settings)


MEASURE = """
import resource, numpy as np, torch
from genrec.item_tokenizers import RQKMeansTokenizer

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

RQKMeansTokenizer([4, 16]).fit(torch.randn(200, 768), range(200), "view,buy")
rng, vectors = np.random.default_rng(0), np.empty((NUM_ITEMS, 768), dtype=np.float32)
for start in range(0, NUM_ITEMS, 10_000):
    centre = rng.normal(size=(50, 768))[rng.integers(50, size=10_000)]
    vectors[start : start + 10_000] = centre + rng.normal(size=(10_000, 768))
before = peak()
RQKMeansTokenizer([256] * 4, num_iterations=4).fit(vectors, np.arange(NUM_ITEMS), "view,buy")
print(before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak in Linux's unit")
def test_fitting_needs_less_than_a_gigabyte_beside_the_vectors():
    """200,000 vectors, 0.6 GB: the sample of 256 vectors per code, the largest thing made, is whole already."""
    script = MEASURE.replace("NUM_ITEMS", "200_000")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(float, run.stdout.split()[-2:])
    assert before > 600
    assert after - before < 700


def test_a_new_item_gets_the_freed_code_of_its_twin():
    tokenizer = fit(codebook_sizes=[8, 64])
    alone = torch.nonzero((tokenizer.codes == tokenizer._table.raw_codes).all(dim=1)).flatten()[0].item()
    code = tokenizer.encode([alone])
    tokenizer.remove_items([alone]).add_items(["twin"], vectors_of(200)[[alone]])
    assert torch.equal(tokenizer.encode(["twin"]), code)
