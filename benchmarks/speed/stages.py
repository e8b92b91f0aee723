"""Where a constrained beam search spends its time: reading the history, decoding, masking and selection.

The search's own parts, called one by one with a clock between them. On CUDA the clock waits for the device, so the sum
is more than the search takes in one piece.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor

from genrec.generation import ItemTrie, constrained_beam_search
from genrec.generation.beam_search import Search
from genrec.generation.prompts import Prompts
from genrec.generation.selection import Beams, extend, first_beams
from genrec.generation.shared_prompt import SharedPromptDecoder
from genrec.models.gamer import GamerForCausalLM

STAGES = ("prefill", "decode", "select")


class Clock:
    """Adds up the seconds spent under each name.

    Args:
        device: Where the work is done.

    Attributes:
        seconds: Name -> seconds so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measures(self, name: str) -> Iterator[None]:
        """Add what the block takes."""
        start = self._now()
        yield
        self.seconds[name] += self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def stage_seconds(
    model: GamerForCausalLM, prompts: dict[str, Tensor], trie: ItemTrie, num_beams: int, repeats: int
) -> dict[str, float]:
    """Return the median seconds of `prefill`, `decode` (all steps) and `select` (masking and selection, all steps).

    Args:
        model: The model.
        prompts: `input_ids` and `attention_mask`, `[batch, tokens]`.
        trie: The catalog's codes, on the model's device.
        num_beams: Beams per user.
        repeats: How often to search, after a first time.
    """
    runs = []
    for _ in range(repeats + 1):
        clock = Clock(model.device)
        constrained_beam_search(model, **prompts, trie=trie, num_beams=num_beams, searcher=timed_search(clock))
        runs.append(clock.seconds)
    return {name: median(seconds[name] for seconds in runs[1:]) for name in STAGES}


def timed_search(clock: Clock) -> Search:
    """Return what `genrec.generation.beam_search.search` does, with a clock between its parts."""

    def search(
        model: GamerForCausalLM, prompts: Prompts, trie: ItemTrie, alive: Tensor | None, num_beams: int
    ) -> Beams:
        with clock.measures("prefill"):
            decoder = SharedPromptDecoder(model, prompts, num_beams)
        tokens, beams = prompts.behaviors.reshape(-1, 1), first_beams(prompts.behaviors)
        for level in range(trie.num_levels):
            with clock.measures("decode"):
                log_probabilities = decoder.step(tokens, beams.parents, level)
            with clock.measures("select"):
                offset = model.config.level_offsets[level]
                beams = extend(beams, log_probabilities, trie, alive, level, offset, num_beams)
                tokens = beams.tokens[..., -1]
        return beams

    return search
