"""What is copied, captured, replayed and forgotten, on a stand-in for CUDA whose graphs are run anew at each replay."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from genrec.generation.beam_search import constrained_beam_search, search
from genrec.generation.cuda_graphs import CudaGraphSearch
from genrec.generation.trie import ItemTrie

from .search_oracle import assert_same, random_catalog, random_prompts, read, tiny_model


class Recorder:
    """A search and the stand-in's graphs: a replay runs the captured call again and overwrites its outputs."""

    def __init__(self) -> None:
        self.calls, self.captures, self.capturing = 0, 0, False
        self.graphs = []

    def search(self, *arguments):
        self.calls += 1
        outputs = search(*arguments)
        if self.capturing:
            self.graphs[-1].arguments, self.graphs[-1].outputs = arguments, outputs
        return outputs

    def new_graph(self):
        graph = SimpleNamespace()
        graph.replay = lambda: [
            old.copy_(new) for old, new in zip(graph.outputs, search(*graph.arguments), strict=True)
        ]
        self.graphs.append(graph)
        return graph

    @contextmanager
    def capture(self, graph, pool):
        self.capturing, self.captures = True, self.captures + 1
        yield
        self.capturing = False


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    stream = SimpleNamespace(wait_stream=lambda other: None)
    stand_in = {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda aside: nullcontext(),
        "graph_pool_handle": lambda: 1,
        "CUDAGraph": recorder.new_graph,
        "graph": recorder.capture,
    }
    for name, replacement in stand_in.items():
        monkeypatch.setattr(torch.cuda, name, replacement)
    return recorder


def ask(model, trie, lengths, seed, **settings):
    prompts = random_prompts(random_catalog(60), lengths, seed)
    output = constrained_beam_search(model, **prompts, trie=trie, num_beams=6, num_return_sequences=6, **settings)
    return output, read(output, 6)


def test_one_capture_serves_batches_of_a_shape(recorder: Recorder):
    model = tiny_model(session_wise=True)
    trie = ItemTrie(random_catalog(60), model.config.vocab_size)
    searcher = CudaGraphSearch(recorder.search)
    kept = []
    for seed, (lengths, mask) in enumerate(
        [([3, 2], None), ([1, 3], None), ([3, 3], torch.arange(60) % 2 == 0), ([4, 2], None)]
    ):
        _, expected = ask(model, trie, lengths, seed, allowed_items=mask)
        output, found = ask(model, trie, lengths, seed, allowed_items=mask, searcher=searcher)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
        kept.append((output.sequences, output.sequences.clone()))
    assert recorder.captures == 3  # lengths 3 and 4, and 3 with a filter
    assert recorder.calls == 3 * 3  # two to warm up and one to capture
    assert all(now.equal(then) for now, then in kept), "a replay changed an earlier answer"


def test_the_oldest_graph_goes_when_there_are_too_many(recorder: Recorder):
    model = tiny_model()
    tries = [ItemTrie(random_catalog(60, seed), model.config.vocab_size) for seed in range(3)]
    searcher = CudaGraphSearch(recorder.search, max_graphs=2)
    for trie in (tries[0], tries[1], tries[0], tries[2], tries[1], tries[0]):
        ask(model, trie, [2], 0, searcher=searcher)
    assert recorder.captures == 4  # the third catalog drove the first one out
