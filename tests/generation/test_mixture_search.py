"""Models that point at items: `generate`, the trie processor, the fast search and brute force over a catalog agree."""

import pytest
import torch
from torch import Tensor

from genrec.generation.beam_search import constrained_beam_search, search
from genrec.generation.logits_processor import TrieConstrainedLogitsProcessor
from genrec.generation.prompts import CONTEXT, read_prompts
from genrec.generation.search_buckets import BucketedSearch
from genrec.generation.trie import ItemTrie
from genrec.models.gamer import GamerForCausalLM

from ..models.mixture_oracle import (
    HEADS,
    ITEMS,
    Request,
    conditionals,
    inputs_for,
    left_padded,
    random_requests,
    tiny_model,
)
from .search_oracle import assert_same, brute_force, read

CATALOG = torch.tensor(ITEMS[::2] + ITEMS[1:6:2])  # 12 of the 18 items that the codes can write, in no order

each_head = pytest.mark.parametrize("heads", HEADS)
each_mixture = pytest.mark.parametrize("mixture", ["item", "level"])
each_mask = pytest.mark.parametrize("session_wise", [False, True])
each_softmax = pytest.mark.parametrize("softmax", ["full", "level"])


def trie_of(model: GamerForCausalLM) -> ItemTrie:
    return ItemTrie(CATALOG, model.config.vocab_size)


def expected_of(model: GamerForCausalLM, requests: list[Request], width: int) -> list[dict[tuple[int, ...], float]]:
    """Return what a beam search over the oracle's scores of the whole catalog finds for each request."""
    found = []
    for request in requests:
        by_item = conditionals(model, request)
        scores = torch.tensor([by_item[tuple(item)] for item in CATALOG.tolist()]).log()
        found.append(brute_force(scores, CATALOG, width))
    return found


def generated(model: GamerForCausalLM, batch: dict[str, Tensor], width: int, **options: bool):
    return model.generate(
        **inputs_for(model.config, batch),
        num_beams=width,
        num_return_sequences=width,
        logits_processor=[TrieConstrainedLogitsProcessor(trie_of(model))],
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )


def searched(model: GamerForCausalLM, batch: dict[str, Tensor], width: int, **options: object):
    return constrained_beam_search(
        model,
        **inputs_for(model.config, batch),
        trie=trie_of(model),
        num_beams=width,
        num_return_sequences=width,
        **options,
    )


@each_head
@each_mixture
@each_mask
@each_softmax
def test_the_search_equals_brute_force_over_the_catalog(heads: str, mixture: str, session_wise: bool, softmax: str):
    model = tiny_model(**HEADS[heads], mixture=mixture, session_wise=session_wise, softmax=softmax)
    requests = random_requests([4, 0, 7, 1])
    for width in (3, 20):  # fewer beams than items, and more
        found = read(searched(model, left_padded(requests), width), width)
        for one, expected in zip(found, expected_of(model, requests, width), strict=True):
            assert_same(one, expected)


@pytest.mark.parametrize("heads", ["copy", "neighbor", "all"])
@each_mixture
@each_mask
@each_softmax
def test_generate_equals_brute_force_with_and_without_a_cache(
    heads: str, mixture: str, session_wise: bool, softmax: str
):
    model = tiny_model(2, **HEADS[heads], mixture=mixture, session_wise=session_wise, softmax=softmax)
    requests = random_requests([3, 0, 5], seed=5)
    expected = expected_of(model, requests, 4)
    for use_cache in (True, False):
        found = read(generated(model, left_padded(requests), 4, use_cache=use_cache), 4)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)


@each_mixture
@each_softmax
def test_generate_with_more_beams_than_items(mixture: str, softmax: str):
    """Beams without an item go through the model too; what they hold must harm no other."""
    model = tiny_model(**HEADS["all"], mixture=mixture, softmax=softmax, session_wise=True)
    requests = random_requests([3, 0], seed=5)
    found = read(generated(model, left_padded(requests), 20), 20)
    for one, other in zip(found, expected_of(model, requests, 20), strict=True):
        assert_same(one, other)


@each_mixture
@each_softmax
def test_generate_without_a_catalog_writes_any_item(mixture: str, softmax: str):
    """There are fewer first codes than beams: those that begin no item must not spoil the others."""
    model = tiny_model(**HEADS["all"], mixture=mixture, softmax=softmax)
    requests = random_requests([3, 0], seed=5)
    output = model.generate(
        **left_padded(requests), num_beams=18, num_return_sequences=3, return_dict_in_generate=True, output_scores=True
    )
    if softmax == "level":  # no token of another level has a chance
        every = torch.tensor(ITEMS)
        for found, request in zip(read(output, 3), requests, strict=True):
            scores = torch.tensor(list(conditionals(model, request).values())).log()
            best = list(brute_force(scores, every, 18).items())[:3]
            assert_same(found, dict(best))
    assert output.sequences_scores.isfinite().all()


@each_mixture
@each_mask
def test_several_behaviors_asked_at_once(mixture: str, session_wise: bool):
    model = tiny_model(**HEADS["all"], mixture=mixture, session_wise=session_wise)
    requests = random_requests([4, 0, 7])
    behaviors = torch.tensor([[2, 4], [3, 2], [4, 4]])
    asked = [
        Request(**{**vars(request), "asked": behavior - 2, "trend": request.trend[target:]})
        for request, row in zip(requests, behaviors.tolist(), strict=True)
        for target, behavior in enumerate(row)
    ]
    candidates = {name: part for name, part in left_padded(asked).items() if name.startswith(("trend", "neighbor"))}
    batch = left_padded(requests) | candidates  # a row for each user, candidates for each user and behavior
    found = read(searched(model, batch, 6, behaviors=behaviors), 6)
    for one, expected in zip(found, expected_of(model, asked, 6), strict=True):
        assert_same(one, expected)


def test_generate_takes_the_search_as_its_own():
    model = tiny_model(**HEADS["all"], session_wise=True)
    batch = left_padded(random_requests([4, 0, 7]))
    direct = searched(model, batch, 5)
    settings = {"custom_generate": constrained_beam_search, "trie": trie_of(model), "num_beams": 5}
    through = model.generate(**batch, **settings, num_return_sequences=5, return_dict_in_generate=True)
    assert through.sequences.equal(direct.sequences)
    assert through.sequences_scores.equal(direct.sequences_scores)


@each_mixture
def test_the_item_mixture_ranks_what_it_points_at_first(mixture: str):
    """With the gate on copying, the user's own items come first, however low the softmax ranks them."""
    model = tiny_model(copy_head=True, mixture=mixture)
    with torch.no_grad():
        model.mixture.gate_proj.weight.zero_()
        model.mixture.gate_proj.bias.copy_(torch.tensor([0.0, 30.0]))
    request = Request([ITEMS[0], ITEMS[6], ITEMS[0]], [0, 1, 0], [1, 2, 2], [10, 20, 30], asked=1, session=3, time=90)
    best = list(read(searched(model, left_padded([request]), 12), 12)[0])
    assert set(best[:2]) == {ITEMS[0], ITEMS[6]}


def test_a_history_item_that_left_the_catalog_is_never_written():
    model = tiny_model(copy_head=True)
    gone = next(item for item in ITEMS if list(item) not in CATALOG.tolist())
    (request,) = random_requests([0])
    request = Request(**{**vars(request), "items": [gone], "behaviors": [0], "sessions": [0], "times": [5]})
    for output in (searched(model, left_padded([request]), 20), generated(model, left_padded([request]), 20)):
        (found,) = read(output, 20)
        assert set(found) == {tuple(item) for item in CATALOG.tolist()}
        assert_same(found, expected_of(model, [request], 20)[0])


def test_a_filter_leaves_the_scores_of_the_others():
    model = tiny_model(**HEADS["all"])
    batch = left_padded(random_requests([4, 2]))
    allowed = torch.arange(12) % 3 > 0
    every, some = read(searched(model, batch, 12), 12), read(searched(model, batch, 12, allowed_items=allowed), 12)
    left = {tuple(item) for item in CATALOG[allowed].tolist()}
    for one, other in zip(every, some, strict=True):
        assert_same(other, {item: score for item, score in one.items() if item in left})


@pytest.mark.parametrize("name", ["trend", "neighbor"])
def test_missing_and_wrong_candidates_are_refused(name: str):
    model = tiny_model(**{f"{name}_head": True})
    batch = inputs_for(model.config, left_padded(random_requests([4, 2])))
    without = {key: part for key, part in batch.items() if key != f"{name}_tokens"}
    with pytest.raises(ValueError, match=f"model with `{name}_head` needs `{name}_tokens`"):
        searched(model, without, 3)
    with pytest.raises(ValueError, match=f"`{name}_tokens` must have one row per query, 4, got 2"):
        searched(model, batch, 3, behaviors=torch.tensor([2, 3]))


@each_mixture
@pytest.mark.parametrize("targets", [1, 2])
def test_padded_batches_give_the_same(mixture: str, targets: int):
    model = tiny_model(**HEADS["all"], mixture=mixture, session_wise=True)
    searcher = BucketedSearch(item_multiple=4, compiles=False)
    for lengths in ([3, 0, 5], [1]):
        requests = random_requests(lengths)
        batch = left_padded(requests)
        of_requests = left_padded([request for request in requests for _ in range(targets)])
        batch |= {name: part for name, part in of_requests.items() if name.startswith(("trend", "neighbor"))}
        options = {"behaviors": torch.tensor([2, 4][:targets])}
        expected = read(searched(model, batch, 6, **options), 6)
        found = read(searched(model, batch, 6, **options, searcher=searcher), 6)
        assert len(found) == targets * len(lengths)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)


@each_mixture
def test_nothing_is_read_back_and_no_shape_depends_on_data(mixture: str):
    """On the meta device tensors have no values, so that reading one fails."""
    model = tiny_model(**HEADS["all"], mixture=mixture, session_wise=True)
    batch, trie = left_padded(random_requests([3, 0, 4])), trie_of(model)
    prompts = read_prompts(batch["input_ids"], batch["attention_mask"], batch["session_ids"], None)
    prompts = prompts._replace(**{name: batch[name] for name in CONTEXT})
    with torch.no_grad():
        expected = search(model, prompts, trie, None, 8)
        absent = prompts._replace(**{name: part.to("meta") for name, part in prompts._asdict().items()})
        beams = search(model.to("meta"), absent, trie.to("meta"), None, 8)
    assert [part.shape for part in beams] == [part.shape for part in expected]
    assert all(part.is_meta for part in beams)


def assert_one_graph(model: GamerForCausalLM, searcher: BucketedSearch) -> None:
    """Compare batches of one bucket with the plain search, and count the graphs that they needed."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for lengths, seed in (([3, 0, 4], 0), ([1, 1, 4], 1)):
        batch = left_padded(random_requests(lengths, seed))
        found, expected = searched(model, batch, 6, searcher=searcher), searched(model, batch, 6)
        for one, other in zip(read(found, 6), read(expected, 6), strict=True):
            assert_same(one, other)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_one_graph_serves_all_batches_of_a_bucket(monkeypatch: pytest.MonkeyPatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **settings: compiled(*args, **settings, backend="eager"))
    one_layer = {"num_hidden_layers": 1, "cross_level_layers": [], "behavior_injection_layers": []}
    model = tiny_model(**HEADS["all"], **one_layer, mixture="level", session_wise=True)
    assert_one_graph(model, BucketedSearch(item_multiple=4))


@pytest.mark.slow
@each_mixture
def test_generated_kernels_agree(mixture: str):
    one_layer = {"num_hidden_layers": 1, "cross_level_layers": [], "behavior_injection_layers": []}
    model = tiny_model(**HEADS["all"], **one_layer, mixture=mixture, session_wise=True)
    assert_one_graph(model, BucketedSearch(item_multiple=4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@each_mixture
@pytest.mark.parametrize("compiles", [False, True])
def test_cuda_graphs_replay_the_search(mixture: str, compiles: bool):
    torch._dynamo.reset()
    model = tiny_model(**HEADS["all"], mixture=mixture, session_wise=True).to("cuda")
    searcher, trie = BucketedSearch(item_multiple=4, compiles=compiles), trie_of(model).to("cuda")
    for lengths, seed in (([3, 0, 4], 0), ([1, 1, 4], 1)):
        batch = {name: part.to("cuda") for name, part in left_padded(random_requests(lengths, seed)).items()}
        settings = {"trie": trie, "num_beams": 6, "num_return_sequences": 6}
        found = constrained_beam_search(model, **batch, **settings, searcher=searcher)
        expected = constrained_beam_search(model, **batch, **settings)
        for one, other in zip(read(found, 6), read(expected, 6), strict=True):
            assert_same(one, other)
