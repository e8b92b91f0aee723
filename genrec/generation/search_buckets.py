"""The search in few fixed shapes: batches are padded to buckets, and each bucket is compiled, or captured, once.

Compiling takes long and running is fast, so it is for servers and large evaluations: minutes per bucket for a model of
eight layers, then a fifth less time per batch on a CPU. On CUDA the whole search, prompt and beams, becomes one graph.
"""

import torch
from torch import Tensor

from genrec.generation.beam_search import Search, search
from genrec.generation.cuda_graphs import CudaGraphSearch
from genrec.generation.prompts import Prompts
from genrec.generation.selection import Beams
from genrec.generation.trie import ItemTrie
from genrec.models.gamer.modeling_gamer import GamerForCausalLM

ITEM_MULTIPLE = 25
MAX_COMPILED = 64  # shapes, catalogs and models whose code is kept; torch's own limit is 8


class BucketedSearch:
    """A search for `constrained_beam_search(searcher=...)` that pads batches and runs them compiled.

    Users are padded to the next power of two, histories to the next multiple of items, and at most to what the model
    reads. Items and scores are those of `search`, up to rounding.

    Args:
        item_multiple: How far apart the buckets of histories are, in items.
        compiles: Whether to compile; without it batches are padded and, on CUDA, captured only.

    Raises:
        ValueError: If `item_multiple` is below 1.

    Example:
        >>> BucketedSearch().bucket(num_users=5, num_items=60, max_items=100), BucketedSearch().bucket(1, 0, 10)
        ((8, 75), (1, 10))
    """

    def __init__(self, item_multiple: int = ITEM_MULTIPLE, compiles: bool = True) -> None:
        if item_multiple < 1:
            raise ValueError(f"`item_multiple` must be at least 1, got {item_multiple}.")
        self.item_multiple = item_multiple
        self._run: Search = torch.compile(search, fullgraph=True, dynamic=False) if compiles else search
        self._captured = CudaGraphSearch(self._run)

    def bucket(self, num_users: int, num_items: int, max_items: int) -> tuple[int, int]:
        """Return the users and items that a batch is padded to."""
        multiples = max(1, -(-num_items // self.item_multiple))
        return 1 << (num_users - 1).bit_length(), max(num_items, min(multiples * self.item_multiple, max_items))

    def __call__(
        self, model: GamerForCausalLM, prompts: Prompts, trie: ItemTrie, alive: Tensor | None, num_beams: int
    ) -> Beams:
        """Return what `search` returns."""
        num_users, num_tokens = prompts.input_ids.shape
        per_item = model.config.tokens_per_item
        users, items = self.bucket(num_users, -(-(num_tokens - 1) // per_item), model.config.max_history_items)
        padded = prompts.padded(users, items * per_item + 1)
        run = self._captured if prompts.input_ids.is_cuda else self._run
        with torch._dynamo.config.patch(recompile_limit=MAX_COMPILED):
            beams = run(model, padded, trie, _padded_rows(alive, num_users, users), num_beams)
        return Beams(*(part[: prompts.num_requests] for part in beams))


def _padded_rows(alive: Tensor | None, num_users: int, padded_users: int) -> Tensor | None:
    if alive is None or alive.ndim == 1:
        return alive
    missing = (padded_users - num_users) * (len(alive) // num_users)
    return torch.cat([alive, alive[-1:].expand(missing, -1)])
