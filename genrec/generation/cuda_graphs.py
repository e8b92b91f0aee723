"""The search as one CUDA graph per shape: hundreds of small kernels are launched with one call.

A graph repeats the same kernels on the same memory. So its inputs are copied into buffers of its own, and what it reads
besides, the model's weights and the trie, must stay where it is: loading weights in place is seen, moving them is not.
"""

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from genrec.generation.beam_search import Search
from genrec.generation.prompts import Prompts
from genrec.generation.selection import Beams
from genrec.generation.trie import ItemTrie
from genrec.models.gamer.modeling_gamer import GamerForCausalLM

WARM_UPS = 2
MAX_GRAPHS = 32


class _Graph(NamedTuple):
    """A captured search.

    Args:
        graph: The kernels.
        inputs: Its buffers, `(prompts, alive)`.
        outputs: Where it leaves its result.
        read: The model and the trie, kept so that their memory is.
    """

    graph: Any
    inputs: Any
    outputs: Beams
    read: tuple[GamerForCausalLM, ItemTrie]


class CudaGraphSearch:
    """Captures a search at the first batch of each shape and replays it for the others; needs CUDA.

    The oldest graph goes when there are too many, for example those of a catalog that was replaced.

    Args:
        run: The search to capture: nothing in it may wait for the device or depend on values.
        max_graphs: How many to keep.
    """

    def __init__(self, run: Search, max_graphs: int = MAX_GRAPHS) -> None:
        self._run = run
        self._max_graphs = max_graphs
        self._graphs: dict[Any, _Graph] = {}
        self._pool: Any = None
        self._lock = threading.Lock()

    def __call__(
        self, model: GamerForCausalLM, prompts: Prompts, trie: ItemTrie, alive: Tensor | None, num_beams: int
    ) -> Beams:
        """Return what the search returns, in memory of the caller's own."""
        inputs = (prompts, alive)
        shapes = tuple(None if part is None else (part.shape, part.dtype) for part in (*prompts, alive))
        key = (id(model), id(trie), num_beams, shapes)
        with self._lock:
            if key not in self._graphs:
                self._make_room()
                self._graphs[key] = self._capture(model, inputs, trie, num_beams)
            captured = self._graphs[key]
            for buffer, given in zip(tree_leaves(captured.inputs), tree_leaves(inputs), strict=True):
                if buffer is not None:
                    buffer.copy_(given)
            captured.graph.replay()
            return tree_map(torch.clone, captured.outputs)

    def _make_room(self) -> None:
        while len(self._graphs) >= self._max_graphs:
            del self._graphs[next(iter(self._graphs))]

    def _capture(self, model: GamerForCausalLM, inputs: Any, trie: ItemTrie, num_beams: int) -> _Graph:
        buffers = tree_map(lambda part: None if part is None else part.clone(), inputs)
        prompts, alive = buffers
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # compiles, and lets libraries allocate what they need
            for _ in range(WARM_UPS):
                self._run(model, prompts, trie, alive, num_beams)
        torch.cuda.current_stream().wait_stream(aside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = self._run(model, prompts, trie, alive, num_beams)
        return _Graph(graph, buffers, outputs, (model, trie))
