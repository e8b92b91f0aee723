"""The search in fixed shapes: nothing waits for the device, one graph per bucket, and padding changes nothing."""

import pytest
import torch

from genrec.generation.beam_search import constrained_beam_search, search
from genrec.generation.prompts import read_prompts
from genrec.generation.search_buckets import BucketedSearch
from genrec.generation.trie import ItemTrie
from genrec.models.gamer import GamerForCausalLM

from .search_oracle import VARIANTS, assert_same, random_catalog, random_prompts, read, tiny_model

ONE_LAYER = {"num_hidden_layers": 1, "cross_level_layers": [0], "behavior_injection_layers": [0]}


def run(model: GamerForCausalLM, lengths: list[int], seed: int = 0, **settings: object):
    catalog = random_catalog(60)
    trie = ItemTrie(catalog, model.config.vocab_size)
    prompts = random_prompts(catalog, lengths, seed)
    output = constrained_beam_search(model, **prompts, trie=trie, num_beams=8, num_return_sequences=8, **settings)
    return read(output, 8)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("targets", [None, [2, 5]])
def test_nothing_is_read_back_and_no_shape_depends_on_data(variant: str, targets: list[int] | None):
    """On the meta device tensors have no values, so that reading one, or mixing in one from the host, fails."""
    model = tiny_model(**VARIANTS[variant])
    catalog = random_catalog(60)
    trie = ItemTrie(catalog, model.config.vocab_size)
    prompts = random_prompts(catalog, [3, 0, 4])
    behaviors = None if targets is None else torch.tensor(targets)
    whole = read_prompts(prompts["input_ids"], prompts["attention_mask"], prompts["session_ids"], behaviors)
    alive = trie.alive_nodes(torch.ones(3, 60, dtype=torch.bool))
    with torch.no_grad():
        expected = search(model, whole, trie, alive, 8)
        absent = whole._replace(**{name: part.to("meta") for name, part in whole._asdict().items() if part is not None})
        beams = search(model.to("meta"), absent, trie.to("meta"), alive.to("meta"), 8)
    assert [part.shape for part in beams] == [part.shape for part in expected]
    assert all(part.is_meta for part in beams)


@pytest.mark.parametrize("variant", ["gamer", "gamer session-wise"])
@pytest.mark.parametrize("num_targets", [1, 2])
def test_padded_batches_give_the_same(variant: str, num_targets: int):
    model = tiny_model(**VARIANTS[variant])
    searcher = BucketedSearch(item_multiple=4, compiles=False)
    behaviors = torch.tensor([2, 5][:num_targets])
    for lengths in ([3, 0, 5], [0], [7, 7, 7, 1, 2]):
        for rows in (None, (60,), (len(lengths), 60), (len(lengths) * num_targets, 60)):
            settings = {"behaviors": behaviors}
            if rows is not None:
                settings["allowed_items"] = torch.rand(rows, generator=torch.Generator().manual_seed(1)) < 0.5
            expected = run(model, lengths, **settings)
            found = run(model, lengths, **settings, searcher=searcher)
            assert len(found) == len(lengths) * num_targets
            for one, other in zip(found, expected, strict=True):
                assert_same(one, other)


def graphs_of(searcher: BucketedSearch, batches: list[list[int]]) -> list[int]:
    """Compare batches of these histories with the plain search; return how many graphs there were after each."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = tiny_model(session_wise=True, **ONE_LAYER)
    graphs = []
    for seed, lengths in enumerate(batches):
        for found, expected in zip(run(model, lengths, seed, searcher=searcher), run(model, lengths, seed)):
            assert_same(found, expected)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert not torch._dynamo.utils.counters["graph_break"]
    return graphs


def test_one_graph_serves_all_batches_of_a_bucket(monkeypatch: pytest.MonkeyPatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **settings: compiled(*args, **settings, backend="eager"))
    assert graphs_of(BucketedSearch(item_multiple=4), [[3, 0, 4], [2, 4, 1, 4], [1, 1, 1]]) == [1, 1, 1]


@pytest.mark.slow
def test_generated_kernels_agree_one_graph_per_bucket():
    batches = [[3, 0, 4], [2, 4, 1, 4], [1, 1, 1], [5, 0], [8, 6], [0, 2, 4, 0]]
    assert graphs_of(BucketedSearch(item_multiple=4), batches) == [1, 1, 1, 2, 2, 2]


def test_a_bucket_never_exceeds_what_the_model_reads():
    searcher = BucketedSearch(item_multiple=25, compiles=False)
    assert searcher.bucket(1, 1, 100) == (1, 25)
    assert searcher.bucket(9, 26, 100) == (16, 50)
    assert searcher.bucket(64, 99, 99) == (64, 99)
    assert searcher.bucket(3, 60, 40) == (4, 60)  # prompts may be padded wider than the model reads


def test_a_multiple_below_one_is_refused():
    with pytest.raises(ValueError, match="`item_multiple` must be at least 1, got 0"):
        BucketedSearch(item_multiple=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("compiles", [False, True])
def test_cuda_graphs_replay_the_search(compiles: bool):
    torch._dynamo.reset()
    model = tiny_model(session_wise=True).to("cuda")
    searcher = BucketedSearch(item_multiple=4, compiles=compiles)
    catalog = random_catalog(60)
    trie = ItemTrie(catalog, model.config.vocab_size).to("cuda")
    for lengths, seed in (([3, 0, 4], 0), ([2, 4, 1, 4], 1), ([5, 0], 2), ([1, 3, 1], 3)):
        prompts = {name: part.to("cuda") for name, part in random_prompts(catalog, lengths, seed).items()}
        for mask in (
            None,
            (torch.rand(len(lengths), 60, generator=torch.Generator().manual_seed(seed)) < 0.5).to("cuda"),
        ):
            settings = {"trie": trie, "allowed_items": mask, "num_beams": 8, "num_return_sequences": 8}
            expected = constrained_beam_search(model, **prompts, **settings)
            output = constrained_beam_search(model, **prompts, **settings, searcher=searcher)
            for found, other in zip(read(output, 8), read(expected, 8), strict=True):
                assert_same(found, other)
    assert len(searcher._captured._graphs) == 4  # two buckets, with and without a filter
